"""What is measured in a process of its own: the peak of its memory, and first calls. Without torch: it would count."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def in_a_process(code: str, **environment: str) -> float:
    """The number that the code prints last, in a new process on one thread unless the environment says otherwise."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.split()[-1])


def knows_its_memory() -> bool:
    """Whether a process can be asked for its own peak: on Linux only."""
    return Path("/proc/self/status").is_file()


def own_bytes(key: str) -> int:
    """Bytes that this process has in memory: ``VmRSS`` now, ``VmHWM`` at the peak (Linux).

    Not getrusage: its maximum survives exec, so a child would report its parent's.
    """
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def watched(key: str) -> Iterator[list[int]]:
    """A list whose only entry is the peak of ``own_bytes(key)`` within the context."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], own_bytes(key))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
