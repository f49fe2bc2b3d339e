"""Runs a trained model on a file: python scripts/predict.py RUN_OR_CHECKPOINT --input FILE --output FILE"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiment.main import run

if __name__ == "__main__":
    sys.exit(run("predict", sys.argv[1:]))
