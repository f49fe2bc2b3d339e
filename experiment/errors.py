"""What users are told about errors: one line that says what is wrong, where, and what to do."""

import errno
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path

from .processes.launcher import process_rank
from .processes.stopping import LOST, LostProcess, Stopped, as_stopped, is_lost_connection, stop_signals
from .processes.streams import outlives_readers

EXIT_STATUS = 2


class UserError(Exception):
    """Something that the user can fix; the message is one line that says how."""


def did_you_mean(name: str, known: Iterable[str], written: Callable[[str], str | None] = str) -> str:
    """``"; did you mean 'x'?"``, or "" if no known name is near.

    Args:
        name: what was given.
        known: what there is.
        written: how a known name is shown.
    """
    known = list(dict.fromkeys(known))
    folded = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), folded, n=1, cutoff=0.7)
    return f"; did you mean '{written(folded[near[0]])}'?" if near else ""


def as_called(text: str) -> str:
    """A text for the user, whose ``train.py`` is ``scientific-spaces train`` where the process was started so."""
    if Path(sys.argv[0]).stem != "scientific-spaces":
        return text
    return re.sub(r"(?<![\w/])(?:python )?(?:scripts/)?(train|evaluate|predict)\.py\b", r"scientific-spaces \1", text)


@outlives_readers()
def run_main(main: Callable[[list[str]], object], argv: list[str]) -> int:
    """Runs ``main(argv)`` and returns the exit status: 0, or 2 after one line on standard error.

    ``--debug`` anywhere in ``argv`` shows the traceback too.
    """
    debug = "--debug" in argv
    try:
        with stop_signals():
            main([argument for argument in argv if argument != "--debug"])
    except Stopped as stopped:
        return _end(stopped)
    except SystemExit as exit_request:  # --help, --print_config
        return exit_request.code if isinstance(exit_request.code, int) else 0
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr, flush=True)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        if (told := as_stopped(error)) is not None:
            return _end(told)
        _report(describe(error) + ("" if debug or is_expected(_cause(error)) else " (--debug shows where)"))
        return EXIT_STATUS
    return 0


def _end(stopped: Stopped) -> int:
    if process_rank() == 0:
        print(as_called(str(stopped)), file=sys.stderr, flush=True)
    return 128 + stopped.signum


def describe(error: BaseException) -> str:
    """One line for any exception."""
    error = _cause(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" writing {error.filename}" if error.filename else ""
        return f"no space left{where}: what was written before is intact; free some space and continue with --resume"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"no such file or folder: {error.filename}"
    if is_lost_connection(error):
        return LOST
    if isinstance(error, PermissionError) and error.filename:
        return f"no permission for {error.filename}"
    text = textwrap.shorten(str(error), 600, placeholder=" ...")
    if is_expected(error) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _cause(error: BaseException) -> BaseException:
    """The error itself, or what made jsonargparse try the other types of a union."""
    # Where it isn't loaded, nothing was parsed; and it imports Lightning, which may be what failed.
    said = sys.modules.get(f"{__package__}.private_api")
    while said and said.UNION in str(error) and error.__cause__ is not None:
        error = error.__cause__
    return error


def is_expected(error: BaseException) -> bool:
    """Whether the message was written for the user, so that the class of the error adds nothing."""
    lightning = sys.modules.get("pytorch_lightning.utilities.exceptions")
    of_lightning = (lightning.MisconfigurationException,) if lightning else ()
    return isinstance(error, (UserError, LostProcess, ValueError, OSError, *of_lightning))


def _report(line: str) -> None:
    print(as_called(f"error: {line}"), file=sys.stderr, flush=True)
