"""Progress of long jobs on stderr: a live bar with the time left on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0
"""Least time between two plain lines, in seconds; logs of batch jobs stay short."""

PLAIN_SHARE = 0.1
"""Least share of the work between two plain lines."""

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence (True) or restore (False) `progress` and `say`; errors are not affected."""
    global _quiet
    _quiet = quiet


def say(text: str) -> None:
    """Print one status line on stderr, unless quiet; above the live bar where there is one."""
    if not _quiet:
        print(text, file=sys.stderr, flush=True)


class Bar(Protocol):
    """What a job holds while it works."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more units as done; `note` (a loss, a file) is shown until the next one."""


class _SilentBar:
    def advance(self, steps: int = 1, note: str = "") -> None:
        return None


class _PlainBar:
    """Lines at most every `PLAIN_SECONDS`, and no closer than `PLAIN_SHARE` of the work."""

    def __init__(self, description: str, total: int) -> None:
        self.description = description
        self.total = total
        self.done = 0
        self.note = ""
        self.start = time.monotonic()
        self.printed_at = self.start
        self.printed_done = 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        self.note = note or self.note
        now = time.monotonic()
        far_enough = self.done - self.printed_done >= PLAIN_SHARE * self.total
        if far_enough and now - self.printed_at >= PLAIN_SECONDS and self.done < self.total:
            self.printed_at, self.printed_done = now, self.done
            say(self.line(now))

    def line(self, now: float) -> str:
        """The state as one line: count, rate, elapsed time, time left and note."""
        elapsed = now - self.start
        rate = self.done / elapsed if elapsed > 0 else 0.0
        parts = [f"{self.description}: {self.done}/{self.total}", f"{rate:.3g}/s", f"{duration(elapsed)} elapsed"]
        if 0 < self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate)} left" if rate > 0 else "time left unknown")
        return ", ".join([*parts, self.note] if self.note else parts)


class _LiveBar:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self.bar = bar
        self.task = task
        self.start = time.monotonic()
        self.done = 0
        self.note = ""

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        self.note = note or self.note
        self.bar.update(self.task, advance=steps, rate=f"{rate:.3g}/s", note=self.note)


def duration(seconds: float) -> str:
    """Seconds as `42s`, `3m05s` or `2h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


@contextmanager
def progress(description: str, total: int) -> Iterator[Bar]:
    """Show the progress of a job of `total` units for the length of the block.

    On a terminal a live bar with count, rate, elapsed time and time left; otherwise plain lines; nothing when quiet.
    """
    if _quiet:
        yield _SilentBar()
    elif sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            yield _LiveBar(bar, bar.add_task(description, total=total, rate="", note=""))
    else:
        plain = _PlainBar(description, total)
        yield plain
        say(plain.line(time.monotonic()))
