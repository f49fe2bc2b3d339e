"""Which run folder a command works in: a new one, that of a resumed run, or the one that the first process chose."""

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from .console import say
from .errors import UserError
from .processes.launcher import ENVIRONMENT_VARIABLE, num_launched_processes, process_rank
from .run_folder import RunFolder

_RUN_DIR_NEEDED = "several processes of one launcher need --run_dir, so that all of them know the run folder"


@contextlib.contextmanager
def open_run(
    run_dir: str | None, resume: str | None, name: str, config: dict[str, Any]
) -> Iterator[tuple[RunFolder, Path | None]]:
    """Holds the run folder for this process; yields it and the checkpoint to continue from (None: from the start).

    If the run fails before its first step, a new folder is removed.

    Args:
        run_dir: ``--run_dir``.
        resume: ``--resume``: a run folder, a checkpoint, ``auto``, or None.
        name: name of the first configuration file.
        config: the configuration, plain values.

    Raises:
        UserError: ``resume`` names no run, or ``run_dir`` holds another one or is in use.
    """
    root = Path(run_dir) if run_dir else None
    if process_rank() > 0:
        yield _choice_of_first_process(root, resume)
        return
    launched = num_launched_processes() > 1
    if launched and root is None:
        raise UserError(_RUN_DIR_NEEDED)
    if resume == "auto":
        root, resume = _newest_or_new(root, name, config, below=not launched)
    folder, checkpoint = _choose(root, name, resume)
    is_new, before = not folder.exists(), folder.entries()
    folder.lock()
    try:
        if resume is not None and checkpoint is None:
            say(f"{folder.path} has no checkpoint yet: starting from the beginning")
        if is_new:
            folder.write_config(config)
        # Those processes that Lightning starts for the other devices inherit it.
        os.environ[ENVIRONMENT_VARIABLE] = json.dumps([str(folder.path), str(checkpoint) if checkpoint else None])
        yield folder, checkpoint
    except BaseException:
        if is_new:
            folder.discard_if_unused(before)
        raise
    finally:
        folder.unlock()
        os.environ.pop(ENVIRONMENT_VARIABLE, None)  # another run in this process chooses anew


def _choice_of_first_process(root: Path | None, resume: str | None) -> tuple[RunFolder, Path | None]:
    """What the other processes take, without looking or locking themselves.

    Lightning's own processes inherit it. Those of another launcher know ``--run_dir``: a checkpoint in it can't be of
    this run, as training starts only when all processes are there.
    """
    if handed_down := os.environ.get(ENVIRONMENT_VARIABLE):
        folder, checkpoint = json.loads(handed_down)
        return RunFolder(Path(folder)), Path(checkpoint) if checkpoint else None
    if root is None:
        raise UserError(_RUN_DIR_NEEDED)
    run = RunFolder(root)
    if resume is not None and resume != "auto":
        return run, run_and_checkpoint(resume)[1]
    return run, run.last if resume == "auto" and run.last.is_file() else None


def _newest_or_new(root: Path | None, name: str, config: dict[str, Any], below: bool) -> tuple[Path | None, str | None]:
    """What ``--resume auto`` makes of ``--run_dir`` and ``--resume``: the newest unfinished run of this configuration.

    It is looked for in ``--run_dir`` and, if ``below``, below it; without one, in ``runs/<name>/``. Else a new run.
    """
    parent = root if root is not None else Path("runs") / name
    folders = [parent, *(parent.glob("*/") if below else ())] if parent.is_dir() else []
    unfinished = [run for run in map(RunFolder, folders) if run.exists() and not (run.is_finished() or run.is_locked())]
    same = [run for run in unfinished if run.has_config(config)]
    if same:
        newest = max(same, key=lambda run: run.config_file.stat().st_mtime)
        say(f"resuming {newest.path}")
        return None, str(newest.path)
    say("no unfinished run of this configuration: starting a new one")
    return _new_below(root) if root is not None and RunFolder(root).exists() else root, None


def _choose(root: Path | None, name: str, resume: str | None) -> tuple[RunFolder, Path | None]:
    folder, checkpoint = run_and_checkpoint(resume) if resume is not None else (None, None)
    if folder is not None and (root is None or root.resolve() == folder.path.resolve()):
        return folder, checkpoint
    if root is None:
        return RunFolder(_new_below(Path("runs") / name)), checkpoint
    if root.exists() and not root.is_dir():
        raise UserError(f"--run_dir: {root} is a file")
    new = RunFolder(root)
    if new.exists():
        # Of two that start at once: "in use" says more than "holds a run".
        if new.is_locked():
            new.lock()
        raise UserError(f"--run_dir: {root} holds a run already; continue it with --resume {root} or name another")
    if there := new.written_over():
        raise UserError(f"--run_dir: {root} is no run folder and has {', '.join(there)} already: name another one")
    return new, checkpoint


def run_and_checkpoint(resume: str) -> tuple[RunFolder | None, Path | None]:
    """The run that ``--resume`` names (None for a checkpoint outside of any), and its checkpoint (None if it has none).

    Raises:
        UserError: it names neither a run folder nor a checkpoint.
    """
    path = Path(resume)
    if path.is_dir():
        folder = RunFolder(path)
        if not folder.exists():
            raise UserError(f"--resume: {path} is no run folder (it has no config.yaml)")
        if folder.is_of_lightning():
            raise UserError(
                f"--resume: {path} is a run of plain Lightning: name its checkpoint, and a configuration with -c"
            )
        return folder, folder.last if folder.last.is_file() else None
    if not path.is_file():
        raise UserError(f"--resume: no such run folder or checkpoint: {path}")
    folder = RunFolder(path.resolve().parent.parent)
    return (folder if folder.exists() and not folder.is_of_lightning() else None), path


def _new_below(parent: Path) -> Path:
    """A new folder named by the time; made at once, so that two runs that start in the same second get two."""
    parent.mkdir(parents=True, exist_ok=True)
    stem = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in count(1):
        path = parent / (stem if number == 1 else f"{stem}_{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            break
    return path
