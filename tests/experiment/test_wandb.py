"""Weights & Biases without network: offline without a key, the same run after a resume."""

from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import ROOT, TINY, script

pytest.importorskip("wandb")
NO_KEY = {"WANDB_API_KEY": "", "NETRC": "/nonexistent", "WANDB_MODE": ""}
FILES = ["-c", ROOT / "configs/infomax_sample.yaml", "-c", ROOT / "configs/with/wandb.yaml"]


def run_ids(run: Path) -> list[str]:
    return [folder.name.rsplit("-", 1)[1] for folder in sorted((run / "wandb").glob("offline-run-*"))]


def test_without_a_key_the_run_is_offline_and_resumes_as_the_same_run(tmp_path: Path):
    run = tmp_path / "run"
    tiny = [*(argument for argument in TINY if "callbacks" not in argument), "--trainer.max_epochs=1"]
    result = script("train", *FILES, *tiny, "--run_dir", run, cwd=tmp_path, **NO_KEY)
    assert "no API key found, so this run is logged offline" in result.stdout
    (first,) = run_ids(run)
    script("train", "--resume", run, "--trainer.max_epochs=2", cwd=tmp_path, **NO_KEY)
    assert run_ids(run) == [first, first]
    assert (tmp_path / "run").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "the working folder stays clean"

    newest = sorted((run / "wandb").glob("offline-run-*"))[-1]
    (record,) = newest.glob("*.wandb")
    content = record.read_bytes()
    for name in ("train/loss", "val/knn_accuracy", "test/knn_accuracy"):
        assert name.encode() in content, f"metric {name}"
    for name in ("init_args", "sample_train_size", "BlogEncoder"):
        assert name.encode() in content, f"configuration {name}"
    pictures = {path.name.split("_0_")[0].rsplit("_", 2)[0] for path in (newest / "files/media/images").glob("*.png")}
    assert {"code_map", "nearest_neighbors", "mutual_information"} <= pictures, pictures


def test_the_configuration_of_a_run_does_not_continue_its_wandb_run(tmp_path: Path):
    script("train", *FILES, *TINY, "--trainer.max_epochs=1", "--run_dir", tmp_path / "run", cwd=tmp_path, **NO_KEY)
    logger = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["trainer"]["logger"]
    assert logger["init_args"]["id"] is None
    assert logger["init_args"]["offline"] is False


def test_the_vocabulary_stays_in_the_checkpoint(tmp_path: Path):
    run = tmp_path / "run"
    files = ["-c", ROOT / "configs/on_lstm_sample.yaml", "-c", ROOT / "configs/with/wandb.yaml"]
    tiny = ["--trainer.max_steps=2", "--trainer.callbacks=[]", "--model.embedding_size=20", "--model.hidden_size=20"]
    sizes = ["--data.sample_train_size=60", "--data.sample_test_size=20", "--data.batch_size=2"]
    script("train", *files, *tiny, *sizes, "--trainer.num_sanity_val_steps=0", "--run_dir", run, cwd=tmp_path, **NO_KEY)
    (record,) = (run / "wandb").glob("offline-run-*/*.wandb")
    content = record.read_bytes()
    assert b"test/perplexity" in content
    assert b"embedding_size" in content
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    vocabulary = checkpoint["hyper_parameters"]["vocabulary"]
    logged = [word for word in vocabulary if f'"{word}"'.encode() in content]
    assert len(vocabulary) > 50
    assert not logged
