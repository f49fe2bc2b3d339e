"""Runs a trained model on a file: python scripts/predict.py RUN_OR_CHECKPOINT --input FILE --output FILE"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiment.errors import run_main
from experiment.predict import predict

if __name__ == "__main__":
    sys.exit(run_main(predict, sys.argv[1:]))
