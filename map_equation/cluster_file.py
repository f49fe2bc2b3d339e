"""From the file of a graph to the file of its modules: what the commands do."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from numba.core import event

from .graph import one_way
from .inputs import from_read
from .network import Network
from .trials import best_of_trials
from .writers import check_path

COMPILING = "compiling what this graph needs: some seconds, only the first time on this machine"


def cluster_file(
    input: Path | str,
    output: Path | str,
    *,
    two_level: bool = False,
    directed: bool | None = None,
    min_weight: float = 0.0,
    flow: str | None = None,
    teleportation: float = 0.15,
    markov_time: float = 1.0,
    seed: int = 1,
    num_trials: int = 1,
    num_threads: int = 1,
    initial: Path | str | None = None,
    score: bool = False,
    progress: bool = False,
) -> str:
    """Reads a graph, searches its modules, and writes them. Says on stderr when it has to compile.

    Args:
        input: the graph, in any format of ``readers.graphs.read_graph``.
        output: ``.tree``, ``.clu``, ``.csv`` or ``.json``.
        two_level: a flat partition rather than a hierarchy.
        directed: whether links have a direction; None: what the file says, else undirected.
        min_weight: links with a smaller weight are dropped.
        flow, teleportation, markov_time: the walk, see ``Network``.
        seed, num_trials, num_threads, progress: of the search, see ``infomap``.
        initial: a ``.tree`` or ``.clu`` file that the search starts from.
        score: write ``initial`` with its code length, without a search.

    Returns:
        A line for the terminal.

    Raises:
        ValueError: an argument is out of range, or the output has another extension.
        DataError: a file can't be read.
    """
    output = check_output(input, output)
    if score and initial is None:
        raise ValueError("score needs the modules to be scored: name their file as initial")
    from readers.graphs import read_graph

    direction = one_way(flow, directed)
    with said_when_compiling():
        graph = read_graph(input, directed=directed, min_weight=min_weight, one_way=direction)
        network = Network(from_read(graph), flow=flow, teleportation=teleportation, markov_time=markov_time)
        options: dict[str, Any] = {"seed": seed, "two_level": two_level, "initial": initial}
        if score:
            found = network.partition(initial)
        else:
            found = best_of_trials(network, num_trials, num_threads, progress, **options)
    # The names as they stand in the file.
    replace(found, names=graph.names.tolist()).write(output)
    return (
        f"{network.num_nodes} nodes, {len(graph.edges)} links: {found.num_modules} modules, "
        f"{found.num_levels} levels, {found.codelength:.6f} bits "
        f"({found.one_level_codelength:.6f} without modules), flow {found.flow_model} -> {output}"
    )


def check_output(input: Path | str, output: Path | str) -> Path:
    """The output's path, if it can be written; before a long search.

    Raises:
        ValueError: it has another extension, is the input or no file, or its folder isn't there.
    """
    path = check_path(output)
    graph = Path(os.path.expanduser(input))
    if path.exists() and graph.exists() and path.samefile(graph):
        raise ValueError(f"{path} is the graph itself: name another output")
    return path


class SayOnce(event.Listener):
    """Prints one line when Numba starts to compile, which it doesn't do if it finds the code on disk."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not SayOnce.said:
            print(COMPILING, file=sys.stderr, flush=True)
        SayOnce.said = True

    def on_end(self, event: event.Event) -> None:
        pass


@contextmanager
def said_when_compiling() -> Iterator[None]:
    """Inside, the first compilation is announced on stderr."""
    with event.install_listener("numba:compile", SayOnce()):
        yield
