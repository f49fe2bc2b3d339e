"""The commands, as ``scientific-spaces train|evaluate|predict`` and as scripts; what they share while they load."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator

from .errors import did_you_mean, run_main
from .processes.launcher import process_rank

COMMANDS = {
    "train": "trains an experiment and tests it",
    "evaluate": "tests a trained model again, on other data if asked",
    "predict": "runs a trained model on a file of yours",
}
LOADING = "loading torch and Lightning ..."


def main(argv: list[str] | None = None) -> int:
    """The console command ``scientific-spaces``: runs the command that it is given, returns the exit status.

    Args:
        argv: the command and its arguments; by default those of the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: scientific-spaces COMMAND [--help] ...\n")
        for command, text in COMMANDS.items():
            print(f"  {command:10} {text}")
        return 0
    command, *arguments = argv
    if command not in COMMANDS:
        near = did_you_mean(command, COMMANDS)
        print(f"error: no command '{command}'{near} (there are {', '.join(COMMANDS)})", file=sys.stderr)
        return 2
    return run(command, arguments)


def run(command: str, argv: list[str]) -> int:
    """Loads a command, runs it with its arguments, and returns the exit status.

    Args:
        command: the name of a function in the file of the same name in this package.
        argv: its arguments.
    """

    def load_and_run(arguments: list[str]) -> None:
        with loading():
            function = getattr(importlib.import_module(f".{command}", __package__), command)
        function(arguments)

    return run_main(load_and_run, argv)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """For the seconds in which a process loads torch and Lightning: says so on a terminal, and spares what it can."""
    if "torch" in sys.modules:
        yield
        return
    shows = sys.stderr.isatty() and process_rank() == 0
    if shows:
        print(LOADING, end="\r", file=sys.stderr, flush=True)
    # Modules stay until the end. To look for garbage among their million objects, again and again while they load,
    # later and at the end, takes a third of the processor time of a short command.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        if shows:
            print(" " * len(LOADING), end="\r", file=sys.stderr, flush=True)
