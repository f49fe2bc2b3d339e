"""A training step makes the host wait for the device only where a user asked for it.

On a GPU each ``_local_scalar_dense`` (``.item()``, ``float()``, a tensor in an ``if``) and each ``nonzero`` waits until
all kernels before it are done. They are the same operations on a CPU, so they are counted here.
"""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from torch.utils._python_dispatch import TorchDispatchMode

from tests.matrix.pairs import PAIRS, Pair
from tests.matrix.runs import make_data, make_model
from tests.tools import quiet_trainer

WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal"}


class CountWaits(TorchDispatchMode):
    """Counts the operations that wait, by the line of this project or of a library that asked."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._schema.name.split("::")[-1] in WAITS:
            stack = traceback.extract_stack()
            frames = [frame for frame in stack if "/torch/" not in frame.filename and frame.filename != __file__]
            # torch's optimizers count their steps on the CPU, whatever the device.
            if not any("/torch/optim/" in frame.filename for frame in stack):
                self.places[f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].line}"] += 1
        return function(*args, **(kwargs or {}))


class OneStep(pl.Callback):
    """Counts during the third batch: forward, backward, optimizer and logging."""

    def __init__(self) -> None:
        self.mode = CountWaits()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        if index == 2:
            self.mode.__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if args[-1] == 2:
            self.mode.__exit__(None, None, None)


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.trainable and pair.batches > 2], ids=lambda p: p.name)
def test_no_step_waits(pair: Pair, tmp_path: Path):
    data = make_data(pair)
    counter = OneStep()
    trainer = quiet_trainer(counter, max_epochs=1, limit_train_batches=4, limit_val_batches=0)
    trainer.fit(make_model(pair, data, tmp_path), data)
    assert not counter.mode.places
