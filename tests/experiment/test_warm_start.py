"""``--init_from``: a new run from the weights of another."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiment.cli import ExperimentCLI
from experiment.errors import UserError, describe
from experiment.resuming.warm_start import warm_start
from layers.weights.normalization import normalize_weights
from tests.experiment.line import START, Line, LineData, Loop
from tests.experiment.line_runs import QUIET, in_a_folder_of_its_own
from tests.tools import quiet_trainer
from tests.training import Killed, killed_after, train

SOURCE = torch.tensor([[0.7, 0.1]], dtype=torch.float64)


_in_a_folder_of_its_own = pytest.fixture(autouse=True)(in_a_folder_of_its_own)


def run(folder: str, *options: str, epochs: int = 1) -> Any:
    return train("-c", "line.yaml", *QUIET, f"--run_dir={folder}", f"--trainer.max_epochs={epochs}", *options)


def weights_in(folder: str, name: str = "last") -> torch.Tensor:
    return torch.load(f"{folder}/checkpoints/{name}.ckpt", weights_only=True)["state_dict"]["layer.weight"]


def write(weights: dict[str, torch.Tensor], name: str = "weights.pt") -> str:
    torch.save(weights, name)
    return name


def one_epoch_from(start: torch.Tensor) -> torch.Tensor:
    """The weights after an epoch in plain torch, with a new optimizer."""
    loop = Loop(torch.optim.Adam, lr=0.1)
    loop.weight.data.copy_(start)
    loop.epoch()
    return loop.weight.detach()


ADAM = "--model.optimizer=Adam"


def test_all_but_the_weights_starts_fresh(capsys: pytest.CaptureFixture[str]):
    average = ["--trainer.callbacks+=AveragedWeights", "--trainer.callbacks.decay=0.9"]
    run("first", ADAM, *average, epochs=3)
    start = weights_in("first", "best")
    run("second", ADAM, "--init_from=first")
    torch.testing.assert_close(weights_in("second"), one_epoch_from(start), rtol=1e-12, atol=0)
    assert "weights of first/checkpoints/best.ckpt: 1 of 1 tensors" in capsys.readouterr().out
    state = torch.load("second/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    rows = Path("second/metrics.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["3", "0"], ["4", "1"]]


def test_the_configuration_keeps_it_and_reruns_the_run():
    run("first")
    run("second", ADAM, "--init_from=first")
    config = yaml.safe_load(Path("second/config.yaml").read_text())
    assert config["init_from"] == "first"
    assert json.loads(Path("second/summary.json").read_text())["config"]["init_from"] == "first"
    assert "init_from" not in yaml.safe_load(Path("first/config.yaml").read_text())
    train("-c", "second/config.yaml", "--run_dir=third")
    assert torch.equal(weights_in("second"), weights_in("third"))
    # A resumed run keeps its own weights; those it started from may be gone.
    Path("first/checkpoints/best.ckpt").unlink()
    Path("first/checkpoints/last.ckpt").unlink()
    train("--resume", "second", "--trainer.max_epochs=2")


@pytest.mark.parametrize("kind", ["state_dict", "plain Lightning", "weights only"])
def test_checkpoints_of_other_kinds(kind: str):
    if kind == "state_dict":
        path = write({"layer.weight": SOURCE})
    else:
        trainer, model = quiet_trainer(max_epochs=1), Line(lr=0.0)
        model.layer.weight.data.copy_(SOURCE)
        trainer.fit(model, LineData())
        path = "plain.ckpt"
        trainer.save_checkpoint(path, weights_only=kind == "weights only")
    run("second", ADAM, f"--init_from={path}")
    torch.testing.assert_close(weights_in("second"), one_epoch_from(SOURCE), rtol=1e-12, atol=0)


def test_what_does_not_fit_is_named_and_refused():
    other = {"layer.weight": torch.ones(3, 2), "layer.bias": torch.ones(1), "old.weight": torch.ones(1)}
    with pytest.raises(UserError) as caught:
        run("second", f"--init_from={write(other)}", "--model.with_bias=true")
    line = str(caught.value)
    assert "\n" not in line
    assert "of another shape here: layer.weight 1x2, there 3x2" in line
    assert "only there: old.weight" in line
    assert "layer.bias" not in line
    assert "--init_from_partly" in line
    with pytest.raises(UserError, match=r"not there: layer\.bias \("):
        run("second", f"--init_from={write({'layer.weight': SOURCE})}", "--model.with_bias=true")
    with pytest.raises(UserError, match="nothing of it fits Line"):
        run("second", f"--init_from={write(other)}", "--init_from_partly")
    assert not Path("second").exists()


def test_another_number_of_classes_starts_fresh_by_name(capsys: pytest.CaptureFixture[str]):
    source = {"layer.weight": torch.ones(3, 2), "layer.bias": torch.tensor([5.0]), "old.weight": torch.ones(1)}
    run("second", f"--init_from={write(source)}", "--init_from_partly", "--model.with_bias=true", "--model.lr=0")
    said = capsys.readouterr().out
    assert "--init_from: layer.weight 1x2, there 3x2 starts fresh (of another shape)" in said
    assert "--init_from: not used: old.weight" in said
    assert "weights of weights.pt: 1 of 2 tensors" in said
    state = torch.load("second/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["layer.weight"], START)
    assert state["layer.bias"].tolist() == [5.0]
    assert yaml.safe_load(Path("second/config.yaml").read_text())["init_from_partly"] is True


def test_many_that_do_not_fit_make_one_line_that_ends_with_the_way_out():
    source = {f"a.rather.long.name.of.block.{number}.weight": torch.ones(1) for number in range(500)}
    with pytest.raises(UserError) as caught:
        warm_start(Line(), write({**source, "layer.weight": SOURCE}))
    line = describe(caught.value)
    assert line.endswith("(--init_from_partly: these start fresh, the rest is taken)")
    assert "block.0.weight" in line
    assert "more" in line


def test_plain_weights_fit_normalised_ones():
    model = Line()
    normalize_weights(model, {"layer": "weight_norm"})
    warm_start(model, write({"layer.weight": SOURCE}))
    torch.testing.assert_close(model.layer.weight.detach(), SOURCE)


def test_other_data_of_the_same_size_is_mentioned(capsys: pytest.CaptureFixture[str]):
    class Reader(Line):
        data_links = ("words",)

    model = Reader()
    model.hparams["words"] = ["a", "b"]
    for words, said in ((("a", "c"), True), (("a", "b"), False)):
        torch.save({"state_dict": model.state_dict(), "hyper_parameters": {"words": words}}, "source.ckpt")
        warm_start(model, "source.ckpt")
        assert ("the data's words is another one of the same size" in capsys.readouterr().out) == said


def test_beside_resume():
    run("first")
    run("second", "--init_from=first")
    with pytest.raises(UserError, match="--init_from starts a new run and --resume continues one"):
        train("--resume", "second", "--init_from=first")
    with pytest.raises(UserError, match="--init_from_partly: name the run"):
        run("third", "--init_from_partly")


def test_a_run_that_auto_finds_wins(capsys: pytest.CaptureFixture[str]):
    run("first")
    options = [ADAM, "--init_from=first", "--resume=auto"]
    with killed_after(2), pytest.raises(Killed):
        run("second", *options)
    assert "weights of first/checkpoints/best.ckpt" in capsys.readouterr().out
    run("second", *options)
    said = capsys.readouterr().out
    assert "resuming second" in said
    assert "weights of" not in said
    torch.testing.assert_close(weights_in("second"), one_epoch_from(weights_in("first", "best")), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere", "--init_from: no such run folder or checkpoint: nowhere"),
        ("line.yaml", "--init_from: line.yaml is no checkpoint: name a run folder"),
        (".", "--init_from: no checkpoint in ."),
        ("numbers.pt", "--init_from: numbers.pt holds no weights"),
    ],
)
def test_what_is_no_checkpoint(target: str, said: str):
    torch.save({"a": 1}, "numbers.pt")
    with pytest.raises(UserError) as caught:
        run("second", f"--init_from={target}")
    assert str(caught.value).startswith(said)
    assert not Path("second").exists()


def test_help_and_print_config_tell_of_it(capsys: pytest.CaptureFixture[str]):
    for option in ("--help", "--print_config"):
        with pytest.raises(SystemExit):
            ExperimentCLI(["-c", "line.yaml", *QUIET, option])
        said = capsys.readouterr().out
        assert "init_from" in said
        assert "init_from_partly" in said
        assert "Start a new run from the weights" in said
