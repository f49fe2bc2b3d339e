"""The hub when it answers, when it does not, and when it lacks what was requested."""

import time

import datasets
import huggingface_hub
import pytest

from readers.errors import DataError
from readers.hub import load_from_hub, parquet_folder


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers: the arguments of ``load_dataset``, and the errors that it raises in turn."""
    asked, errors = [], []

    def load(*names, **options):
        assert not datasets.config.HF_HUB_OFFLINE
        asked.append((names, options))
        if errors:
            raise errors.pop(0)
        return "splits"

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked, errors


SCRIPT = "Dataset scripts are no longer supported, but found ptb_text_only.py"


@pytest.mark.parametrize("config", [None, "penn_treebank"])
def test_scripts_are_read_from_the_parquet_branch(hub, config):
    asked, errors = hub
    errors.append(RuntimeError(SCRIPT))
    assert load_from_hub("ptb-text-only/ptb_text_only", config) == "splits"
    name = "ptb-text-only/ptb_text_only"
    assert asked == [((name, config), {}), ((name,), {"data_dir": config, "revision": "refs/convert/parquet"})]


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ([OSError(28, "No space left on device")], "hub answers, but .* a/b.*No space left on device"),
        ([RuntimeError("something else")], "something else"),
        (
            [datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub.")],
            "gives no access to a/b: .*log in",
        ),
        ([RuntimeError(SCRIPT), OSError("no such branch")], "no such branch"),
        (
            [datasets.exceptions.DatasetNotFoundError("it doesn't exist")],
            r"has no data set a/b: correct --data\.hub_id",
        ),
        (
            [ValueError("Config name is missing.\nPick one of: ['x', 'y']")],
            r"choose .* --data\.hub_config\. .*'x', 'y'",
        ),
        ([ValueError("BuilderConfig 'z' not found.")], r"a/b: choose a configuration with --data\.hub_config"),
    ],
    ids=str,
)
def test_errors_are_reported_in_one_line(hub, raised, message):
    hub[1].extend(raised)
    with pytest.raises(DataError, match=message) as caught:
        load_from_hub("a/b")
    assert "\n" not in str(caught.value)
    assert not hub[1]


def test_the_cause_behind_a_message_that_says_nothing(hub):
    error = datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = ValueError("column 3 is odd")
    hub[1].append(error)
    with pytest.raises(DataError, match="Reason: column 3 is odd"):
        load_from_hub("a/b")


def test_an_unknown_data_set_is_not_taken_for_a_silent_hub(hub, monkeypatch):
    def unknown(*_, **__):
        raise huggingface_hub.errors.RepositoryNotFoundError.__new__(huggingface_hub.errors.RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unknown)
    assert load_from_hub("a/b") == "splits"  # asked online, for the library's own message


def test_a_hub_out_of_reach_is_reported_at_once(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "nothing")
    before = time.monotonic()
    message = r"hub cannot be reached for uoft-cs/cifar10: connect .*--data.source=sample .*Reason: no network$"
    with pytest.raises(DataError, match=message) as caught:
        load_from_hub("uoft-cs/cifar10")
    assert time.monotonic() - before < 5
    assert "\n" not in str(caught.value)
    assert not datasets.config.HF_HUB_OFFLINE


@pytest.mark.parametrize("name", ["", "a/b/c", "two words"])
def test_what_is_no_name_is_said_without_a_network(name):
    with pytest.raises(DataError, match=rf"'{name}' is no data set's name .*--data\.hub_id"):
        load_from_hub(name)


def test_a_folder_with_configurations_of_its_own(tmp_path):
    """As cloned from the hub: the README lists the configurations."""
    header = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: files/{name}.parquet\n" for name in "ab"
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{header}---\n")
    (tmp_path / "files").mkdir()
    for name in "ab":
        datasets.Dataset.from_dict({"text": [name]}).to_parquet(tmp_path / "files" / f"{name}.parquet")
    with parquet_folder(tmp_path, "b") as splits:
        assert splits["train"]["text"][:] == ["b"]
    for config in (None, "c"):
        with (
            pytest.raises(DataError, match=r"choose a configuration with --data\.hub_config"),
            parquet_folder(tmp_path, config),
        ):
            pass
