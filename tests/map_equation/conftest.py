from pathlib import Path

import pytest

from tests.conftest import SHARED

GRAPHS = SHARED / "graphs"


@pytest.fixture(scope="session")
def graphs() -> Path:
    if not GRAPHS.is_dir():
        pytest.skip("no ../shared/data/graphs")
    return GRAPHS
