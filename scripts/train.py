"""Trains an experiment: python scripts/train.py [-c configs/X.yaml] [--key=value]..."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiment.main import run

if __name__ == "__main__":
    sys.exit(run("train", sys.argv[1:]))
