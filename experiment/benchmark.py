"""``scripts/benchmark.py``: runs benchmarks and prints one table of ratios."""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .arguments import check_output, take_option
from .console import quiet
from .errors import UserError, did_you_mean
from .run_folder import write_atomically

# What the table shows as columns, or the case says already.
HEADINGS = ("benchmark", "case", "peer", "ratio", "what", "pattern", "n")
USAGE = "usage: benchmark.py NAME|all [--json FILE] [--pictures FOLDER] [--quick]"


def benchmark(argv: list[str]) -> None:
    """Runs the benchmarks that the command line names."""
    quiet()
    import benchmarks

    modules = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    names = sorted(name for name in modules if not name.startswith("_"))
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{USAGE}\n\nRatios: the peer's time (or memory) over ours, above 1 is better for us.")
        print("--pictures draws the curves of the benchmarks that have some; --quick only tries whether they run.\n")
        for name in names:
            first_line = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").splitlines()[0]
            print(f"  {name:20} {first_line}")
        return
    arguments = list(argv)
    json_file = take_option(arguments, "--json")
    pictures = take_option(arguments, "--pictures")
    quick = "--quick" in arguments
    arguments = [argument for argument in arguments if argument != "--quick"]
    for argument in arguments:
        if argument.startswith("-"):
            near = did_you_mean(argument, ("--json", "--pictures", "--quick"))
            raise UserError(f"unknown option {argument}{near} ({USAGE})")
    if len(arguments) != 1:
        raise UserError(f"name one benchmark: {', '.join(names)} or all")
    if arguments[0] not in (*names, "all"):
        raise UserError(
            f"no benchmark '{arguments[0]}'{did_you_mean(arguments[0], names)} (there are {', '.join(names)})"
        )
    check_output("--json", json_file)
    rows: list[dict[str, Any]] = []
    for name in names if arguments[0] == "all" else arguments:
        module = importlib.import_module(f"benchmarks.{name}")
        measured = module.run(quick=quick)
        rows += measured
        if pictures and hasattr(module, "picture"):
            Path(pictures).mkdir(parents=True, exist_ok=True)
            module.picture(measured).savefig(Path(pictures) / f"{name}.png")
        _print(measured)  # after each, as the file, so that a failure or Ctrl-C loses nothing
        if json_file:
            write_atomically(Path(json_file), json.dumps(rows, indent=2) + "\n")


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table()
    for column in ("benchmark", "case", "peer", "ratio", "measured"):
        table.add_column(column, justify="right" if column == "ratio" else "left")
    for row in rows:
        measured = {key: value for key, value in row.items() if key not in HEADINGS}
        text = ", ".join(f"{key} {_short(value)}" for key, value in measured.items())
        table.add_row(row["benchmark"], str(row["case"]), str(row["peer"]), f"{row['ratio']:.2f}", text)
    Console(width=None if Console().is_terminal else 140).print(table)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
