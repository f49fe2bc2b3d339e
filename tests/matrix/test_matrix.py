"""Every pair of module and datamodule, under every condition possible in one process."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

import datamodules
import lightning_modules
from experiment.errors import run_main
from experiment.evaluate import evaluate
from experiment.predict import predict
from tests.matrix.pairs import PAIRS, Pair
from tests.matrix.runs import assert_same_run, make_data, make_model, rows_of, write_config, write_input
from tests.tools import Batches, quiet_trainer
from tests.training import Killed, killed_after, train, unseeded


@dataclass
class Run:
    """A finished run of a pair; the model has the weights of the best checkpoint."""

    config: Path
    folder: Path
    model: pl.LightningModule
    data: pl.LightningDataModule


# With module scope pytest takes one pair after another, so that each run is made once.


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: pair.name)
def pair(request: pytest.FixtureRequest) -> Pair:
    return request.param


@pytest.fixture(scope="module")
def trainable(pair: Pair) -> Pair:
    if not pair.trainable:
        pytest.skip("a search has no gradients")
    return pair


@pytest.fixture(scope="module")
def run(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The uninterrupted run of a pair."""
    folder = tmp_path_factory.mktemp(pair.name)
    config = write_config(pair, folder)
    cli = train("-c", config, "--run_dir", folder / "run")
    return Run(config, folder / "run", cli.model, cli.datamodule)


def test_every_module_and_every_datamodule_is_in_the_table():
    for package, kind, used in (
        (lightning_modules, pl.LightningModule, {pair.model[0] for pair in PAIRS}),
        (datamodules, pl.LightningDataModule, {pair.data[0] for pair in PAIRS}),
    ):
        exported = {
            name for name, value in vars(package).items() if isinstance(value, type) and issubclass(value, kind)
        }
        assert used == exported


def test_a_run_trains_validates_and_tests(pair: Pair, run: Run):
    rows = rows_of(run.folder)
    losses = [float(row["train/loss"]) for row in rows if row.get("train/loss")]
    # With windows of two batches there is a step every other batch, and at the end of each epoch.
    assert len(losses) == pair.epochs * (-(-pair.batches // 2) if pair.trainable else pair.batches)
    assert torch.tensor(losses).isfinite().all()
    assert sum(any(value for name, value in row.items() if name.startswith("val/")) for row in rows) == pair.epochs
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["metrics"]
    assert all(name.startswith("test/") for name in summary["metrics"])
    assert (run.folder / "checkpoints/best.ckpt").is_file()


def test_killed_inside_an_epoch_and_resumed_is_bit_identical(pair: Pair, run: Run, tmp_path: Path):
    broken = tmp_path / "run"
    with killed_after(pair.killed_after), pytest.raises(Killed):
        train("-c", run.config, "--run_dir", broken)
    so_far = rows_of(broken)
    assert so_far == rows_of(run.folder)[: len(so_far)], "the same seed gives the same numbers"
    train("--resume", broken)
    assert_same_run(broken, run.folder)


def test_another_seed_gives_other_losses(trainable: Pair, run: Run, tmp_path: Path):
    train("-c", run.config, "--run_dir", tmp_path / "run", "--seed_everything=2", "--trainer.max_steps=3")
    ours, others = (
        [row["train/loss"] for row in rows_of(folder) if row.get("train/loss")][:3]
        for folder in (run.folder, tmp_path / "run")
    )
    # Not every one: an output layer initialised to zero gives the same first losses for every seed.
    assert len(others) == 3
    assert others != ours


class Gradients(Callback):
    """Records the losses, and the parameters with a missing or bad gradient in the latest step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.requires_grad}
        self.missing = {name for name, g in gradients.items() if g is None or not g.isfinite().all() or not g.any()}

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def test_every_parameter_has_a_gradient_in_both_precisions(trainable: Pair, tmp_path: Path):
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        gradients = Gradients()
        trainer = quiet_trainer(gradients, precision=precision, max_epochs=-1, max_steps=2, limit_val_batches=0)
        data = make_data(trainable)
        trainer.fit(make_model(trainable, data, tmp_path), data)
        # In the second step: an output layer initialised to zero passes no gradient in the first.
        assert not gradients.missing, precision
        losses[precision] = gradients.losses
    # bfloat16 has eight bits of precision.
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], rel=0.03)


def test_one_batch_is_overfitted(trainable: Pair, tmp_path: Path):
    lr, steps, factor = trainable.overfits
    data, gradients = make_data(trainable), Gradients()
    model = make_model(trainable, data, tmp_path, **trainable.still)
    model.make_optimizer = lambda parameters, _: torch.optim.Adam(parameters, lr)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    data.train_dataloader = lambda: Batches([batch] * steps)
    quiet_trainer(gradients, limit_val_batches=0).fit(model, data)
    assert gradients.losses[-1] < factor * gradients.losses[0]


def test_the_checkpoint_alone_predicts_and_scores_as_the_model_did(
    pair: Pair, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture
):
    with unseeded():
        assert run_main(evaluate, [str(run.folder), "--json", str(tmp_path / "again.json")]) == 0
    again, before = (json.loads(file.read_text()) for file in (tmp_path / "again.json", run.folder / "summary.json"))
    assert again["metrics"] == before["metrics"]

    written, expected = (tmp_path / f"{name}{pair.predicts}" for name in ("written", "expected"))
    file = write_input(run.data, tmp_path)
    status = run_main(predict, [str(run.folder), "--input", str(file), "--output", str(written), *pair.options])
    captured = capfd.readouterr()
    if not pair.predicts.startswith("."):
        assert status == 2
        assert captured.err.strip() == f"error: {pair.predicts}"
        return
    assert status == 0, captured.err
    options = {name: int(value) for name, value in (option[2:].split("=") for option in pair.options)}
    run.model.predict_file(file, expected, **options)
    assert written.read_bytes() == expected.read_bytes()
