"""Shared by all tests: the scripts as a user starts them, and the size of experiments that tests can afford."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"  # real data, which may be missing
sys.path.insert(0, str(ROOT))

# Before torch is imported: test processes run side by side (`pytest -n auto`), so each keeps to one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# One cache for the whole run, the workers' and the scripts' too, and none of it in the user's.
_CACHE = None
if "TESTS_CACHE" not in os.environ:
    _CACHE = os.environ["TESTS_CACHE"] = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tests-cache-")
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(_CACHE, "hypothesis")


settings.register_profile("tests", database=None)
settings.load_profile("tests")


def pytest_unconfigure() -> None:
    if _CACHE is not None:
        shutil.rmtree(_CACHE, ignore_errors=True)


# The default job, small enough for a test.
TINY = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.num_sanity_val_steps=0",
    "--data.sample_train_size=120",
    "--data.sample_test_size=40",
    "--data.batch_size=16",
    "--data.memory_size=60",
    "--model.encoder.channels=16",
    "--model.score.units=16",
    "--model.probes=[knn]",
    "--model.representations=[code]",
    "--trainer.callbacks=[]",
]


def config(name: str) -> Path:
    """A configuration of the project; where its technique was taken out, the test is skipped."""
    path = ROOT / "configs" / f"{name}.yaml"
    if not path.is_file():
        pytest.skip(f"no {path.name} here")
    return path


def script(
    name: str, *arguments: object, cwd: Path, check: bool = True, **environment: str
) -> subprocess.CompletedProcess:
    """Runs ``scripts/<name>.py`` with the arguments, in the folder ``cwd``."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)],
        cwd=cwd,
        env=script_environment(**environment),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


# Runs lines of a shell one after the other, those of Python in this one process: starting one takes seconds.
RUN_LINES = """
import os, runpy, shlex, sys

sys.path.insert(0, os.getcwd())
for line in sys.argv[1:]:
    shell, _, command = line.rpartition("&& ")
    assert os.system(shell or "true") == 0, shell
    python, *sys.argv = shlex.split(command)
    os.environ.pop("PL_GLOBAL_SEED", None)
    try:
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__")
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    print(f"status {status} of {command}", flush=True)
"""


def run_lines(lines: list[str], folder: Path) -> tuple[list[int], str]:
    """Runs ``python …`` lines (``something && python …`` too) in a folder: each exit status, and all that they said."""
    result = subprocess.run(
        [sys.executable, "-c", RUN_LINES, *lines],
        cwd=folder,
        env=script_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return [int(status) for status in re.findall(r"^status (\d+) of ", result.stdout, re.MULTILINE)], result.stdout


def script_environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "", "WANDB_SILENT": "true", **changes}


def make_tiny_bert(folder: Path, characters: list[str]) -> str:
    """Writes an untrained BERT of 16 units and its tokenizer, as Hugging Face's hub would have them."""
    import transformers

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def save_model(model, path: Path) -> None:
    """Writes a checkpoint of a model without training it."""
    import torch

    experiment = {"config": {}, "random_states": [], "metrics_rows": 0, "pending_row": {}, "wandb_id": None}
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "experiment": experiment}
    torch.save(checkpoint, path)


def make_tiny_source(path: Path, encoder=None, stochastic: bool = True):
    """Writes the checkpoint of an untrained, small Deep InfoMax whose running statistics are not those of the start."""
    from functools import partial

    import torch

    from layers import AdversarialPrior, BlogEncoder, ConcatScore, GaussianPrior
    from lightning_modules import DeepInfoMax

    torch.manual_seed(0)
    model = DeepInfoMax(
        encoder or partial(BlogEncoder, channels=8, code_size=6),
        partial(ConcatScore, hidden_size=8),
        prior=GaussianPrior if stochastic else AdversarialPrior,
    )
    model.encoder(torch.rand(16, 3, 32, 32))
    save_model(model.eval(), path)
    return model


@pytest.fixture(autouse=True)
def _leaves_the_process_as_it_was() -> Iterator[None]:
    """A test that leaks an environment variable or a process group fails."""
    import torch

    before = dict(os.environ)
    yield
    assert not (torch.distributed.is_available() and torch.distributed.is_initialized())
    expected_changes = {"PYTEST_CURRENT_TEST", "PL_GLOBAL_SEED", "PL_SEED_WORKERS"}
    # OpenMP's and scikit-learn's own marks, and what torch sets when its first optimizer is built.
    changed = {
        name for name in before.keys() ^ os.environ.keys() if not name.startswith(("KMP_", "TORCHINDUCTOR_"))
    } - expected_changes
    assert not changed, f"environment variables that the test left: {changed}"


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path / "cache_home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run of the default job."""
    folder = tmp_path_factory.mktemp("trained")
    script("train", "--run_dir", folder / "run", *TINY, cwd=folder)
    return folder / "run"
