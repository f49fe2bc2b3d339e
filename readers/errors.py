"""Errors in the user's data, in one line."""

LONGEST, BEGINNING, END = 600, 400, 190  # characters: of a message, and what is kept of a longer one


class DataError(ValueError):
    """The data is not available or can't be read. The message is one line: what, where, and what to do about it.

    It may quote the data, which may contain anything: control characters are escaped, and the middle of a long message
    is left out.

    Args:
        message: the message.
        longest: its most characters, for one that lists names.
    """

    def __init__(self, message: str, longest: int = LONGEST) -> None:
        line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in message)
        super().__init__(line if len(line) <= longest else f"{line[: longest - LONGEST + BEGINNING]} … {line[-END:]}")


def one_line(error: BaseException) -> str:
    """The message of a library's exception in one line; if it is empty, the name of its class."""
    return " ".join(str(error).split()) or type(error).__name__
