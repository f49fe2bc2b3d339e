"""A table of what people type wrong: each ends with status 2 and one line that names the mistake and the way out."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import datamodules
import lightning_modules
from tests.conftest import ROOT, TINY, script

DEFAULT = str(ROOT / "configs/infomax_sample.yaml")
# What belongs to a program, not to its user.
NOISE = re.compile(r"<class|Namespace\(|NestedArg|typing\.|Union|Traceback|NoneType|jsonargparse|collections\.abc")

FILES: dict[str, bytes] = {
    "empty.yaml": b"",
    "comment.yaml": b"# nothing\n",
    "list.yaml": b"[1, 2]\n",
    "word.yaml": b"hello\n",
    "binary.yaml": bytes(range(256)),
    "utf16.yaml": "trainer: {max_epochs: 3}\n".encode("utf-16"),
    "tabs.yaml": b"trainer:\n\tmax_epochs: 3\n",
    "twice.yaml": b"trainer:\n  max_epochs: 3\n  max_epochs: 4\n",
    "twice_top.yaml": b"trainer: {max_epochs: 3}\nmodel: {}\ntrainer: {max_steps: 4}\n",
    "open.yaml": b"trainer: [1\n",
    "trainer_number.yaml": b"trainer: 3\n",
    "trainer_nothing.yaml": b"trainer:\n",
    "trainer_list.yaml": b"trainer: [max_epochs]\n",
    "model_number.yaml": b"model: 3\n",
    "model_list.yaml": b"model: [DeepInfoMax]\n",
    "model_layer.yaml": b"model: {class_path: torch.nn.Linear}\n",
    "model_typo.yaml": b"model: {class_path: lightning_modules.DeepInfoMix}\n",
    "modle.yaml": b"modle: {class_path: DeepInfoMax}\n",
    "epochs.yaml": b"trainer: {epochs: 3}\n",
    "top_epochs.yaml": b"max_epochs: 3\n",
    "lrr.yaml": b"model: {class_path: DeepInfoMax, init_args: {lrr: 1}}\n",
    "chanels.yaml": b"model: {init_args: {encoder: {class_path: BlogEncoder, init_args: {chanels: 1}}}}\n",
    "no_init_args.yaml": b"model: {class_path: DeepInfoMax, lrr: 1}\n",
    "init_arg.yaml": b"trainer:\n  callbacks+:\n  - class_path: Lookahead\n    init_arg: {steps: 3}\n",
    "listed.yaml": b"trainer: {callbacks+: [{Lookahead: {steps: 3}}]}\n",
    "logger.yaml": b"trainer: {logger: {class_path: CSVLogger, name: x}}\n",
    "template.yaml": b"model:\n  init_args: {lr: {{lr}}}\n",
    "list_as_key.yaml": b"? [a, b]\n: 1\n",
    "string_for_list.yaml": b"trainer:\n  callbacks:\n  - {class_path: MetricCurves, init_args: {metrics: val/loss}}\n",
    "step_lr.yaml": b"model: {init_args: {optimizer: torch.optim.lr_scheduler.StepLR}}\n",
    "lr_scheduler.yaml": b"lr_scheduler: {class_path: StepLR, init_args: {step_size: 10}}\n",
    "optimizer.yaml": b"optimizer: {class_path: Adam}\n",
    "drop.yaml": b"trainer: {callbacks-: [NearestNeighbours]}\n",
    "change.yaml": b"trainer: {callbacks.MetricCurve: {name: x}}\n",
    "change_argument.yaml": b"trainer: {callbacks.MetricCurves: {nam: x}}\n",
    "change_value.yaml": b"trainer: {callbacks.MetricCurves: {metrics: val/loss}}\n",
    "change_nothing.yaml": b"trainer: {callbacks.MetricCurves: }\n",
    "broken.py": b"import package_that_is_missing\n\n\nclass Mine:\n    pass\n",
    "text.txt": b"hello\n",
    "bad.ckpt": b"PK\x03\x04 not really",
}

TRAIN: dict[str, list[str]] = {
    # options
    "trainer.max_epochs=3": ["--trainer.max_epochs=3", "two dashes"],
    "-trainer.max_epochs=3": ["--trainer.max_epochs=3", "two dashes"],
    "trainer.max_epoch=3": ["two dashes", "'--trainer.max_epochs'"],
    "fit": ["unexpected fit", "--KEY=VALUE"],
    "list.yaml": ["-c list.yaml"],
    "--epochs=3": ["--epochs", "'--trainer.max_epochs'"],
    "--max_epochs=3": ["--max_epochs", "'--trainer.max_epochs'"],
    "--max-epochs=3": ["--max-epochs", "'--trainer.max_epochs'"],
    "--lr=1": ["--lr", "'--model.lr'"],
    "--learning_rate=1": ["--learning_rate", "'--model.lr'"],
    "--batch_size=3": ["--batch_size", "'--data.batch_size'"],
    "--gpus=1": ["--gpus", "'--trainer.devices'"],
    "--seed=1": ["--seed", "'--seed_everything'"],
    "--callbacks=CodeMap": ["--callbacks", "'--trainer.callbacks'"],
    "--modl.lr=1": ["--modl.lr", "'--model.lr'"],
    "--trainer.max_epoch=1": ["--trainer.max_epoch", "'--trainer.max_epochs'"],
    "--trainer.xyz=1": ["--trainer.xyz", "--help"],
    "--xyzzy=1": ["unknown option --xyzzy", "--help"],
    "--lr_scheduler=StepLR": ["--model.scheduler=CosineAnnealingLR --model.scheduler.T_max=10"],
    "--optimizer=Adam": ["--model.optimizer=Adam"],
    "--trainer=3": ["--trainer", "expected settings", "3"],
    "--trainer.max_epochs": ["--trainer.max_epochs needs a value"],
    "--run_dir": ["--run_dir needs a value"],
    "--trainer.callbacks-": ["--trainer.callbacks- needs a value"],
    "--print_config=commments": ["--print_config", "commments"],
    "--resume --trainer.max_epochs=3": ["--resume needs a value"],
    "--trainer.callbacks-=": ["trainer.callbacks-", "name of a callback", "nothing"],
    "-c": ["-c needs a configuration file"],
    "--trainer.default_root_dir=x": ["trainer.default_root_dir", "--run_dir=DIR"],
    # types
    "--trainer.max_epochs=many": ["trainer.max_epochs: expected int", "'many'"],
    "--trainer.precision=17": ["trainer.precision: expected one of", "bf16-mixed", "'17'"],
    "--trainer.limit_val_batches=all": ["trainer.limit_val_batches: expected float or int", "'all'"],
    "--save_every=often": ["save_every: expected float", "'often'"],
    "--seed_everything=x": ["seed_everything", "int", "'x'"],
    "--data.batch_size=[1]": ["data.batch_size: expected int", "'[1]'"],
    "--data.image_size=big": ["data.image_size: expected int", "'big'"],
    "--data.pixel_range=[1]": ["data.pixel_range: expected a list of 2: float, float", "'[1]'"],
    "--model.lr=fast": ["model.lr: expected float", "'fast'"],
    "--model.probes=knn": ["model.probes: expected a list", "write [knn]"],
    "--model.probes=[kn]": ["model.probes: expected one of knn, linear_probe, mlp_probe", "'kn'"],
    "--model.encoder.channels=x": ["model.encoder.channels: expected int", "'x'"],
    "--trainer.callbacks.num_points=x": ["trainer.callbacks.CodeMap.num_points: expected int", "'x'"],
    # classes
    "--model=DeepInfomin": ["model: no class 'DeepInfomin'", "'DeepInfoMax'"],
    "--model=3": ["model: expected the name of a LightningModule", "'3'"],
    "--model=": ["model: expected the name of a LightningModule"],
    "--model=torch.nn.Linear": ["model: Linear is no LightningModule"],
    "--model=nowhere.Thing": ["model: no module 'nowhere'", "PYTHONPATH"],
    "--model=MetricCurves": ["model: no class 'MetricCurves'", "--trainer.callbacks+=MetricCurves"],
    "--model=broken.Mine": ["model: broken.Mine can't be imported", "'package_that_is_missing' is not installed"],
    "--data=ImagesModule": ["data: no class 'ImagesModule'", "'ImageDataModule'"],
    "--data=DeepInfoMax": ["data: no class 'DeepInfoMax'", "--model=DeepInfoMax"],
    "--model.encoder=BlogEncodr": ["model.encoder: no class 'BlogEncodr'", "'BlogEncoder'"],
    "--model.encoder=DotScore": ["model.encoder: no class 'DotScore'", "--model.score=DotScore"],
    "--model.encoder=3": ["model.encoder: expected the name of a", "'3'", "BlogEncoder"],
    "--model.estimator=InfoNC": ["model.estimator: no class 'InfoNC'", "'InfoNCE'"],
    "--model.optimizer=Adamm": ["model.optimizer: no class 'Adamm'", "'Adam'"],
    "--model.optimizer=StepLR": ["model.optimizer: no class 'StepLR'", "--model.scheduler=StepLR"],
    "--model.optimizer=torch.nn.Linear": ["model.optimizer: Linear is no Optimizer"],
    "--model.scheduler=Adam": ["model.scheduler: no class 'Adam'", "--model.optimizer=Adam"],
    "--trainer.callbacks+=CodeMop": ["trainer.callbacks: no class 'CodeMop'", "'CodeMap'"],
    "--trainer.callbacks+=broken.Mine": ["trainer.callbacks", "'package_that_is_missing' is not installed"],
    "--trainer.logger=CSVLoger": ["trainer.logger: no class 'CSVLoger'", "'CSVLogger'"],
    "--trainer.logger=CometLogger": ["trainer.logger: CometLogger needs the package", "comet"],
    "--trainer.callbacks+=EarlyStopping": ["EarlyStopping needs monitor", "monitor="],
    "--model.scheduler=CosineAnnealingLR": [
        "model.scheduler: CosineAnnealingLR needs T_max",
        "--model.scheduler.T_max=",
    ],
    "--model.scheduler=SequentialLR": [
        "model.scheduler: SequentialLR is made of other schedulers",
        "PiecewiseLinearLR",
    ],
    "--run_dir=": ["--run_dir needs a value"],
    "--data.source=": ["--data.source needs a value"],
    "--model.scheduler=StepLR --model.scheduler.step_size=x": ["model.scheduler.step_size: expected int", "'x'"],
    "--model.scheduler=StepLR --model.scheduler.gama=0.1": ["StepLR has no argument 'gama'", "'gamma'"],
    "--model.encoder=encoder.yaml": ["model.encoder: no such file: encoder.yaml"],
    "--model.help=DeepInfomax2": ["--model.help: no class 'DeepInfomax2'", "'DeepInfoMax'"],
    "--model.help=torch.nn.Linear": ["--model.help: no class 'Linear'"],
    "--trainer.callbacks.help=CodeMop": ["--trainer.callbacks.help: no class 'CodeMop'", "'CodeMap'"],
    # arguments of classes
    "--model.lrr=1": ["model: DeepInfoMax has no argument 'lrr'", "'lr'"],
    "--model.vocabulary=1": ["model: DeepInfoMax has no argument 'vocabulary'", "it has encoder"],
    "--model.lr_scheduler=StepLR": ["no argument 'lr_scheduler'", "'scheduler'"],
    "--model.encoder.chanels=1": ["BlogEncoder has no argument 'chanels'", "'channels'"],
    "--model.encoder.image_size=64": ["'image_size' is set by the module"],
    "--model.optimizer.momentum=0.9": ["Adam has no argument 'momentum'"],
    "--model.image_size=64": ["model.image_size comes from the data", "data.image_size"],
    "--data.max_length=3": ["ImageDataModule has no argument 'max_length'"],
    "--data.num_workers=3": ["ImageDataModule has no argument 'num_workers'"],
    # callbacks by name
    "--trainer.callbacks-=MetricCurve": ["no 'MetricCurve'", "'MetricCurves'", "NearestNeighbors, CodeMap"],
    "--trainer.callbacks-=EarlyStopping": ["no 'EarlyStopping'", "it has MetricCurves, NearestNeighbors, CodeMap"],
    "--trainer.callbacks-=3": ["trainer.callbacks-", "name of a callback", "3"],
    "--trainer.callbacks.MetricCurve.name=x": ["no 'MetricCurve'", "'MetricCurves'"],
    "--trainer.callbacks.MetricCurves.nam=x": ["MetricCurves has no argument 'nam'", "'name'"],
    "--trainer.callbacks.MetricCurves.metrics=x": ["trainer.callbacks.MetricCurves.metrics: expected a list", "[x]"],
    "--trainer.callbacks.MetricCurves=x": ["trainer.callbacks.MetricCurves: expected arguments", "'x'"],
    # values out of range
    "--trainer.gradient_clip_val=-1": ["--trainer.gradient_clip_val=-1", "at least 0"],
    "--trainer.max_epochs=-5": ["--trainer.max_epochs=-5", "at least -1"],
    "--trainer.max_steps=-2": ["--trainer.max_steps=-2", "at least -1"],
    "--trainer.devices=0": ["--trainer.devices=0", "at least 1"],
    "--trainer.devices=-2": ["--trainer.devices=-2", "at least 1"],
    "--trainer.num_nodes=0": ["--trainer.num_nodes=0", "at least 1"],
    "--trainer.accumulate_grad_batches=0": ["--trainer.accumulate_grad_batches=0", "at least 1"],
    "--trainer.log_every_n_steps=-1": ["--trainer.log_every_n_steps=-1", "at least 0"],
    "--trainer.limit_train_batches=-0.5": ["--trainer.limit_train_batches=-0.5", "at least 0"],
    "--save_every=-5": ["--save_every=-5", "at least 0"],
    "--save_every=.nan": ["--save_every=nan", "at least 0"],
    "--seed_everything=-1": ["--seed_everything=-1", "at least 0"],
    "--seed_everything=4294967296": ["--seed_everything=4294967296", "at most 4294967295"],
    "--data.batch_size=0": ["data.batch_size (0)", "at least 1"],
    "--data.batch_size=-3": ["data.batch_size (-3)", "at least 1"],
    "--data.batch_size=5000": ["batch_size"],
    "--data.val_fraction=1.5": ["data.val_fraction (1.5)", "between 0 and 1"],
    "--data.seed=-1": ["data.seed (-1)"],
    "--model.lr=-1": ["learning rate", "-1"],
    "--model.encoder=DIMEncoder": ["GaussianPrior needs a stochastic encoder"],
    "--trainer.strategy=ddpp": ["strategy", "ddpp"],
    "--trainer.accelerator=gpuu": ["accelerator", "gpuu"],
    "--trainer.max_time=soon": ["soon", "DD:HH:MM:SS"],
    "--data.source=nowhere": ["nowhere", "data.source"],
    "--data.source=text.txt": ["text.txt"],
    "--data.source=hub --data.hub_id=": ["hub_id"],
    # classes that don't go together
    "--data=EdgeListDataModule": ["DeepInfoMax takes image_size", "EdgeListDataModule"],
    "--model=ONLSTMLanguageModel": ["ONLSTMLanguageModel takes", "ImageDataModule"],
    # runs
    "--run_dir=text.txt": ["--run_dir: text.txt is a file"],
    "--resume=nowhere": ["--resume", "nowhere"],
    "--resume=folder": ["--resume: folder is no run folder"],
    "--resume=text.txt": ["text.txt", "checkpoint"],
    "--resume=bad.ckpt": ["bad.ckpt", "checkpoint"],
    "--init_from=nowhere": ["nowhere"],
    "--init_from_partly": ["--init_from"],
    # several mistakes: the first that is met
    "--epochs=3 --lr=1 --model=Nothing": ["model: no class 'Nothing'"],
    "--model.lr=fast --data.batch_size=0": ["model.lr: expected float"],
    "--trainer.max_epochs=-5 --data.batch_size=0": ["--trainer.max_epochs=-5"],
}

IN_A_FILE: dict[str, list[str]] = {
    "nowhere.yaml": ["no such configuration file: nowhere.yaml"],
    "folder": ["folder is a folder", "-c"],
    "empty.yaml": ["empty.yaml: no settings"],
    "comment.yaml": ["comment.yaml: no settings"],
    "list.yaml": ["list.yaml: no settings"],
    "word.yaml": ["word.yaml: no settings"],
    "binary.yaml": ["binary.yaml", "not YAML"],
    "utf16.yaml": ["utf16.yaml", "UTF-8"],
    "tabs.yaml": ["tabs.yaml:2", "not YAML"],
    "twice.yaml": ["twice.yaml:3: 'max_epochs' stands twice"],
    "twice_top.yaml": ["twice_top.yaml:3: 'trainer' stands twice"],
    "open.yaml": ["open.yaml:", "not YAML"],
    "trainer_number.yaml": ["trainer_number.yaml: trainer: expected settings (key: value), got 3"],
    "trainer_nothing.yaml": ["trainer_nothing.yaml: trainer: expected settings", "nothing"],
    "trainer_list.yaml": ["trainer_list.yaml: trainer: expected settings", "max_epochs"],
    "model_number.yaml": ["model_number.yaml: model: expected the name of a LightningModule, got '3'"],
    "model_list.yaml": ["model_list.yaml: model: expected the name of a LightningModule"],
    "model_layer.yaml": ["model_layer.yaml: model: Linear is no LightningModule"],
    "model_typo.yaml": ["model_typo.yaml: model: no class 'DeepInfoMix'", "'DeepInfoMax'"],
    "modle.yaml": ["modle.yaml: unknown key 'modle'", "'model'"],
    "epochs.yaml": ["error: epochs.yaml: unknown key 'trainer.epochs'", "'trainer.max_epochs'"],
    "top_epochs.yaml": ["unknown key 'max_epochs'", "'trainer.max_epochs'"],
    "lrr.yaml": ["DeepInfoMax has no argument 'lrr'", "'lr'"],
    "chanels.yaml": ["model.encoder: BlogEncoder has no argument 'chanels'", "'channels'"],
    "no_init_args.yaml": ["no_init_args.yaml:1: 'lrr'", "{class_path: DeepInfoMax, init_args: {lrr: VALUE}}"],
    "init_arg.yaml": ["init_arg.yaml:4: 'init_arg'", "{class_path: Lookahead, init_args: {ARGUMENT: VALUE}}"],
    "listed.yaml": ["listed.yaml: trainer.callbacks+", "{class_path: Lookahead, init_args: {...}}"],
    "logger.yaml": [
        "logger.yaml:1: 'name' stands beside class_path",
        "{class_path: CSVLogger, init_args: {name: VALUE}}",
    ],
    "template.yaml": ["template.yaml:2: a key has to be a name", "template"],
    "list_as_key.yaml": ["list_as_key.yaml:1: a key has to be a name"],
    "string_for_list.yaml": ["trainer.callbacks.MetricCurves.metrics: expected a list of str", "write [val/loss]"],
    "step_lr.yaml": ["model.optimizer: StepLR is no Optimizer", "--model.scheduler=StepLR"],
    "lr_scheduler.yaml": ["lr_scheduler", "--model.scheduler=CosineAnnealingLR --model.scheduler.T_max=10"],
    "optimizer.yaml": ["optimizer", "--model.optimizer=Adam"],
    "drop.yaml": ["drop.yaml: trainer.callbacks has no 'NearestNeighbours'", "'NearestNeighbors'"],
    "change.yaml": ["change.yaml: trainer.callbacks has no 'MetricCurve'", "'MetricCurves'"],
    "change_argument.yaml": ["change_argument.yaml", "MetricCurves has no argument 'nam'", "'name'"],
    "change_value.yaml": ["change_value.yaml: trainer.callbacks.MetricCurves.metrics: expected a list", "[val/loss]"],
    "change_nothing.yaml": ["change_nothing.yaml: trainer.callbacks.MetricCurves: expected arguments"],
    "text.txt": ["text.txt: no settings"],
}

# RUN stands for a finished run.
OTHERS: dict[str, list[str]] = {
    "evaluate nowhere": ["no such run folder or checkpoint: nowhere"],
    "evaluate folder": ["no checkpoint in", "folder"],
    "evaluate text.txt": ["text.txt", "checkpoint"],
    "evaluate bad.ckpt": ["bad.ckpt", "checkpoint"],
    "evaluate --json x.json": ["name a run folder or a checkpoint first"],
    "evaluate RUN --json": ["--json needs a value"],
    "evaluate RUN --json nowhere/x.json": ["--json: no such folder: nowhere"],
    "evaluate RUN --json folder": ["--json: folder is a folder"],
    "evaluate RUN --resume auto": ["takes no --resume"],
    "evaluate RUN -c list.yaml": ["takes no -c"],
    "evaluate RUN --trainer.callbacks+=Lookahead": ["takes no --trainer.callbacks+", "test"],
    "evaluate RUN --trainer.logger=CSVLogger": ["takes no --trainer.logger", "test"],
    "evaluate RUN --trainer.max_epochs=3": ["takes no --trainer.max_epochs", "test"],
    "evaluate RUN/config.yaml": ["config.yaml is no checkpoint: name a run folder"],
    "train --resume RUN/config.yaml": ["config.yaml is no checkpoint: name a run folder"],
    "train --resume RUN --trainer.fast_dev_run=true": ["fast_dev_run", "without --resume"],
    "evaluate RUN --data.sorce=sample": ["no argument 'sorce'", "'source'"],
    "evaluate RUN --data.source=nowhere": ["nowhere", "data.source"],
    "evaluate RUN --data.batch_size=0": ["data.batch_size (0)"],
    "evaluate RUN --jsn x.json": ["--jsn"],
    "evaluate RUN RUN": ["unexpected"],
    "predict nowhere --input text.txt --output x": ["no such run folder or checkpoint: nowhere"],
    "predict x.yaml --input text.txt --output x": ["no such configuration file: x.yaml"],
    "predict folder --input text.txt --output x": ["no checkpoint in", "folder"],
    "predict bad.ckpt --input text.txt --output x": ["bad.ckpt", "checkpoint"],
    "predict list.yaml --input text.txt --output x": ["list.yaml: no settings"],
    "predict --input text.txt": ["name a run folder or a checkpoint first"],
    "predict RUN": ["input", "output", "missing"],
    "predict RUN --input folder": ["output missing"],
    "predict RUN --input": ["--input needs a value"],
    "predict RUN --input nowhere --output x.npz": ["--input: no such file or folder: nowhere"],
    "predict RUN --input folder --output folder": ["--output: folder is a folder"],
    "predict RUN --input text.txt --output text.txt": ["--output text.txt would be written over the input"],
    "predict RUN --input folder --output nowhere/x.npz": ["--output: no such folder: nowhere"],
    "predict RUN --inptu folder --output x.npz": ["--inptu", "'--input'"],
    "predict RUN --input folder --output x.npz --layer=nope": ["layer", "nope"],
    "predict RUN --input folder --output x.npz --num_neighbors=many": ["num_neighbors: expected int", "'many'"],
    "predict infomax_sampl": ["no such run folder or checkpoint: infomax_sampl; did you mean 'infomax_sample'?"],
    "predict DEFAULT --input folder --output x": ["has to be trained first"],
    "benchmark": [],
    "benchmark nothing": ["no benchmark 'nothing'"],
    "benchmark all all": ["name one benchmark"],
    "benchmark all --json": ["--json needs a value"],
    "benchmark startup --json nowhere/x.json": ["--json: no such folder: nowhere"],
    "benchmark --fast": ["--fast"],
}
del OTHERS["benchmark"]  # alone it lists the benchmarks
for name, package in (("--data=EdgeListDataModule", datamodules), ("--model=ONLSTMLanguageModel", lightning_modules)):
    if not hasattr(package, name.partition("=")[2]):  # its technique was taken out
        del TRAIN[name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the table, from which modules are imported too."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def check(status: int, err: str, words: list[str], folder: Path) -> None:
    lines = err.strip().splitlines()
    assert (status, len(lines)) == (2, 1), err
    (line,) = lines
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert not NOISE.search(line), line
    entries = {path.name for path in folder.iterdir()} - {"__pycache__"}
    assert entries - set(FILES) <= {"folder", "runs"}
    assert not [path for path in folder.rglob("*") if path.is_file() and "runs" in path.parts]


@pytest.mark.parametrize("arguments", TRAIN)
def test_train(arguments: str, call: Callable, folder: Path):
    callbacks = "callbacks" in arguments
    options = [option for option in TINY if not (callbacks and "callbacks" in option)]
    status, _, err = call("train", "-c", DEFAULT, *options, *arguments.split())
    check(status, err, TRAIN[arguments], folder)


@pytest.mark.parametrize("name", IN_A_FILE)
def test_train_with_a_file(name: str, call: Callable, folder: Path):
    status, _, err = call("train", "-c", DEFAULT, "-c", name)
    check(status, err, IN_A_FILE[name], folder)


@pytest.mark.parametrize("line", OTHERS)
def test_other_commands(line: str, call: Callable, folder: Path, trained_run: Path):
    before = {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")}
    names = {"RUN": str(trained_run), "DEFAULT": DEFAULT}
    command, *arguments = (re.sub("RUN|DEFAULT", lambda name: names[name[0]], word) for word in line.split())
    status, _, err = call(command, *arguments)
    check(status, err, OTHERS[line], folder)
    assert {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")} == before


@pytest.mark.parametrize("command", ["evaluate RUN --json pipe", "predict RUN --input folder --output pipe"])
def test_a_pipe_is_no_output(command: str, call: Callable, folder: Path, trained_run: Path):
    os.mkfifo(folder / "folder" / "pipe")
    command = command.replace("pipe", "folder/pipe").replace("RUN", str(trained_run))
    status, _, err = call(*command.split())
    check(status, err, [f"{command.split()[-2]}: folder/pipe is not a file"], folder)
    assert (folder / "folder" / "pipe").is_fifo()


def test_a_folder_that_may_not_be_written(
    call: Callable, folder: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write
    status, _, err = call("predict", str(trained_run), "--input", "folder", "--output", "folder/x.npz")
    check(status, err, ["--output: no permission to write into the folder folder"], folder)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train trainer.max_epochs=3", ["--trainer.max_epochs=3"]),
        ("train -c utf16.yaml", ["utf16.yaml"]),
        ("train --trainer.callbacks+=broken.Mine", ["package_that_is_missing"]),
        ("train --model.encoder=DIMEncoder", ["GaussianPrior needs a stochastic encoder"]),
        ("evaluate nowhere", ["nowhere"]),
        ("predict nowhere", ["nowhere"]),
        ("benchmark nothing", ["nothing"]),
    ],
)
def test_as_processes(line: str, words: list[str], folder: Path):
    command, *arguments = line.split()
    result = script(command, *arguments, cwd=folder, check=False, PYTHONPATH=str(folder))
    check(result.returncode, result.stderr, words, folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("option", ["--trainer.accelerator=gpu", "--trainer.accelerator=cuda"])
def test_a_gpu_that_is_not_there(option: str, call: Callable, folder: Path):
    status, _, err = call("train", "-c", DEFAULT, *TINY, option)
    check(status, err, [option[2:], "--trainer.accelerator=auto"], folder)


def test_a_class_on_the_command_line_without_init_args(call: Callable, folder: Path):
    for option in (
        "--trainer.callbacks+={class_path: Lookahead, steps: 3}",
        "--trainer.logger={class_path: CSVLogger, name: x}",
    ):
        status, _, err = call("train", "-c", DEFAULT, option)
        check(status, err, ["the arguments of a class stand below init_args"], folder)


def test_there_is_no_suggestion_where_nothing_is_near(call: Callable, folder: Path):
    (folder / "configs").mkdir()
    (folder / "configs" / "infomap_edges.yaml").write_text("seed_everything: 1\n")
    for arguments in (["-c", "configs/nope.yaml"], ["--xyzzy=1"], ["--model=Wholly"], ["--data.xyzzy=1"]):
        status, _, err = call("train", *arguments)
        assert status == 2
        assert "did you mean" not in err
    assert "did you mean 'infomap_edges.yaml'?" in call("train", "-c", "configs/infomap_edgs.yaml")[2]
