"""Every shipped configuration parses, builds and does two steps."""

import csv
import re
from pathlib import Path

import pytest
import yaml

from experiment.cli import ExperimentCLI
from experiment.errors import run_main
from experiment.train import train
from tests.conftest import ROOT, make_tiny_bert, make_tiny_source, script

CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml"))
EXPERIMENTS = [path for path in CONFIGS if path.parent.name == "configs"]
SAMPLES = [path for path in EXPERIMENTS if path.stem.endswith(("_sample", "_karate"))]
ADD_ONS = [path for path in CONFIGS if path.parent.name == "with"]
SWEEPS = [path for path in CONFIGS if path.parent.name == "sweeps"]
VARIANTS = [path for path in CONFIGS if path.parent.name == "variants"]
BASE = re.compile(r"#   -c (configs/\w+\.yaml) -c configs/variants/(\w+)\.yaml\n")

TWO_STEPS = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.strategy=auto",
    "--trainer.precision=32-true",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.val_check_interval=1.0",
    "--trainer.log_every_n_steps=1",
    "--trainer.num_sanity_val_steps=0",
    "--data.source=sample",
]
SMALL_DATA = ["--data.sample_train_size=80", "--data.sample_test_size=40"]
# What makes one step of each module cheap.
SMALL = {
    "AutoEncoder": [
        "--data.sample_train_size=80",
        "--data.sample_test_size=40",
        "--data.batch_size=8",
    ],
    "DeepInfoMax": [
        "--data.sample_train_size=80",
        "--data.sample_test_size=40",
        "--data.batch_size=8",
        "--model.score.init_args.hidden_size=8",
        "--model.score.init_args.units=8",
        "--model.global_units=8",
        "--model.probes=[knn]",
    ],
    "FeatureProbe": [
        "--data.sample_train_size=80",
        "--data.sample_test_size=40",
        "--data.batch_size=8",
    ],
    "InfomapClustering": [],
    "Neuromap": [],
    "ONLSTMLanguageModel": [
        "--data.sample_train_size=60",
        "--data.sample_test_size=20",
        "--data.batch_size=2",
        "--model.embedding_size=20",
        "--model.hidden_size=20",
    ],
    "SentencePairClassifier": [
        "--data.sample_train_size=80",
        "--data.sample_test_size=40",
        "--data.batch_size=8",
        "--model.hidden_size=20",
    ],
    "SparseTransformer": [
        "--data.sample_train_size=400",
        "--data.sample_test_size=40",
        "--data.batch_size=2",
        "--model.embed_dim=16",
        "--model.num_layers=2",
        "--model.feedforward_size=16",
    ],
    "TripleExtractor": [
        "--data.sample_train_size=80",
        "--data.sample_test_size=40",
        "--data.batch_size=8",
    ],
}
# What makes it cheap only with certain data.
SMALL_PAIRS = {("SparseTransformer", "ImageDataModule"): ["--data.image_size=8"]}


def small_arguments(config: dict) -> list[str]:
    """The entries of SMALL that the configured classes take."""
    model = config["model"]
    pair = (model["class_path"], config["data"]["class_path"])
    arguments = SMALL[model["class_path"]] + SMALL_PAIRS.get(pair, [])
    score = str(model.get("init_args", {}).get("score", ""))
    unfit = "hidden_size" if "DotScore" in score else "units="
    return [argument for argument in arguments if "score" not in argument or unfit not in argument]


def other_files(path: Path, folder: Path) -> list[str]:
    """Options that name what some experiments need besides their data, made here."""
    if "HuggingFaceEncoder" in path.read_text():
        pytest.importorskip("transformers")
        return [f"--model.encoder.model={make_tiny_bert(folder, list('人物的'))}", "--data.max_length=38"]
    if "FeatureProbe" in path.read_text():
        make_tiny_source(folder / "source.ckpt")
        return [f"--model.checkpoint={folder / 'source.ckpt'}"]
    return []


def run(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    assert run_main(train, arguments) == 0


def test_all_configurations_are_covered():
    kinds = (EXPERIMENTS, ADD_ONS, SWEEPS, VARIANTS)
    assert sum(map(len, kinds)) == len(CONFIGS) == EXPECTED_COUNT
    assert all(kinds)


EXPECTED_COUNT = 47
# A graph is one batch.
ONE_STEP = {"InfomapClustering"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_does_two_steps(
    path: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    config = yaml.safe_load(path.read_text())
    arguments = [*small_arguments(config), *other_files(path, tmp_path_factory.mktemp("other"))]
    run(["-c", str(path), *TWO_STEPS, *arguments], tmp_path, monkeypatch)
    (folder,) = (tmp_path / "runs" / path.stem).iterdir()
    for name in ("config.yaml", "metrics.csv", "summary.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (folder / name).is_file(), name
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = 1 if config["model"]["class_path"] in ONE_STEP else 2
    for prefix, count in (("train/loss", steps), ("val/", 1), ("test/", 1)):
        assert sum(any(value for name, value in row.items() if name.startswith(prefix)) for row in rows) == count
    assert {entry.name for entry in tmp_path.iterdir()} == {"runs"}, "the working folder stays clean"


@pytest.mark.parametrize("path", ADD_ONS, ids=lambda path: path.stem)
def test_add_on_does_two_steps_on_the_default_job(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = ROOT / "configs" / "infomax_sample.yaml"
    if path.stem == "wandb":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    if path.stem == "lazy_updates":
        pytest.skip("Deep InfoMax has no embeddings")
    config = yaml.safe_load(base.read_text())
    run(["-c", str(base), "-c", str(path), *TWO_STEPS, *small_arguments(config)], tmp_path, monkeypatch)
    assert len(list((tmp_path / "runs" / "infomax_sample").glob("*/summary.json"))) == 1


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_variant_does_two_steps_with_the_experiment_that_it_names(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ((base, name),) = BASE.findall(path.read_text())
    assert name == path.stem
    arguments = small_arguments(yaml.safe_load((ROOT / base).read_text()))
    run(["-c", str(ROOT / base), "-c", str(path), *TWO_STEPS, *arguments], tmp_path, monkeypatch)
    (folder,) = (tmp_path / "runs" / Path(base).stem).iterdir()
    settings = flat(yaml.safe_load(path.read_text()))
    resolved = flat(yaml.safe_load((folder / "config.yaml").read_text()))
    assert settings
    for key, value in settings.items():  # a class by its name alone is resolved to its class_path
        found = resolved[key] if key in resolved else resolved[f"{key}.class_path"]
        assert str(found).rpartition(".")[2] == str(value).rpartition(".")[2]


def flat(settings: dict, prefix: str = "") -> dict[str, object]:
    """The values of nested settings by their dotted keys."""
    found = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def build(path: Path, add_ons: list[Path], folder: Path) -> ExperimentCLI:
    """Parses and builds an experiment with add-ons, in this process."""
    files = [word for file in (path, *add_ons) for word in ("-c", str(file))]
    arguments = [*small_arguments(yaml.safe_load(path.read_text())), *other_files(path, folder)]
    return ExperimentCLI([*files, *TWO_STEPS, *arguments]).build()


def added_callbacks(add_on: Path) -> list[str]:
    entries = yaml.safe_load(add_on.read_text())["trainer"].get("callbacks+", [])
    return [entry["class_path"] for entry in entries]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_all_add_ons_together_are_built_with_an_experiment(path: Path, tmp_path: Path):
    own = [type(callback).__name__ for callback in build(path, [], tmp_path).trainer.callbacks]
    built = [type(callback).__name__ for callback in build(path, ADD_ONS, tmp_path).trainer.callbacks]
    added = [name for add_on in ADD_ONS for name in added_callbacks(add_on)]
    if "AveragedWeights" in own:  # of two averages the later counts
        added.remove("AveragedWeights")
    assert sorted(built) == sorted([*own, *added])


@pytest.mark.slow
@pytest.mark.parametrize("add_on", ADD_ONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_each_add_on_is_built_with_each_experiment(path: Path, add_on: Path, tmp_path: Path):
    names = [type(callback).__name__ for callback in build(path, [add_on], tmp_path).trainer.callbacks]
    assert set(added_callbacks(add_on)) <= set(names)


def test_an_add_on_that_does_not_fit_says_so_in_one_line(tmp_path: Path):
    add_on = ROOT / "configs" / "with" / "lazy_updates.yaml"
    base = ROOT / "configs" / "infomax_sample.yaml"
    result = script("train", "-c", base, "-c", add_on, *TWO_STEPS, *SMALL_DATA, cwd=tmp_path, check=False)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "LazyUpdates: include entry 'type:Embedding' matches no parameter; the nearest class is" in line


def test_a_configuration_printed_with_comments_runs_again(tmp_path: Path):
    result = script("train", "--print_config=comments", cwd=tmp_path)
    assert "# " in result.stdout
    assert "learning rate" in result.stdout
    file = tmp_path / "again.yaml"
    file.write_text(result.stdout)
    again = script("train", "-c", file, "--print_config", cwd=tmp_path)
    assert yaml.safe_load(again.stdout) == yaml.safe_load(result.stdout)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_printed_sample_configuration_reruns_to_the_same_numbers(
    path: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    arguments = [*small_arguments(yaml.safe_load(path.read_text())), *other_files(path, tmp_path_factory.mktemp("o"))]
    arguments = ["-c", str(path), *TWO_STEPS, *arguments, "--trainer.callbacks=[]"]
    run([*arguments, "--run_dir=first"], tmp_path, monkeypatch)
    capsys.readouterr()
    run([*arguments, "--print_config"], tmp_path, monkeypatch)
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    run(["-c", "printed.yaml", "--run_dir=again"], tmp_path, monkeypatch)
    first, again = ((tmp_path / name / "metrics.csv").read_text() for name in ("first", "again"))
    assert "test/" in first
    assert again == first
