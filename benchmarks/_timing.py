"""Times of several things that are to be compared: measured in turn, so that a busy machine hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(
    arms: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each arm in each round; what it started on a GPU is done by then.

    Args:
        arms: what is measured.
        rounds: in each, one call of each arm.
        warm_up: rounds before these, which don't count.
        clock: ``time.process_time`` leaves out what other processes take, where all runs in one thread.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(warm_up + rounds):
        for name, arm in arms.items():
            _synchronize()
            started = clock()
            arm()
            _synchronize()
            if number >= warm_up:
                seconds[name].append(clock() - started)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each arm's rounds."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def place(device: torch.device) -> str:
    """Where it was measured, for a row: the number of threads, or the GPU."""
    return f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
