"""The run folder: where one run keeps its configuration, metrics, checkpoints, pictures and summary."""

import fcntl
import json
import os
import shutil
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError

# Set by the first process for those that Lightning starts for the other devices.
_ENVIRONMENT_VARIABLE = "EXPERIMENT_RUN_FOLDER"


class RunFolder:
    """A folder ``runs/<name>/<time>`` with ``config.yaml``, ``metrics.csv``, ``checkpoints/``, ``pictures/``,
    ``summary.json`` once the run is finished, and ``wandb/`` when that is on.

    One process at a time may write to it: the lock is the kernel's, so it goes with the process however that ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Any = None

    @property
    def config_file(self) -> Path:
        """The configuration, which reruns the run."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """A row for each logging call."""
        return self.path / "metrics.csv"

    @property
    def summary_file(self) -> Path:
        """Test metrics, configuration, versions, seconds and data; there once the run is finished."""
        return self.path / "summary.json"

    @property
    def pictures(self) -> Path:
        """The folder of the pictures."""
        return self.path / "pictures"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The latest checkpoint, from which a resumed run goes on."""
        return self.path / "checkpoints" / "last.ckpt"

    def exists(self) -> bool:
        """Whether a run has begun here."""
        return self.config_file.is_file()

    def is_finished(self) -> bool:
        """Whether the run has been tested."""
        return self.summary_file.is_file()

    def lock(self) -> None:
        """Takes the folder for this process.

        Raises:
            UserError: if another process has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "a")  # noqa: SIM115  held open as long as the process lives
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"run folder in use by another process: {self.path}; wait for it or name another --run_dir"
            ) from None

    def unlock(self) -> None:
        """Lets go of the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def discard_if_unused(self) -> None:
        """Removes a folder in which nothing happened yet: a run that failed before its first step."""
        entries = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        if "config.yaml" in entries and entries <= {"config.yaml", ".lock", "wandb"}:
            shutil.rmtree(self.path)

    def is_locked(self) -> bool:
        """Whether another process has the folder."""
        try:
            self.lock()
        except UserError:
            return True
        self.unlock()
        return False

    def has_config(self, config: dict[str, Any]) -> bool:
        """Whether this is a run of that configuration; an unreadable file is of none."""
        try:
            return yaml.safe_load(self.config_file.read_text()) == config
        except (yaml.YAMLError, UnicodeDecodeError):
            return False

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes ``config.yaml``, with a line that says what it is for."""
        header = "# Reruns this run: python scripts/train.py -c <this file>\n"
        write_atomically(self.config_file, header + yaml.safe_dump(config, sort_keys=False))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes ``summary.json``: the run is finished."""
        write_atomically(self.summary_file, json.dumps(summary, indent=2) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def choose_run_folder(run_dir: Path | None, name: str, resume: str | None) -> tuple[RunFolder, Path | None]:
    """The folder of this invocation and the checkpoint to go on from (None: from the start).

    Args:
        run_dir: ``--run_dir``.
        name: name of the first configuration file.
        resume: ``--resume``: a run folder, a checkpoint, or None. (``auto`` is resolved before.)

    Raises:
        UserError: if ``resume`` names neither, or ``run_dir`` holds a run already.
    """
    if resume is None:
        return _new(run_dir, name), None
    folder, checkpoint = _resumed(Path(resume))
    if folder is None or (run_dir is not None and run_dir.resolve() != folder.path.resolve()):
        folder = _new(run_dir, name)
    return folder, checkpoint


def folder_of_other_rank(run_dir: Path | None, resume: str | None) -> tuple[RunFolder, Path | None]:
    """What a process other than the first one takes: the first one's choice, without looking or locking itself.

    Lightning's own processes inherit it; those of another launcher know ``run_dir``, whose checkpoint, if there is one,
    can't be of this run: training starts only when all processes are there.
    """
    if handed_down := os.environ.get(_ENVIRONMENT_VARIABLE):
        folder, checkpoint = json.loads(handed_down)
        return RunFolder(Path(folder)), Path(checkpoint) if checkpoint else None
    if run_dir is None:
        raise UserError("several processes of one launcher need --run_dir, so that all of them know the run folder")
    folder = RunFolder(run_dir)
    if resume not in (None, "auto"):
        return folder, _resumed(Path(resume))[1]
    return folder, folder.last if resume == "auto" and folder.last.is_file() else None


def hand_down(folder: RunFolder, checkpoint: Path | None) -> None:
    """Tells the processes that Lightning starts for the other devices what this one has chosen."""
    chosen = [str(folder.path), str(checkpoint) if checkpoint else None]
    os.environ[_ENVIRONMENT_VARIABLE] = json.dumps(chosen)


def forget_handed_down() -> None:
    """Takes back what ``hand_down`` said; another run in this process chooses anew."""
    os.environ.pop(_ENVIRONMENT_VARIABLE, None)


def resumed_config(resume: str) -> Path | None:
    """The configuration of the run that a folder or checkpoint belongs to; None for a checkpoint outside of a run."""
    folder, _ = _resumed(Path(resume))
    return folder.config_file if folder is not None else None


def _resumed(path: Path) -> tuple[RunFolder | None, Path | None]:
    if path.is_dir():
        folder = RunFolder(path)
        if not folder.exists():
            raise UserError(f"--resume: {path} is no run folder (it has no config.yaml)")
        return folder, folder.last if folder.last.is_file() else None
    if not path.is_file():
        raise UserError(f"--resume: no such run folder or checkpoint: {path}")
    folder = RunFolder(path.resolve().parent.parent)
    return (folder if folder.exists() else None), path


def _new(run_dir: Path | None, name: str) -> RunFolder:
    if run_dir is None:
        return new_below(Path("runs") / name)
    folder = RunFolder(run_dir)
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"--run_dir: {run_dir} is a file")
    if folder.exists():
        # Two that start at once: the one that is running says more than "holds a run".
        if folder.is_locked():
            folder.lock()
        raise UserError(f"--run_dir: {run_dir} holds a run already; go on with --resume {run_dir} or name another")
    return folder


def new_below(root: Path) -> RunFolder:
    """A new folder named by the time; made here, so that two that start in the same second get two."""
    stem = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    root.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = root / (stem if number == 1 else f"{stem}_{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return RunFolder(path)


def newest_unfinished(run_dir: Path | None, name: str, config: dict[str, Any], below: bool = True) -> RunFolder | None:
    """The newest unfinished run of this configuration: ``run_dir`` itself or below it, or in ``runs/<name>``.

    Args:
        run_dir: ``--run_dir``.
        name: name of the first configuration file.
        config: the configuration.
        below: look below ``run_dir`` too.
    """
    root = run_dir if run_dir is not None else Path("runs") / name
    candidates = [RunFolder(root), *(RunFolder(path) for path in root.glob("*/") if below)] if root.is_dir() else []
    open_runs = [run for run in candidates if run.exists() and not run.is_finished() and not run.is_locked()]
    same = [run for run in open_runs if run.has_config(config)]
    return max(same, key=lambda run: run.config_file.stat().st_mtime, default=None)
