"""Paths that begin with ``~`` or ``~name``, wherever a user may give one."""

import pwd

import pytest

from datamodules import (
    DataError,
    EdgeListDataModule,
    ImageDataModule,
    LogicalInferenceDataModule,
    TextDataModule,
    TripleDataModule,
    WordVectorDataModule,
)
from datamodules.cache import ArrayCache
from readers.graphs.state_networks import read_state_network

NOWHERE = "~no-such-user/data"


@pytest.mark.parametrize(
    "read",
    [
        lambda: ImageDataModule(NOWHERE).setup(),
        lambda: EdgeListDataModule(NOWHERE).setup(),
        lambda: LogicalInferenceDataModule(NOWHERE).setup(),
        lambda: TextDataModule(NOWHERE).setup(),
        lambda: TextDataModule("sample", treebank=NOWHERE, sample_train_size=40, sample_test_size=40).setup(),
        lambda: TripleDataModule(NOWHERE).setup(),
        lambda: TripleDataModule("sample", schema_file=NOWHERE).setup(),
        lambda: WordVectorDataModule(NOWHERE).setup(),
        lambda: read_state_network(NOWHERE),
    ],
)
def test_an_unknown_user_gets_one_line(read):
    with pytest.raises(DataError, match=r"^~no-such-user/data: there is no home folder ~no-such-user; give the full"):
        read()


def test_an_unknown_user_in_labels_file(tmp_path):
    (tmp_path / "graph.txt").write_text("1 2\n")
    with pytest.raises(DataError, match="there is no home folder ~no-such-user"):
        EdgeListDataModule(str(tmp_path / "graph.txt"), labels_file=NOWHERE).setup()


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "graph.txt").write_text("1 2\n")
    assert EdgeListDataModule("~/graph.txt").num_nodes == 2


def test_a_cache_without_a_home_folder_names_the_way_out(monkeypatch):
    def unknown(_):
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(DataError, match="there is no home folder for the cache: set XDG_CACHE_HOME"):
        ArrayCache("things", 1, {})
