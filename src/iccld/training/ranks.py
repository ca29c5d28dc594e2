"""Started processes and the one that started them: errors come back typed, signals go forward."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType
from typing import TypeVar

from iccld import errors
from iccld.files import write_json

Result = TypeVar("Result")

LARGEST_ANSWER = 32 * 1024
"""Bytes that fit through the pipe on which a started process answers; with more it would wait for a reader that waits for it."""

FORWARDED = (signal.SIGTERM, signal.SIGUSR1)
"""Schedulers send these to the starting process alone; a terminal sends Ctrl-C to all of them by itself."""


def collect(start: Callable[[Path], Result]) -> Result:
    """Call `start` with a folder for its processes' errors; an IccldError in one of them is raised here, with its exit code."""
    with tempfile.TemporaryDirectory(prefix="iccld-ranks-") as name, _signals_forwarded():
        folder = Path(name)
        try:
            return start(folder)
        except Exception as error:
            told = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
            if not told:
                raise
            kind = getattr(errors, told[0]["error"], errors.IccldError)
            raise kind(told[0]["message"]) from error


def small(answer: Result) -> Result:
    """The answer of a started process as it is; ValueError, instead of processes that wait for each other, when it is too large."""
    size = len(ForkingPickler.dumps(answer))
    if size > LARGEST_ANSWER:
        raise ValueError(f"a started process answers with {size:,} bytes, {LARGEST_ANSWER:,} fit: write them to a file and return its path")
    return answer


@contextmanager
def reporting(folder: Path, rank: int) -> Iterator[None]:
    """Leave an IccldError of this process where `collect` finds it, then let it end the process."""
    try:
        yield
    except errors.IccldError as error:
        write_json(folder / f"{rank:06d}.json", {"error": type(error).__name__, "message": str(error)})
        raise


@contextmanager
def _signals_forwarded() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def forward(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    os.kill(child.pid, number)

    # Ctrl-C is left to the processes.  A handler, not SIG_IGN, which new processes would inherit.
    handlers = {**dict.fromkeys(FORWARDED, forward), signal.SIGINT: lambda number, frame: None}
    earlier = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
