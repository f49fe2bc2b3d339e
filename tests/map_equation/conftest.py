from pathlib import Path

import pytest

GRAPHS = Path(__file__).resolve().parents[3] / "shared" / "data" / "graphs"


@pytest.fixture(scope="session")
def graphs() -> Path:
    if not GRAPHS.is_dir():
        pytest.skip("the shared graphs are not here")
    return GRAPHS
