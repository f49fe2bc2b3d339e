"""What the data gives to one module is a plain argument of another: only the chosen model's links count."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from experiment.errors import run_main
from experiment.evaluate import evaluate
from experiment.train import train

SHORT = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.num_sanity_val_steps=0"]


def arguments(model: str) -> list[str]:
    return [f"--model=tests.experiment.colours.{model}", "--data=tests.experiment.colours.ColourData", *SHORT]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.yaml").write_text("seed_everything: 1\n")
    (tmp_path / "linked.yaml").write_text("model: {class_path: tests.experiment.colours.LinkedPainter}\n")
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)


def run(folder: str, *given: str) -> tuple[dict, dict]:
    """The arguments of the model in the written configuration, and the summary."""
    assert run_main(train, ["--run_dir", folder, *given]) == 0
    config = yaml.safe_load(Path(folder, "config.yaml").read_text())
    return config["model"].get("init_args", {}), json.loads(Path(folder, "summary.json").read_text())


def test_an_argument_that_another_module_takes_from_its_data_is_kept_and_reruns():
    # The module of the file is replaced on the command line, and its link with it.
    kept, summary = run("plain", "-c", "linked.yaml", *arguments("PlainPainter"), "--model.num_colours=5")
    assert kept == {"num_colours": 5}
    assert summary["metrics"]["test/colours"] == 5
    assert run("again", "-c", "plain/config.yaml") == (kept, summary | {"seconds": pytest.approx(0, abs=600)})
    assert run_main(evaluate, ["plain", "--json", "metrics.json"]) == 0
    assert json.loads(Path("metrics.json").read_text())["metrics"] == summary["metrics"]
    assert torch.load("again/checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]["num_colours"] == 5


def test_a_linked_argument_is_the_datas_and_not_in_the_configuration():
    kept, summary = run("linked", "-c", "empty.yaml", *arguments("LinkedPainter"))
    assert kept == {}
    assert summary["metrics"]["test/colours"] == 7


def test_the_printed_configuration_has_it_too(capfd: pytest.CaptureFixture):
    given = ["-c", "empty.yaml", *arguments("PlainPainter"), "--model.num_colours=5", "--print_config"]
    assert run_main(train, given) == 0
    assert yaml.safe_load(capfd.readouterr().out)["model"]["init_args"] == {"num_colours": 5}


def test_it_is_required_where_it_is_not_linked(capfd: pytest.CaptureFixture):
    assert run_main(train, ["-c", "empty.yaml", *arguments("PlainPainter")]) == 2
    expected = "model: PlainPainter needs num_colours: set it in the configuration or with --model.num_colours="
    assert capfd.readouterr().err == f"error: {expected}\n"
