"""Communities of the graph in a file: ``python -m map_equation GRAPH OUTPUT``. No configuration, no torch."""

import argparse
import difflib
import gc
import os
import sys
from typing import NoReturn

from .graph import FLOWS


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see python -m map_equation --help\n")


def make_parser() -> Parser:
    """The command's arguments, those of ``cluster_file``."""
    parser = Parser("python -m map_equation", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("graph", metavar="GRAPH", help="edge list, CSV, Pajek, GML, GraphML, MatrixMarket, METIS, .npz; may be gzipped")
    add("output", metavar="OUTPUT", help="file to write: .tree, .clu (top modules), .csv or .json")
    add("--two_level", action="store_true", help="a flat partition, no hierarchy")
    add("--directed", type=truth, metavar="true|false", help="have links a direction? (default: as the file says)")
    add("--flow", choices=FLOWS, metavar="MODEL", help=f"the walk: {', '.join(FLOWS)} (default: as directed says)")
    add("--markov_time", type=float, default=1.0, metavar="T", help="above 1 for larger modules (%(default)s)")
    add("--seed", type=int, default=1, metavar="N", help="of the search (%(default)s)")
    add("--num_trials", type=int, default=1, metavar="N", help="independent searches, the best is kept (%(default)s)")
    add("--num_threads", type=int, default=1, metavar="N", help="trials at the same time (%(default)s)")
    add("--initial", metavar="FILE", help="a .tree or .clu file, ours or Infomap's, to start from")
    add("--score", action="store_true", help="write the modules of --initial with their code length; no search")
    return parser


def truth(text: str) -> bool:
    """``true`` or ``false``."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text == "true"


def main(argv: list[str] | None = None) -> int:
    """The command: 0; 2 with a line on stderr for bad input; 130 if interrupted."""
    parser = make_parser()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        known = [name for name in parser._option_string_actions if name.startswith("--")]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, 1)
        parser.error(f"unknown argument {unknown[0]}" + (f", did you mean {near[0]}?" if near else ""))
    from .cluster_file import cluster_file

    arguments = vars(options)
    try:
        print(cluster_file(arguments.pop("graph"), arguments.pop("output"), **arguments))
    except (ValueError, OSError, MemoryError) as error:
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # Collecting what Numba allocates while it starts, and taking it down at the end, would take as long as a search.
    gc.disable()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
