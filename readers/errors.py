"""What goes wrong with the user's data, in one line."""

LONGEST, BEGINNING, END = 600, 400, 190  # characters of a message, and what is kept of a longer one


class DataError(ValueError):
    """The data cannot be had or read. The message is one line: what, where, and what to do about it.

    It may quote what the data holds, which may be anything: characters that a terminal would obey are escaped, and of a
    long message the middle is left out.
    """

    def __init__(self, message: str) -> None:
        line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in message)
        super().__init__(line if len(line) <= LONGEST else f"{line[:BEGINNING]} … {line[-END:]}")


def one_line(error: BaseException) -> str:
    """What an exception of a library says, as a part of a message; the name of its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
