"""Measures ours against peers: python scripts/benchmark.py NAME|all [--json FILE] [--pictures FOLDER]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiment.benchmark import benchmark
from experiment.errors import run_main

if __name__ == "__main__":
    sys.exit(run_main(benchmark, sys.argv[1:]))
