"""Weights & Biases without network: offline without a key, the same run after a resume."""

import base64
import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import ROOT, TINY, config, script, script_environment

pytest.importorskip("wandb")
NO_KEY = {"WANDB_API_KEY": "", "NETRC": "/nonexistent", "WANDB_MODE": ""}
SWEEPS = sorted((ROOT / "configs/sweeps").glob("*.yaml"))
FILES = ["-c", ROOT / "configs/infomax_sample.yaml", "-c", ROOT / "configs/with/wandb.yaml"]


def run_ids(run: Path) -> list[str]:
    return [folder.name.rsplit("-", 1)[1] for folder in sorted((run / "wandb").glob("offline-run-*"))]


def records(folder: Path) -> Iterator[Any]:
    """What an offline run wrote for W&B: LevelDB's log format, blocks of 32 KiB with records that may be cut."""
    protocol = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    (file,) = folder.glob("*.wandb")
    content, position, parts = file.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if (left := -position % 32768) in range(1, 7):  # no room for a header
            position += left
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield protocol.Record.FromString(parts)
            parts = b""


def models(folder: Path) -> list[tuple[str, set[str]]]:
    """Of each artifact in an offline run: the MD5 sum of its only file, and its aliases."""
    artifacts = [record.artifact for record in records(folder) if record.HasField("artifact")]
    assert {artifact.type for artifact in artifacts} <= {"model"}
    assert all([file.path for file in artifact.manifest.contents] == ["model.ckpt"] for artifact in artifacts)
    return [(artifact.manifest.contents[0].digest, set(artifact.aliases)) for artifact in artifacts]


def md5(path: Path) -> str:
    return base64.b64encode(hashlib.md5(path.read_bytes()).digest()).decode()


def test_checkpoints_become_artifacts_also_offline_and_after_a_resume(tmp_path: Path):
    run, data = tmp_path / "run", tmp_path / "data"
    best, last = run / "checkpoints/best.ckpt", run / "checkpoints/last.ckpt"
    environment = {**NO_KEY, "WANDB_DATA_DIR": str(data)}
    names = {"name": "the_name", "group": "the_group", "notes": "some notes", "tags": "[one,two]"}
    options = [f"--trainer.logger.{name}={value}" for name, value in {**names, "log_model": "true"}.items()]
    script("train", *FILES, *TINY, *options, "--run_dir", run, cwd=tmp_path, **environment)
    (first,) = (run / "wandb").glob("offline-run-*")
    assert models(first) == [(md5(best), {"latest", "best"}), (md5(last), {"latest"})], "once, after training"
    (described,) = (record.run for record in records(first) if record.HasField("run"))
    assert (described.display_name, described.run_group) == (names["name"], names["group"])
    assert (described.notes, set(described.tags)) == (names["notes"], {"one", "two"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "run"]

    options = ["--trainer.max_epochs=4", "--trainer.logger.log_model=all"]
    script("train", "--resume", run, *options, cwd=tmp_path, **environment)
    second = max(set((run / "wandb").glob("offline-run-*")) - {first})
    logged = models(second)
    assert run_ids(run)[0] == run_ids(run)[1]
    assert len({digest for digest, _ in logged}) == len(logged) >= 2, "each that was written"
    assert logged[-1] == (md5(last), {"latest"})
    assert [digest for digest, aliases in logged if "best" in aliases][-1:] in ([md5(best)], [])
    assert md5(best) in {digest for digest, aliases in models(first) + logged if "best" in aliases}


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
    files = ["-c", config("on_lstm_sample"), "-c", ROOT / "configs/with/wandb.yaml"]
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


def test_pictures_and_tables_are_read_back_from_the_offline_run(tmp_path: Path):
    run = tmp_path / "run"
    files = ["-c", config("infomap_karate"), "-c", ROOT / "configs/with/wandb.yaml"]
    table = "--trainer.callbacks+=LargestModules"
    script("train", *files, table, "--trainer.max_epochs=1", "--run_dir", run, cwd=tmp_path, **NO_KEY)
    (media,) = (run / "wandb").glob("offline-run-*/files/media")

    (written,) = (media / "table").glob("largest_modules_*.table.json")
    logged = json.loads(written.read_text())
    lines = (run / "largest_modules.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert logged["columns"] == cells[0]
    assert [[str(cell) for cell in row] for row in logged["data"]] == cells[2:]
    assert sum(row[1] for row in logged["data"]) == 34

    pictures = sorted((run / "pictures").glob("*.png"))
    assert {"communities", "largest_modules"} <= {picture.stem for picture in pictures}
    for picture in pictures:
        (sent,) = (media / "images").glob(f"{picture.stem}_*.png")
        assert np.array_equal(np.asarray(Image.open(sent)), np.asarray(Image.open(picture))), picture.stem


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_command_that_a_sweeps_agent_starts_trains(path: Path, tmp_path: Path):
    """W&B's agent asks the server for settings; its own functions make the command of them, which is started here."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    sweep = yaml.safe_load(path.read_text())
    chosen = {name: {"value": spec["values"][-1]} for name, spec in sweep["parameters"].items()}
    parts = utils.create_sweep_command_args({"args": chosen})
    parts |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    command = []
    for part in utils.create_sweep_command(sweep["command"]):
        macro = part.startswith("${") and part.endswith("}")
        command += parts[part[2:-1]] if macro else [part]
    run = tmp_path / "run"
    path_of_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    agent = {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "member1", "PATH": path_of_python}
    result = subprocess.run(
        [*command, *TINY, "--trainer.max_epochs=1", f"--run_dir={run}"],
        cwd=ROOT,
        env=script_environment(**NO_KEY, **agent),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert run_ids(run) == ["member1"], "the agent's run, not one of its own"
    model = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert model["lr"] == chosen["model.lr"]["value"]
    assert model["estimator"]["class_path"].endswith(f".{chosen['model.estimator']['value']}")
    (record,) = (run / "wandb").glob("offline-run-*/*.wandb")
    assert sweep["metric"]["name"].startswith("val/"), "what is chosen on the test's data is no result"
    assert sweep["metric"]["name"].encode() in record.read_bytes()
