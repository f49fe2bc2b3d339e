"""Independent searches of one network, in sequence or in parallel."""

import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from .network import Network
from .partition import Partition


def best_of_trials(network: Network, num_trials: int, num_threads: int, progress: bool, **options: Any) -> Partition:
    """The shortest of ``num_trials`` searches, the first one in a tie.

    Compiled code releases the GIL, so threads run in parallel; each has its own working memory.

    Args:
        options: of ``Network.search``.

    Raises:
        ValueError: if there is no trial or no thread; what ``Network.search`` raises.
    """
    for name, value in (("num_trials", num_trials), ("num_threads", num_threads)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    best: tuple[float, int, Partition] | None = None
    lengths = [0.0] * num_trials
    pool = ThreadPoolExecutor(num_threads)
    try:
        futures = {pool.submit(network.search, trial=trial, **options): trial for trial in range(num_trials)}
        for done, future in enumerate(as_completed(futures), 1):
            found = future.result()
            candidate = (found.codelength, futures.pop(future), found)
            lengths[candidate[1]] = found.codelength
            if best is None or candidate[:2] < best[:2]:
                best = candidate
            if progress:
                print(f"trial {done}/{num_trials}: {found.codelength:.6f} bits, best {best[0]:.6f}", file=sys.stderr)
    finally:  # after an interrupt, trials that have not started are dropped
        pool.shutdown(cancel_futures=True)
    assert best is not None
    return replace(best[2], codelengths=lengths)
