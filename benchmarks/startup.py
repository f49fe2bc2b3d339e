"""Start-up: `scripts/train.py --help` as a process, against one that only imports pytorch_lightning."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "import pytorch_lightning": [sys.executable, "-c", "import pytorch_lightning"],
    "train.py --help": [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"],
    "train.py --print_config": [sys.executable, str(ROOT / "scripts" / "train.py"), "--print_config"],
}


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Whole processes in turn; the first round fills the file cache and does not count, unless it is the only one."""
    rounds = 1 if quick else 6
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            if number or quick:
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peer = "import pytorch_lightning"
    return [
        {
            "benchmark": "startup",
            "case": name,
            "peer": peer,
            "ratio": medians[peer] / medians[name],
            "ours_seconds": medians[name],
            "peer_seconds": medians[peer],
        }
        for name in COMMANDS
        if name != peer
    ]
