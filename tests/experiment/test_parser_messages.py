"""Provokes each of jsonargparse's messages that ``private_api`` has a pattern of, and names one whose words differ."""

from importlib.metadata import version
from pathlib import Path

import pytest

from experiment import private_api
from experiment.cli import ExperimentCLI

COLOURS = "tests.experiment.colours"
DATA = f"--data={COLOURS}.ColourData"
MESSAGES = [name for name, value in vars(private_api).items() if name.isupper() and name not in ("RESTORING", "TRIED")]
PAINTER = f"--model={COLOURS}.LinkedPainter"
SLOT = f"--model={COLOURS}.SlotPainter"
CURVES = "--trainer.callbacks+=MetricCurves"
# What provokes a message, and the groups of the pattern in it.
PROVOKED: dict[str, tuple[list[str], dict[str, str] | str]] = {
    "UNRECOGNIZED": (["--modl.lr=1"], {"arguments": "--modl.lr=1"}),
    "UNKNOWN_IN_GROUP": (["-c", "in_group.yaml"], {"group": "trainer", "option": "max_epoch"}),
    "UNKNOWN_KEY": (["-c", "key.yaml"], {"key": "modle"}),
    "PARSER_KEY": (["--trainer.max_epochs=many"], "trainer.max_epochs"),
    "MISSING": ([], {"keys": "data, model"}),
    "OF_HELP": ([DATA, "--model.help=Paintr"], {"key": "model", "value": "Paintr"}),
    "NEEDS_VALUE": (["--run_dir"], {"option": "--run_dir"}),
    "NOISE": (["-c", "number.yaml"], "Not a valid subclass of"),
    "PROBLEM": ([DATA, PAINTER, "--model.size=1"], f"{COLOURS}.LinkedPainter"),
    "OF_CALLABLE": (
        [DATA, SLOT, "--model.optimizer={class_path: Adam, init_args: {lrr: 1}}"],
        "Type typing.Callable[[collections.abc.Iterable], torch.optim.optimizer.Optimizer] expects a function or a "
        "callable class: ",
    ),
    "GOT_CLASS": ([DATA, SLOT, "--model.optimizer={class_path: Adam, init_args: {lrr: 1}}"], "torch.optim.Adam"),
    "NOT_ACCEPTED": ([DATA, PAINTER, "--model.size=1"], {"option": "size"}),
    "NO_SUCH_CLASS": ([DATA, "--model=Paintr"], {"cls": "Paintr"}),
    "CLASS_PATH": ([DATA, "-c", "class_path.yaml"], {"cls": f"{COLOURS}.Paintr"}),
    "NO_SUBCLASS": ([DATA, "-c", "layer.yaml"], {"cls": "torch.nn.Linear", "other": None}),
    "NO_MODULE": ([DATA, "--model=nowhere.Painter"], {"module": "nowhere"}),
    "NO_ATTRIBUTE": ([DATA, "-c", "class_path.yaml"], f"module '{COLOURS}' has no attribute '"),
    "UNION": (["--trainer.max_epochs=many"], ""),
    "EXPECTED_TYPE": (["--trainer.max_epochs=many"], "<class 'int'>"),
    "SEQUENCE": ([DATA, CURVES, "--trainer.callbacks.metrics=x"], "Sequence"),
    "GOT_VALUE": ([DATA, CURVES, "--trainer.callbacks.metrics=x"], "x"),
    "GIVEN_VALUE": (["--trainer.max_epochs=many"], "many"),
    "NESTED_VALUE": ([DATA, CURVES, "--trainer.callbacks.metrics=x"], "'x'"),
    "TYPE": (["--trainer.max_epochs=many"], "int"),
    "LITERAL": (["--trainer.precision=17"], "64, 32, 16"),
    "MODULES": ([DATA, CURVES, "--trainer.callbacks.metrics=x"], "collections."),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for file, text in (
        ("empty", "seed_everything: 1"),
        ("in_group", "trainer: {max_epoch: 1}"),
        ("key", "modle: 1"),
        ("class_path", f"model: {{class_path: {COLOURS}.Paintr}}"),
        ("number", "model: 3"),
        ("layer", "model: {class_path: torch.nn.Linear}"),
    ):
        (tmp_path / f"{file}.yaml").write_text(text + "\n")
    messages: list[str] = []
    monkeypatch.setattr(
        "experiment.parsing.parser.explain", lambda message, parser: messages.append(message) or "explained"
    )
    arguments, expected = PROVOKED[name]
    with pytest.raises(Exception, match="explained"):
        ExperimentCLI(["-c", "empty.yaml", *arguments])
    pattern = getattr(private_api, name)
    closed = f"jsonargparse {version('jsonargparse')} has other words than private_api.{name}: {messages[0]}"
    if isinstance(pattern, str):
        assert pattern + expected in messages[0], closed
    elif isinstance(expected, str):
        found = [match[match.re.groups] for match in pattern.finditer(messages[0])]
        assert expected in found, closed
    else:
        match = pattern.search(messages[0])
        assert match is not None, closed
        assert match.groupdict() == expected, closed
