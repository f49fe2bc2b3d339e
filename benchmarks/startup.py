"""Start-up: the processor time of `scripts/train.py --help`, against a process that only imports pytorch_lightning."""

import os
import resource
import subprocess
import sys
from typing import Any

from benchmarks._processes import ROOT
from benchmarks._timing import medians

COMMANDS = {
    "import pytorch_lightning": [sys.executable, "-c", "import pytorch_lightning"],
    "train.py --help": [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"],
    "train.py --print_config": [sys.executable, str(ROOT / "scripts" / "train.py"), "--print_config"],
}


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Whole processes in turn; the first round fills the file cache and does not count, unless it is the only one."""
    spent: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(1 if quick else 6):
        for name, command in COMMANDS.items():
            used = processor_seconds(command)
            if number or quick:
                spent[name].append(used)
    seconds = medians(spent)
    peer = "import pytorch_lightning"
    return [
        {
            "benchmark": "startup",
            "case": name,
            "peer": peer,
            "ratio": seconds[peer] / seconds[name],
            "ours_seconds": seconds[name],
            "peer_seconds": seconds[peer],
        }
        for name in COMMANDS
        if name != peer
    ]


def processor_seconds(command: list[str]) -> float:
    """What a process and its children compute, on any number of cores; not what they wait for the disk and others."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
