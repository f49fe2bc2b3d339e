"""Tests a trained model again: python scripts/evaluate.py RUN_OR_CHECKPOINT [--data.key=value]... [--json FILE]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiment.main import run

if __name__ == "__main__":
    sys.exit(run("evaluate", sys.argv[1:]))
