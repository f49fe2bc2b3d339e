"""Start-up: `scripts/train.py --help` as a process, against one that only imports pytorch_lightning."""

import os
import subprocess
import sys
from functools import partial
from typing import Any

from benchmarks._processes import ROOT
from benchmarks._timing import interleaved, medians

COMMANDS = {
    "import pytorch_lightning": [sys.executable, "-c", "import pytorch_lightning"],
    "train.py --help": [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"],
    "train.py --print_config": [sys.executable, str(ROOT / "scripts" / "train.py"), "--print_config"],
}


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Whole processes in turn; the first round fills the file cache and does not count, unless it is the only one."""
    start = partial(subprocess.run, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    arms = {name: partial(start, command) for name, command in COMMANDS.items()}
    seconds = medians(interleaved(arms, rounds=1, warm_up=0) if quick else interleaved(arms, rounds=5))
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
