"""Trains an experiment: python scripts/train.py [-c configs/X.yaml] [--key=value]..."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiment.errors import run_main
from experiment.train import train

if __name__ == "__main__":
    sys.exit(run_main(train, sys.argv[1:]))
