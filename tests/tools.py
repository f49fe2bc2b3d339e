"""What tests of several folders share: a quiet Trainer, an album for pictures, given batches, two processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers.logger import DummyLogger

from tests.conftest import ROOT, script_environment


def quiet_trainer(*callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
    """A Trainer for one epoch on the CPU that shows nothing and leaves no files but those of its callbacks.

    The arguments, any of ``pl.Trainer``, go before these options.
    """
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(callbacks=list(callbacks), **(options | arguments))


class Album(DummyLogger):
    """A logger that keeps the pictures it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: dict[str, list[np.ndarray]] = {}

    def log_image(self, key: str, images: list[Any]) -> None:
        assert all(isinstance(image, Image.Image) for image in images)
        self.pictures.setdefault(key, []).extend(np.asarray(image) for image in images)


class Batches:
    """A loader of the batches as they are. (A ``DataLoader`` would draw a seed from the global random state.)"""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = list(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def in_two_processes(work: Callable[..., None], *arguments: Any) -> None:
    """Runs ``work(rank, *arguments)`` in two new processes, whose environment is that of a run on two devices.

    They are not forked: threads of this process (xdist's, autograd's) may hold locks, for which a fork would wait
    for ever.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    torch.multiprocessing.spawn(_one_of_two, (port, work, arguments), nprocs=2)


def _one_of_two(rank: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "NODE_RANK": 0, "LOCAL_RANK": rank}
    os.environ |= {name: str(value) for name, value in place.items()}
    work(rank, *arguments)


def equal(left, right) -> bool:
    """Bitwise equality of nested states."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right


def start_and_kill(arguments: list[str], run: Path, rows: int) -> None:
    """Starts training and kills it once ``metrics.csv`` has so many rows."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "--run_dir", str(run), *arguments],
        env=script_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=run.parent,
    )
    metrics, deadline = run / "metrics.csv", time.monotonic() + 300
    while not metrics.is_file() or len(metrics.read_text().splitlines()) <= rows:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
