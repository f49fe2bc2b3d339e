"""Loggers of Lightning beside that of the run folder: several at once, their folders, and packages that are missing."""

import csv
from pathlib import Path

import pytest
import yaml

from experiment import loggers
from experiment.errors import run_main
from experiment.train import train
from tests.conftest import ROOT, TINY

CONFIG = ["-c", str(ROOT / "configs/infomax_sample.yaml"), *TINY, "--trainer.max_epochs=1"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which a run sets, too
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def values(table: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in table if row.get(name)]


def test_csv_beside_ours_has_the_same_numbers(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"trainer": {"logger": [{"class_path": "CSVLogger"}]}}))
    given = ["--trainer.logger+=CSVLogger", "--trainer.logger.save_dir=elsewhere", "--trainer.logger.name=it"]
    assert run_main(train, [*CONFIG, "-c", "mine.yaml", *given, "--run_dir=run"]) == 0
    ours = rows(tmp_path / "run/metrics.csv")
    for folder in ("run/lightning_logs/version_0", "elsewhere/it/version_0"):
        theirs = rows(tmp_path / folder / "metrics.csv")
        for name in ("train/loss", "val/loss", "test/knn_accuracy"):
            assert values(theirs, name) == values(ours, name) != []
        config = yaml.safe_load((tmp_path / folder / "hparams.yaml").read_text())
        assert config["model"]["class_path"].endswith("DeepInfoMax")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "elsewhere", "mine.yaml"}


def test_tensorboard_in_the_run_folder(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run_main(train, [*CONFIG, "--trainer.logger=TensorBoardLogger", "--run_dir=run"]) == 0
    events = EventAccumulator(str(tmp_path / "run/lightning_logs/version_0"))
    events.Reload()
    found = [event.value for event in events.Scalars("train/loss")]
    assert found == pytest.approx(values(rows(tmp_path / "run/metrics.csv"), "train/loss"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_mlflow_in_the_run_folder(tmp_path: Path):
    pytest.importorskip("mlflow")
    given = ["--trainer.logger=MLFlowLogger", "--trainer.logger+=CSVLogger"]
    assert run_main(train, [*CONFIG, *given, "--run_dir=run"]) == 0
    (file,) = (tmp_path / "run/mlruns").glob("*/*/metrics/val/loss")
    assert float(file.read_text().split()[1]) == values(rows(tmp_path / "run/metrics.csv"), "val/loss")[0]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["TensorBoardLogger", "MLFlowLogger"])
def test_a_missing_package_is_named_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    _, way = loggers.PACKAGES[name]
    monkeypatch.setitem(loggers.PACKAGES, name, (("no_such_package",), way))
    assert run_main(train, [*CONFIG, f"--trainer.logger={name}", "--run_dir=run"]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"error: trainer.logger: {name} needs the package no_such_package: pip install ")
    assert "[loggers]" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
