"""Measures ours against peers: python scripts/benchmark.py NAME|all [--json FILE] [--pictures FOLDER]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiment.main import run

if __name__ == "__main__":
    sys.exit(run("benchmark", sys.argv[1:]))
