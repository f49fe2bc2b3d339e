"""What users are told about errors: one line that says what is wrong, where, and what to do."""

import contextlib
import errno
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable
from difflib import get_close_matches

EXIT_STATUS = 2


class UserError(Exception):
    """Something that the user can fix; the message is one line that says how."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or "" if no known name is near."""
    known = list(dict.fromkeys(known))
    folded = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    return f"; did you mean '{folded[near[0]]}'?" if near else ""


def run_main(main: Callable[[list[str]], object], argv: list[str]) -> int:
    """Runs ``main(argv)`` and returns the exit status: 0, or 2 after one line on standard error.

    ``--debug`` anywhere in ``argv`` shows the traceback too.
    """
    debug = "--debug" in argv
    try:
        main([argument for argument in argv if argument != "--debug"])
    except SystemExit as exit_request:  # --help, --print_config
        return exit_request.code if isinstance(exit_request.code, int) else 0
    except KeyboardInterrupt:
        _report("interrupted; continue with --resume")
        return 130
    except BrokenPipeError:
        # Whoever reads the output has gone (`| head`): not an error of ours.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        _report(describe(error) + ("" if debug or is_expected(error) else " (--debug shows where)"))
        return EXIT_STATUS
    return 0


def describe(error: BaseException) -> str:
    """One line for any exception."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" writing {error.filename}" if error.filename else ""
        return f"no space left{where}: what was written before is intact; free some space and continue with --resume"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"no such file or folder: {error.filename}"
    if isinstance(error, PermissionError) and error.filename:
        return f"no permission for {error.filename}"
    text = textwrap.shorten(_without_union(str(error)), 600, placeholder=" ...")
    if is_expected(error) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _without_union(message: str) -> str:
    """The message on one line; of the attempts at a union of types that jsonargparse lists, the one that matters."""
    from .private_api import UNION  # not on top: it imports Lightning

    if UNION in message:
        attempts = [line.strip()[2:] for line in message.splitlines() if line.strip().startswith("- ")]
        message = next((attempt for attempt in attempts if "NoneType" not in attempt), message)
    return " ".join(message.split())


def is_expected(error: BaseException) -> bool:
    """Whether the message was written for the user, so that the class of the error adds nothing."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    return isinstance(error, (UserError, ValueError, OSError, MisconfigurationException))


def _report(line: str) -> None:
    print(f"error: {line}", file=sys.stderr, flush=True)
