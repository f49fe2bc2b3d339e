"""The commands as users type them: what they leave, and what they say to mistakes."""

import ast
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import callbacks
import datamodules
import lightning_modules
from experiment.resuming.restoring import load_checkpoint
from tests.conftest import ROOT, TINY, script

# ---------------------------------------------------------------------------------------------------- the run folder


def test_run_folder_is_as_contracted(trained_run: Path):
    names = {str(path.relative_to(trained_run)) for path in trained_run.rglob("*") if path.is_file()}
    assert names == {
        ".lock",
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    summary = json.loads((trained_run / "summary.json").read_text())
    assert set(summary) == {"metrics", "config", "versions", "seconds", "data"}
    assert "test/knn_accuracy" in summary["metrics"]
    assert summary["config"] == yaml.safe_load((trained_run / "config.yaml").read_text())
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["data"]["train_images"] == 108


def test_config_of_a_run_reruns_it_to_the_same_metrics(trained_run: Path, tmp_path: Path):
    said = script("train", "-c", trained_run / "config.yaml", "--run_dir", tmp_path / "again", cwd=tmp_path).stdout
    best, last = (
        torch.load(trained_run / f"checkpoints/{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    )
    assert f"test of best.ckpt, step {best} of {last}\n" in said
    again, before = (
        json.loads((folder / "summary.json").read_text())["metrics"] for folder in (tmp_path / "again", trained_run)
    )
    assert again == before
    assert (tmp_path / "again/metrics.csv").read_bytes() == (trained_run / "metrics.csv").read_bytes()


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_load_without_trainer_or_data(trained_run: Path, name: str):
    from lightning_modules import DeepInfoMax

    path = trained_run / "checkpoints" / f"{name}.ckpt"
    module = DeepInfoMax.load_from_checkpoint(path, weights_only=True)
    stored = torch.load(path, weights_only=True)
    assert all(torch.equal(value, stored["state_dict"][key]) for key, value in module.state_dict().items())
    assert stored["experiment"]["config"]["model"]["class_path"].endswith("DeepInfoMax")


def test_best_checkpoint_is_that_of_the_best_validation(trained_run: Path):
    import csv

    with open(trained_run / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/loss")]
    best = min(rows, key=lambda row: float(row["val/loss"]))
    stored = torch.load(trained_run / "checkpoints/best.ckpt", weights_only=True)
    assert stored["epoch"] == int(best["epoch"])


def test_where_the_default_job_was_taken_out_the_first_configuration_is_taken(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("experiment.train.DEFAULT_CONFIG", tmp_path / "configs/infomax_sample.yaml")
    status, _, err = call("train")
    assert (status, err) == (2, f"error: no configuration in {tmp_path / 'configs'}: name one with -c FILE\n")
    (tmp_path / "configs").mkdir()
    painter = {"class_path": "tests.experiment.colours.LinkedPainter"}
    data = {"class_path": "tests.experiment.colours.ColourData"}
    trainer = {"max_epochs": 1, "accelerator": "cpu"}
    for name, model in (("later", "no such model"), ("first", painter)):
        config = {"trainer": trainer, "model": model, "data": data}
        (tmp_path / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(config))
    status, out, err = call("train")
    assert status == 0, err
    assert out.startswith(f"no infomax_sample.yaml in {tmp_path / 'configs'}: taking first.yaml\n")
    assert len(list((tmp_path / "runs/first").glob("*/summary.json"))) == 1
    status, out, _ = call("train", "--print_config")
    assert yaml.safe_load(out)["model"]["class_path"] == painter["class_path"]


def test_experiment_names_no_technique_and_opens_private_doors_in_one_file_only():
    """Techniques and tricks can be deleted: only what they share is imported by name."""
    shared = {"callbacks.update_chain", "layers.processes"}
    shared |= {f"lightning_modules.{name}" for name in ("trained_models", "hyperparameters", "optimization")}
    for path in (ROOT / "experiment").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                of_ours = node.module.split(".")[0] in ("callbacks", "datamodules", "lightning_modules", "layers")
                assert not of_ours or ".".join(node.module.split(".")[:2]) in shared, path
            if path.name == "private_api.py":
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.append(node.module or "")
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "super()"):
                names.append(node.attr)
            private = [name for name in names if re.search(r"(^|\.)_(?!_)", name)]
            assert not private, f"{path}:{node.lineno}"


# -------------------------------------------------------------------------------------------- evaluate and predict


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evaluate_gives_the_metrics_of_the_run_and_leaves_it_alone(trained_run: Path, call, tmp_path: Path):
    before = snapshot(trained_run)
    status, out, err = call("evaluate", trained_run, "--json", "m.json")
    assert status == 0, err
    summary = json.loads((trained_run / "summary.json").read_text())
    assert json.loads((tmp_path / "m.json").read_text()) == {"metrics": summary["metrics"]}
    assert "knn accuracy" in out
    assert snapshot(trained_run) == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_evaluate_takes_other_data(trained_run: Path, call, tmp_path: Path):
    (tmp_path / "link.json").symlink_to("m.json")
    status, _, err = call("evaluate", trained_run / "checkpoints/last.ckpt", "--data.seed=5", "--json=link.json")
    assert status == 0, err
    other = json.loads((tmp_path / "m.json").read_text())["metrics"]
    before = json.loads((trained_run / "summary.json").read_text())["metrics"]
    assert other.keys() == before.keys()
    assert other != before


@pytest.mark.parametrize("command", ["train --resume", "evaluate"])
def test_a_model_that_the_weights_do_not_fit_is_refused_by_its_option(command: str, trained_run: Path, call):
    name, *resume = command.split()
    shutil.copytree(trained_run, "copy")
    status, _, err = call(name, *resume, "copy", "--model.encoder.code_size=7", "--model.lr=0.1")
    assert status == 2
    line = err.splitlines()[-1]
    assert "error: --model.encoder.code_size, --model.lr: the weights of copy/checkpoints/" in line
    assert "--init_from copy/checkpoints/" in line
    assert "size mismatch for encoder" in line
    assert "damaged" not in line


def test_predict_writes_features_of_a_folder(trained_run: Path, call, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (80 * number, 10, 10)).save(tmp_path / "photos" / f"{number}.png")
    arguments = ("--input", "photos", "--output", "f.npz", "--query", "photos/1.png", "--num_neighbors=2")
    status, out, err = call("predict", trained_run, *arguments)
    assert status == 0, err
    assert "3 images" in out
    assert "1.png" in out
    arrays = np.load(tmp_path / "f.npz")
    assert arrays["names"].tolist() == ["0.png", "1.png", "2.png"]
    assert arrays["features"].shape == (3, 64)
    assert arrays["neighbor_names"].shape == (1, 2)


def test_predict_help_lists_the_options_of_the_model(trained_run: Path, call):
    status, out, _ = call("predict", trained_run, "--help")
    assert status == 0
    for option in ("--input", "--output", "--layer", "--query", "--num_neighbors"):
        assert option in out
    assert "whose nearest neighbours" in " ".join(out.split())


# ----------------------------------------------------------------------------------------------------------- mistakes


def corrupt_checkpoint(folder: Path) -> str:
    (folder / "bad.ckpt").write_bytes(b"PK\x03\x04 not really")
    return "bad.ckpt"


def foreign_checkpoint(folder: Path) -> str:
    torch.save({"state_dict": {}, "epoch": 3}, folder / "foreign.ckpt")
    return "foreign.ckpt"


def code_in_checkpoint(folder: Path) -> str:
    torch.save({"state_dict": {}, "experiment": Path("x")}, folder / "code.ckpt")
    return "code.ckpt"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--modl.lr=1"], ["unknown option --modl.lr", "did you mean '--model.lr'?"]),
        (["--trainer.max_epoch=1"], ["--trainer.max_epoch", "did you mean '--trainer.max_epochs'?"]),
        (["--model.lrr=1"], ["model: DeepInfoMax has no argument 'lrr'", "did you mean 'lr'?"]),
        (["--model.encoder.chanels=1"], ["BlogEncoder has no argument 'chanels'", "did you mean 'channels'?"]),
        (["--model.lr=fast"], ["model.lr", "float", "fast"]),
        (["--trainer.max_epochs=many"], ["trainer.max_epochs", "int", "many"]),
        (["--model=DeepInfomin"], ["model: no class 'DeepInfomin'", "did you mean 'DeepInfoMax'?"]),
        (["--model.encoder=BlogEncodr"], ["model.encoder: no class 'BlogEncodr'", "did you mean 'BlogEncoder'?"]),
        (["--model.estimator=InfoNC"], ["model.estimator: no class 'InfoNC'", "did you mean 'InfoNCE'?"]),
        (["--model.optimizer=Adamm"], ["model.optimizer: no class 'Adamm'", "did you mean 'Adam'?"]),
        (["--data=ImagesModule"], ["data: no class 'ImagesModule'", "did you mean 'ImageDataModule'?"]),
        (["--trainer.callbacks+=CodeMop"], ["trainer.callbacks: no class 'CodeMop'", "did you mean 'CodeMap'?"]),
        (["-c", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--data.source=nowhere"], ["nowhere", "data.source"]),
        (["--data.batch_size=0"], ["batch_size (0)"]),
        (["--data.batch_size=5000"], ["batch_size"]),
        (["--resume", "nowhere"], ["--resume", "nowhere"]),
        (["--model.encoder=DIMEncoder"], ["GaussianPrior needs a stochastic encoder"]),
        (["--model.image_size=64"], ["model.image_size comes from the data", "data.image_size"]),
        (["--model.encoder.image_size=64"], ["'image_size' is set by the module"]),
        (["-c"], ["-c needs a configuration file"]),
        (["-c", "."], [". is a folder"]),
        (
            ["--trainer.accelerator=gpu"],
            ["trainer.accelerator=gpu: no GPU is found here", "--trainer.accelerator=auto"],
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_mistakes_get_one_line_and_exit_status_2(arguments, parts, call, tmp_path: Path):
    if "--trainer.accelerator=gpu" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    status, _, err = call("train", *TINY, *arguments)
    assert status == 2
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
    assert not list(tmp_path.rglob("config.yaml")), "a run that never began leaves no folder"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("modle: {class_path: DeepInfoMax}", ["modle", "did you mean 'model'?"]),
        ("model: {class_path: DeepInfoMax, init_args: {lrr: 1}}", ["'lrr'", "did you mean 'lr'?"]),
        ("trainer: {max_epoch: 1}", ["max_epoch", "did you mean 'trainer.max_epochs'?"]),
        ("trainer: [1", ["x.yaml:1: not YAML"]),
        ("", ["x.yaml: no settings"]),
        ("[1, 2]", ["x.yaml: no settings"]),
        (
            "model: {class_path: lightning_modules.DeepInfoMix}",
            ["no class 'DeepInfoMix'", "did you mean 'DeepInfoMax'?"],
        ),
        ("trainer: {max_epochs: many}", ["trainer.max_epochs", "many"]),
    ],
)
def test_mistakes_in_a_file(text: str, parts: list[str], call, tmp_path: Path):
    (tmp_path / "x.yaml").write_text(text)
    status, _, err = call("train", "-c", ROOT / "configs/infomax_sample.yaml", "-c", "x.yaml", *TINY)
    assert status == 2
    assert len(err.strip().splitlines()) == 1, err
    for part in parts:
        assert part in err


@pytest.mark.parametrize("make", [corrupt_checkpoint, foreign_checkpoint, code_in_checkpoint])
@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_bad_checkpoints(make, command: str, call, tmp_path: Path):
    name = make(tmp_path)
    arguments = {"train": ["--resume", name], "evaluate": [name], "predict": [name, "--input", ".", "--output", "x"]}
    status, _, err = call(command, *arguments[command])
    assert status == 2
    assert len(err.strip().splitlines()) == 1, err
    assert name in err
    assert "checkpoint" in err


def test_a_truncated_checkpoint_is_named(trained_run: Path, call, tmp_path: Path):
    data = (trained_run / "checkpoints/last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(data[: len(data) // 2])
    status, _, err = call("train", "--resume", "cut.ckpt")
    assert status == 2
    assert "corrupt checkpoint" in err
    assert "cut.ckpt" in err


def test_a_run_folder_is_not_overwritten(trained_run: Path, call):
    before = snapshot(trained_run)
    status, _, err = call("train", "--run_dir", trained_run, *TINY)
    assert status == 2
    assert "holds a run already" in err
    assert "--resume" in err
    assert snapshot(trained_run) == before


def test_a_folder_that_is_no_run_loses_nothing(call, tmp_path: Path):
    folder = tmp_path / "mine"
    (folder / "wandb").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    failing = ["train", "--run_dir", "mine", *TINY, "--trainer.strategy=nope"]
    for there in ("wandb", "metrics.csv", "checkpoints/best.ckpt"):
        (folder / there).parent.mkdir(exist_ok=True)
        if "." in there:
            (folder / there).write_text("mine")
        before = snapshot(folder)
        status, _, err = call(*failing)
        assert (status, err.count("\n")) == (2, 1)
        assert f"--run_dir: mine is no run folder and has {there.split('/')[0]}" in err
        assert snapshot(folder) == before
        shutil.rmtree(folder / there.split("/")[0], ignore_errors=True)
        (folder / there).unlink(missing_ok=True)
    # With other files beside it a run is welcome; where it fails before its first step, they stay as they were.
    before = snapshot(folder)
    assert "strategy" in call(*failing)[2]
    assert snapshot(folder) == before
    (tmp_path / "empty").mkdir()
    assert "strategy" in call(*(argument.replace("mine", "empty") for argument in failing))[2]
    (tmp_path / "lightning_logs").mkdir()
    (tmp_path / "lightning_logs" / "config.yaml").write_text("# pytorch_lightning==2.6.6\nseed_everything: 1\n")
    before = snapshot(tmp_path)
    assert "is a run of plain Lightning" in call("train", "--resume", "lightning_logs")[2]
    assert snapshot(tmp_path) == before


def test_corrupt_image_file_is_named(call, tmp_path: Path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32)).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG nothing")
    status, _, err = call("train", *TINY, "--data.source=images", "--data.batch_size=2")
    assert status == 2
    assert len(err.strip().splitlines()) == 1, err
    assert "broken.png" in err


def test_hub_that_cannot_be_reached_is_said_with_the_way_out(call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = script("train", *TINY, "--data.source=hub", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "--data.source" in result.stderr


def test_evaluate_and_predict_name_what_is_missing(call, tmp_path: Path, trained_run: Path):
    assert "no such run folder or checkpoint: nowhere" in call("evaluate", "nowhere")[2]
    assert "no checkpoint in" in call("evaluate", tmp_path)[2]
    assert "--json needs a value" in call("evaluate", trained_run, "--json")[2]
    assert "no such file or folder: nowhere" in call("predict", trained_run, "--input", "nowhere", "--output", "x")[2]
    assert "input" in call("predict", trained_run)[2]
    assert "no such configuration file" in call("predict", "x.yaml", "--input", ".", "--output", "x")[2]
    untrained = call("predict", ROOT / "configs/infomax_sample.yaml", "--input", ".", "--output", "x")
    assert "has to be trained first" in untrained[2]
    assert "takes no --resume" in call("evaluate", trained_run, "--resume", "auto")[2]
    assert "--json: no such folder" in call("evaluate", trained_run, "--json", "nowhere/x.json")[2]
    assert "name a run folder or a checkpoint first" in call("evaluate", "--json", "x.json")[2]


# ------------------------------------------------------------------------------------------------------------- help


def test_help_is_short_and_says_where_the_rest_is():
    result = script("train", "--help", cwd=ROOT)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("usage: train.py [-c CONFIG]")
    assert len(lines) < 150
    for text in ("--run_dir", "--resume", "--model.help", "--trainer.help", "infomax_sample"):
        assert text in result.stdout
    assert "--trainer.detect_anomaly" not in result.stdout
    offered = {line.split()[0] for line in lines if line.startswith("  ") and line[2].isupper()}
    assert {"DeepInfoMax", "ImageDataModule", "WeightDecay", "Lookahead", "CodeMap"} <= offered
    exported = set(dir(callbacks)) | set(dir(datamodules)) | set(dir(lightning_modules))
    assert offered <= exported, "bases like UpdateRule can't be used"


def test_trainer_help_shows_all():
    assert "--trainer.detect_anomaly" in script("train", "--trainer.help", cwd=ROOT).stdout


def test_class_help_lists_what_fits_a_slot():
    out = script("train", "--model.help=DeepInfoMax", cwd=ROOT).stdout
    assert "BlogEncoder" in out
    assert "DIMEncoder" in out
    assert "torch.nn.modules" not in out


@pytest.mark.parametrize("name", ["evaluate", "predict", "benchmark"])
def test_other_scripts_have_help(name: str):
    assert script(name, "--help", cwd=ROOT).stdout.startswith("usage: ")


def test_checkpoint_of_a_run_resumes_elsewhere(trained_run: Path, call, tmp_path: Path):
    """A checkpoint that was carried away from its run has all that is needed."""
    (tmp_path / "moved.ckpt").write_bytes((trained_run / "checkpoints/last.ckpt").read_bytes())
    status, _, err = call("train", "--resume", "moved.ckpt", "--run_dir", "on", "--trainer.max_epochs=3")
    assert status == 0, err
    assert load_checkpoint(tmp_path / "on/checkpoints/last.ckpt")["epoch"] == 2


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_of_another_launcher_need_a_named_folder(rank: str, tmp_path: Path):
    result = script("train", *TINY, cwd=tmp_path, check=False, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2")
    assert result.returncode == 2
    assert "need --run_dir" in result.stderr
    assert not list(tmp_path.iterdir())
