"""Independent searches of one network, one after another or at the same time."""

import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from .network import Network
from .partition import Partition


def best_of_trials(network: Network, num_trials: int, num_threads: int, progress: bool, **options: Any) -> Partition:
    """The shortest of ``num_trials`` searches, of equal ones the first.

    Compiled code holds no lock, so threads run side by side; each has working memory of its own.

    Args:
        options: of ``Network.search``.

    Raises:
        ValueError: no trial or no thread; what ``Network.search`` raises.
    """
    for name, value in (("num_trials", num_trials), ("num_threads", num_threads)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    best: tuple[float, int, Partition] | None = None
    pool = ThreadPoolExecutor(num_threads)
    try:
        futures = {pool.submit(network.search, trial=trial, **options): trial for trial in range(num_trials)}
        for done, future in enumerate(as_completed(futures), 1):
            found = future.result()
            candidate = (found.codelength, futures.pop(future), found)
            if best is None or candidate[:2] < best[:2]:
                best = candidate
            if progress:
                print(f"trial {done}/{num_trials}: {found.codelength:.6f} bits, best {best[0]:.6f}", file=sys.stderr)
    finally:  # after an interrupt the trials that have not begun are dropped
        pool.shutdown(cancel_futures=True)
    return best[2]
