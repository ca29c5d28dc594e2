"""What a run's checkpoints folder holds: every checkpoint with its size and what is wrong with it, and what crashes left behind."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from iccld.errors import CheckpointError
from iccld.training import checkpoint
from iccld.training.lock import lock_run


@dataclass(frozen=True)
class Entry:
    """One checkpoint on the disk."""

    path: Path
    stage: str
    iteration: int
    num_bytes: int
    saved_at: float
    """Seconds since the epoch."""
    is_best: bool
    """Whether a later checkpoint of its stage names it as the best so far."""
    problem: str | None
    """What is wrong with it, None for a whole one."""


@dataclass(frozen=True)
class Inventory:
    """Checkpoints in the order of stages and iterations, and folders that a killed save or a damaged checkpoint left."""

    entries: list[Entry]
    leftovers: list[Path]

    @property
    def broken(self) -> list[Entry]:
        """The checkpoints that cannot be loaded."""
        return [entry for entry in self.entries if entry.problem is not None]


def take_inventory(run: Path, read_all: bool = True) -> Inventory:
    """Look at every checkpoint of a run; without `read_all` at names and sizes only.  CheckpointError when there is none."""
    if not (run / "checkpoints").is_dir():
        raise CheckpointError(f"{run} is not a run: it holds no checkpoints folder")
    stages = sorted((entry for entry in (run / "checkpoints").iterdir() if entry.is_dir()), key=lambda d: (checkpoint.order_of(d), d.name))
    entries = [entry for stage in stages for entry in _entries(stage, read_all)]
    if not entries:
        raise CheckpointError(f"{run} has no checkpoint; train it first, or give another run")
    prefixes = (checkpoint.TEMPORARY_PREFIX, checkpoint.DAMAGED_PREFIX)
    leftovers = [path for stage in stages for path in sorted(stage.iterdir()) if path.is_dir() and path.name.startswith(prefixes)]
    return Inventory(entries, leftovers)


def prune_run(run: Path, keep_last: int) -> list[Path]:
    """Remove all but each stage's newest `keep_last` whole checkpoints and its best, and whatever crashes left; returns what went.

    CheckpointError when the run is in use, or a stage has no whole checkpoint: the damaged ones may still be worth a look.
    """
    before = take_inventory(run)  # says first whether this is a run: the lock would make its folder
    removed: list[Path] = []
    with lock_run(run):
        before = take_inventory(run)
        for stage in dict.fromkeys(entry.stage for entry in before.entries):
            mine = [entry for entry in before.entries if entry.stage == stage]
            whole = [entry for entry in mine if entry.problem is None]
            if not whole:
                raise CheckpointError(
                    f"{mine[0].path.parent} has no whole checkpoint left, so nothing of it was removed ({mine[-1].problem})"
                )
            kept = {entry.path for entry in whole[-keep_last:]} | {entry.path for entry in whole if entry.is_best}
            for entry in mine:
                if entry.path not in kept:
                    _remove(entry.path)
                    removed.append(entry.path)
        for path in before.leftovers:
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def _entries(stage: Path, read_all: bool) -> list[Entry]:
    best = _best(stage)
    return [_entry(stage, iteration, iteration == best, read_all) for iteration in checkpoint.iterations(stage)]


def _entry(stage: Path, iteration: int, is_best: bool, read_all: bool) -> Entry:
    path = stage / f"{iteration:08d}"
    problem = None
    try:
        checkpoint.verify(path, read_all)
    except CheckpointError as error:
        problem = str(error).removeprefix(f"{path}: ")
    num_bytes = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return Entry(path, stage.name, iteration, num_bytes, path.stat().st_mtime, is_best, problem)


def _best(stage: Path) -> int | None:
    """The best iteration so far, as the newest readable checkpoint tells it."""
    for iteration in reversed(checkpoint.iterations(stage)):
        try:
            best = json.loads((stage / f"{iteration:08d}" / checkpoint.STATE).read_bytes())["progress"]["best"]
            return None if best is None else int(best["iteration"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: an older one may tell
    return None


def _remove(path: Path) -> None:
    """Renamed first: a crash half way leaves a leftover, never half a checkpoint under a valid name."""
    doomed = path.with_name(f"{checkpoint.TEMPORARY_PREFIX}removed-{path.name}-{os.getpid()}")
    os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)
