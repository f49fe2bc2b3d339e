"""What ``--help`` shows: plain texts, for all classes that a configuration can name."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl

import callbacks
import datamodules
import lightning_modules
from experiment.console import print_metrics
from experiment.parsing.parser import plain_help
from tests.conftest import config

# Sphinx roles, and what Python says of its own objects.
NOISE = re.compile(r":[a-z]+:`|``|<class|<function|\bobject at 0x|typing\.|NoneType|Namespace\(")


def names(package: object, base: type) -> list[str]:
    return [name for name, value in vars(package).items() if isinstance(value, type) and issubclass(value, base)]


HELP = [
    "--help",
    "--trainer.help",
    *(f"--model.help={name}" for name in names(lightning_modules, pl.LightningModule)),
    *(f"--data.help={name}" for name in names(datamodules, pl.LightningDataModule)),
    *(f"--trainer.callbacks.help={name}" for name in names(callbacks, pl.Callback)),
]


def test_all_classes_are_covered():
    assert {"--model.help=DeepInfoMax", "--data.help=ImageDataModule", "--trainer.callbacks.help=Lookahead"} < set(HELP)


@pytest.mark.parametrize("option", HELP)
def test_help_is_plain(option: str, call: Callable):
    status, out, err = call("train", option)
    assert (status, err) == (0, "")
    assert "usage: " in out
    assert not NOISE.search(" ".join(out.split())), NOISE.search(" ".join(out.split()))


def test_comments_of_a_printed_configuration_are_plain(call: Callable):
    _, out, _ = call("train", "--print_config=comments")
    comments = " ".join(line for line in out.splitlines() if line.lstrip().startswith("#"))
    assert "learning rate" in comments
    assert not NOISE.search(comments)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (":class:`~pytorch_lightning.Trainer` and :meth:`fit`", "Trainer and fit"),
        (":paramref:`~a.b.Trainer.max_epochs`", "max_epochs"),
        (":ref:`the page <page>`", "the page"),
        (":py:func:`f`", "f"),
        ("(type: <class 'Sequence'>, default: <class 'torch.optim.Adam'>)", "(type: Sequence, default: Adam)"),
        ("``val/loss``", "`val/loss`"),
        ("a time 1:2:`x`", "a time 1:2:`x`"),
    ],
)
def test_plain_help(text: str, plain: str):
    assert plain_help(text) == plain


def test_predict_lists_input_and_output_with_their_help(call: Callable, trained_run: Path):
    general = call("predict", "--help")[1]
    for target, words in ((trained_run, "images"), (config("infomap_karate"), "graph file")):
        status, out, err = call("predict", target, "--help")
        assert (status, err) == (0, "")
        assert out.startswith("usage: predict.py")
        assert words in " ".join(out.split())
        for option in ("--input", "--output"):
            assert re.search(rf"^ +{option} \S+\s+\S", out, re.MULTILINE)
            assert re.search(rf"^ +{option} FILE +\S", general, re.MULTILINE)


def test_evaluate_shows_its_options(call: Callable):
    assert "--json FILE" in call("evaluate", "--help")[1]


@pytest.mark.parametrize("columns", [1, 2])
def test_counts_are_whole_numbers_in_the_table(columns: int, capfd: pytest.CaptureFixture):
    metrics = {"test/num_modules": 3.0, "test/accuracy": 1.0, "test/num_links_per_node": 2.5}
    print_metrics({**metrics, **({"other/num_modules": 4.0} if columns == 2 else {})}, "title")
    out = capfd.readouterr().out
    for number in ("3", "1.0000", "2.5000", *(["4"] if columns == 2 else [])):
        assert re.search(rf"│ +{re.escape(number)} │", out), out
