"""What goes wrong with the user's data, in one line."""


class DataError(ValueError):
    """The data cannot be had or read. The message is one line: what, where, and what to do about it."""
