from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(cache_home: Path) -> None:
    """Every test decodes into a cache of its own."""
