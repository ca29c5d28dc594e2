"""The page of a run that is being trained: written again when there is something new, until the run is finished or its training ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from iccld.errors import CheckpointError
from iccld.progress import duration, say
from iccld.report.page import Watched, write_report
from iccld.report.run import Run, mapping, number, read_run
from iccld.training.lock import is_locked

RECENT = 20
"""Lines of metrics.jsonl over which the pace is measured."""
WATCHED_FILES = ("config.yaml", "metrics.jsonl", "summary.json", "pictures/index.json")


def watch(run: Path, every: int, pause: Callable[[float], None] = time.sleep) -> int:
    """Write report.html of a run every `every` seconds while a process trains it, then once more; returns the exit code.

    0 when the run is finished; 4 when its training ended before, which is said.  The page loads itself again in the browser until then.
    Raises CheckpointError when the folder is no run.
    """
    seen: object = None
    print((run / "report.html").resolve(), flush=True)
    while is_locked(run):
        state = _state(run)
        if state != seen:
            record = _record(run)
            if record is not None:
                write_report(run, Watched(every, progress_words(record)))
                seen = state
        pause(every)
    write_report(run)
    if read_run(run).is_complete:
        return 0
    say(f"warning: {run} is not finished, and nobody trains it; go on with iccld adapt --config {run / 'config.yaml'} --resume auto")
    return CheckpointError.exit_code


def _state(run: Path) -> tuple[object, ...]:
    """Changes when one of the files that the page tells of does."""
    found: list[object] = []
    for name in WATCHED_FILES:
        try:
            status = os.stat(run / name)
            found.append((status.st_mtime_ns, status.st_size))
        except OSError:
            found.append(None)
    return tuple(found)


def _record(run: Path) -> Run | None:
    """The run, None while its training has not written a configuration yet."""
    return read_run(run) if (run / "config.yaml").is_file() else None


def progress_words(run: Run) -> str:
    """Where training is, and about how long it still takes at the pace of the last lines; scoring comes on top."""
    planned = planned_iterations(run)
    done = {stage.name: len(stage.training) and int(stage.training[-1]["iteration"]) for stage in run.stages}
    current = next((name for name in planned if done.get(name, 0) < planned[name] and name not in _finished(run)), None)
    if current is None:
        return "Being trained now; every stage has had its iterations, and is scored."
    words = f"Being trained now: {done.get(current, 0):,} of {planned[current]:,} iterations of stage {current}"
    left = seconds_left(run, planned, done)
    return f"{words}, about {duration(left)} of training left." if left is not None else f"{words}."


def planned_iterations(run: Run) -> dict[str, int]:
    """Stage -> iterations, as the configuration has them, in its order; stages without any are left out."""
    stages = {str(name): number(mapping(part).get("iterations")) for name, part in mapping(run.config.get("stages")).items()}
    return {name: int(count) for name, count in stages.items() if count}


def seconds_left(run: Run, planned: dict[str, int], done: dict[str, int]) -> float | None:
    """Of training, each stage at its own latest pace, or at the latest one of all where it has none; None before there is one."""
    paces = {stage.name: pace for stage in run.stages if (pace := _pace(stage.training)) is not None}
    if not paces:
        return None
    latest = list(paces.values())[-1]
    finished = _finished(run)
    return sum((count - done.get(name, 0)) * paces.get(name, latest) for name, count in planned.items() if name not in finished)


def _finished(run: Run) -> set[str]:
    return {stage.name for stage in run.stages if stage.summary}


def _pace(training: list[dict[str, object]]) -> float | None:
    """Seconds an iteration over the last lines."""
    points = [(number(line.get("iteration")), number(line.get("time"))) for line in training[-RECENT:]]
    known = [(iteration, seconds) for iteration, seconds in points if iteration is not None and seconds is not None]
    if not known:
        return None
    (start, began), (end, ended) = known[0] if len(known) > 1 else (0.0, 0.0), known[-1]
    return (ended - began) / (end - start) if end > start and ended > began else None
