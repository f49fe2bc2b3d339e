"""Memory of a language model's run on a text that is larger than its vocabulary by far, beside the run on the sample.

The text is the training text of the Penn Treebank at ``../shared/data/ptb`` where it lies there, else the sample's,
repeated. Each run is a process of its own: it encodes the text (or finds it encoded), trains, validates and tests on a
few batches. Measured is the peak of RssAnon: memory that can't be dropped, unlike the pages of a mapped file.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._processes import ROOT, in_a_process, knows_its_memory, watched

REAL_TEXT = ROOT / "../shared/data/ptb/ptb.train.txt"
MEBIBYTE = 1 << 20
OPTIONS = [
    *("-c", str(ROOT / "configs/on_lstm_sample.yaml"), "--trainer.max_epochs=1", "--trainer.accelerator=cpu"),
    *(f"--trainer.limit_{stage}_batches=20" for stage in ("train", "val", "test")),
    *("--trainer.callbacks=[]", "--data.max_words=10000"),
]


def rows(quick: bool = False) -> list[dict[str, Any]]:
    """One row: the peak of the run on the sample over that of the run on the text, both in MiB, and seconds.

    Args:
        quick: a million words, for a look or a test.
    """
    if not knows_its_memory():
        return []
    words = 10**6 if quick else 10**8
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(f"{folder}/text")
        write_text(Path(folder, "text"), words)
        environment = {"XDG_CACHE_HOME": f"{folder}/cache"}
        sample = in_a_process(_code("sample", f"{folder}/1"), **environment)
        peak, first = _timed(f"{folder}/text", f"{folder}/2", environment)
        _, again = _timed(f"{folder}/text", f"{folder}/3", environment)
    return [
        {
            "benchmark": "data",
            "case": f"peak of RssAnon, {words:,} words",
            "peer": "the same run on the sample",
            "ratio": sample / peak,
            "mebibytes": peak / MEBIBYTE,
            "peer_mebibytes": sample / MEBIBYTE,
            "seconds_first": first,
            "seconds_again": again,
        }
    ]


def write_text(folder: Path, words: int) -> None:
    """A training text of so many words, or a few more, and short ones for validation and test."""
    if REAL_TEXT.is_file():
        text = REAL_TEXT.read_text()
    else:
        from datamodules.samples.grammar import make_sentences

        text = "".join(" ".join(sentence.words) + "\n" for sentence in make_sentences(5000, 0, "train"))
    with open(folder / "train.txt", "w") as file:
        for _ in range(-(-words // len(text.split()))):
            file.write(text)
    for split in ("valid", "test"):
        (folder / f"{split}.txt").write_text(text[: 1 << 17])


def _timed(source: str, run: str, environment: dict[str, str]) -> tuple[float, float]:
    started = time.perf_counter()
    peak = in_a_process(_code(source, run), **environment)
    return peak, time.perf_counter() - started


def _code(source: str, run: str) -> str:
    return f"from benchmarks import _text_memory; print(_text_memory.peak_of_a_run({source!r}, {run!r}))"


def peak_of_a_run(source: str, run: str) -> int:
    """Bytes of RssAnon at the peak of a run in this process."""
    with watched("RssAnon") as peak:
        from experiment.train import train

        train([*OPTIONS, f"--data.source={source}", "--run_dir", run])
    return peak[0]
