import pytest


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    """Every test decodes into a cache of its own."""
    folder = tmp_path / "cache_home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
