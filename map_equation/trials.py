"""Independent searches of one network, in sequence or in parallel."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from .network import Network, check_whole
from .partition import Partition


def best_of_trials(network: Network, num_trials: int, num_threads: int, progress: bool, **options: Any) -> Partition:
    """The shortest of ``num_trials`` searches, the first one in a tie.

    Compiled code releases the GIL, so threads run in parallel; each has its own working memory.

    Args:
        options: of ``Network.search``.

    Raises:
        ValueError: if there is no trial or no thread; what ``Network.search`` raises.
    """
    check_whole("num_trials", num_trials, 1)
    check_whole("num_threads", num_threads, 1)
    best: tuple[float, int, Partition] | None = None
    lengths = [0.0] * num_trials
    for done, (trial, found) in enumerate(_trials(network, num_trials, num_threads, options), 1):
        lengths[trial] = found.codelength
        if best is None or (found.codelength, trial) < best[:2]:
            best = found.codelength, trial, found
        if progress:
            print(f"trial {done}/{num_trials}: {found.codelength:.6f} bits, best {best[0]:.6f}", file=sys.stderr)
    assert best is not None
    return replace(best[2], codelengths=lengths)


def _trials(
    network: Network, num_trials: int, num_threads: int, options: dict[str, Any]
) -> Iterator[tuple[int, Partition]]:
    """Numbers and results of the trials, as they end."""
    if num_threads == 1:  # in this thread, whose memory the graph has left: another one has memory of its own
        for trial in range(num_trials):
            yield trial, network.search(trial=trial, **options)
        return
    pool = ThreadPoolExecutor(num_threads)
    try:
        futures = {pool.submit(network.search, trial=trial, **options): trial for trial in range(num_trials)}
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    finally:  # after an interrupt, trials that have not started are dropped
        pool.shutdown(cancel_futures=True)
