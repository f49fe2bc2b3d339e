"""The run folder: where a run keeps its configuration, metrics, checkpoints, pictures and summary."""

import contextlib
import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from readers.files import replacing

from .errors import UserError


class RunFolder:
    """A folder ``runs/<name>/<time>`` with ``config.yaml``, ``metrics.csv``, ``checkpoints/``, ``pictures/``,
    ``summary.json`` once the run is finished, and ``wandb/`` when that is on.

    Only one process at a time may write to it: the lock is the kernel's and ends with the process, however that ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """For another process (``ddp_spawn``): it doesn't hold the lock."""
        return {**vars(self), "_lock": None}

    @property
    def config_file(self) -> Path:
        """The configuration; it reruns the run."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """One row per logging call."""
        return self.path / "metrics.csv"

    @property
    def summary_file(self) -> Path:
        """Test metrics, configuration, versions, seconds and data; exists once the run is finished."""
        return self.path / "summary.json"

    @property
    def pictures(self) -> Path:
        """Where the pictures are."""
        return self.path / "pictures"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The latest checkpoint, from which a resumed run continues."""
        return self.path / "checkpoints" / "last.ckpt"

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.is_file()

    def is_of_lightning(self) -> bool:
        """Whether ``config.yaml`` is that of a LightningCLI, whose runs (``lightning_logs/version_0``) look alike."""
        with open(self.config_file, errors="replace") as file:
            return file.readline().startswith(("# pytorch_lightning==", "# lightning"))

    def is_finished(self) -> bool:
        """Whether the run has been tested, and has not been continued since."""
        return self.summary_file.is_file() and not self._continued.is_file()

    @property
    def _continued(self) -> Path:
        """There while a finished run is continued: its summary stays until there is a new one."""
        return self.path / ".continued"

    def begin(self) -> None:
        """The run is under way, perhaps again."""
        if self.summary_file.is_file():
            self._continued.touch()

    def lock(self) -> None:
        """Locks the folder for this process.

        Raises:
            UserError: another process has locked it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "a")  # noqa: SIM115  open as long as it is locked
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"run folder in use by another process: {self.path}; wait for it or name another --run_dir"
            ) from None

    def unlock(self) -> None:
        """Releases the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def entries(self) -> set[str]:
        """The names in the folder."""
        return {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()

    def written_over(self) -> list[str]:
        """Of what is in the folder, what a new run would write over."""
        return sorted(self.entries() & {"metrics.csv", "summary.json", "checkpoints", "pictures", "wandb"})

    def discard_if_unused(self, before: set[str]) -> None:
        """Removes what a run that failed before its first step has left.

        Args:
            before: the names that were in the folder before the run; they stay.
        """
        left = self.entries() - before
        if "config.yaml" not in left or not left <= {"config.yaml", ".lock", "wandb"}:
            return
        for path in map(self.path.joinpath, left):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not before:
            with contextlib.suppress(OSError):  # it is where the process works
                self.path.rmdir()

    def is_locked(self) -> bool:
        """Whether another process has locked the folder."""
        try:
            self.lock()
        except UserError:
            return True
        self.unlock()
        return False

    def has_config(self, config: dict[str, Any]) -> bool:
        """Whether this is a run of that configuration; an unreadable ``config.yaml`` never is."""
        try:
            return yaml.safe_load(self.config_file.read_text()) == config
        except (yaml.YAMLError, UnicodeDecodeError):
            return False

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes ``config.yaml``, with a line about its use."""
        header = "# Reruns this run: python scripts/train.py -c <this file>\n"
        write_atomically(self.config_file, header + yaml.safe_dump(config, sort_keys=False))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes ``summary.json``, which marks the run as finished."""
        write_atomically(self.summary_file, json.dumps(summary, indent=2) + "\n")
        self._continued.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file completely or not at all.

    Raises:
        DataError: what is there is no file.
    """
    with replacing(path) as part:
        part.write_text(text)
