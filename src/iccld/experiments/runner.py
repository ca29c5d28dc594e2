"""Train the units of an experiment, each in a process of its own.

A process of its own gives memory back when it ends, has a peak of its own, and takes nothing along when it dies.  What is finished is
skipped, what was begun goes on, what fails is told and does not stop the others.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from iccld.errors import Preempted
from iccld.experiments.units import Unit, costs, is_finished, seconds_left, share_done
from iccld.progress import duration, say
from iccld.training.signals import StopRequest, stop_on_signals

POLL_SECONDS = 0.2
SPEAK_SECONDS = 60.0
"""Between two lines of progress."""

PATIENCE_SECONDS = 20.0
"""How long a child may take to end once nobody waits for its last step any more."""

PR_SET_PDEATHSIG = 1


def run_units(units: Sequence[Unit], out: Path, command: Sequence[str] = (sys.executable, "-m", "iccld")) -> dict[str, str]:
    """Train what is not finished, in order; returns the name of each unit that failed with the reason, in one line.

    Configurations go to OUT/configs, what the processes say to OUT/logs.  A stop from outside (SIGTERM, Ctrl-C) is handed on: the run at
    hand saves itself, then Preempted is raised.
    """
    failures: dict[str, str] = {}
    for name in ("configs", "logs"):
        (out / name).mkdir(parents=True, exist_ok=True)
    watch = _Watch(units)
    with stop_on_signals() as stop:
        for position, unit in enumerate(units, start=1):
            if is_finished(unit):
                continue
            if unit.needs in failures:
                failures[unit.name] = f"needs {unit.needs}, which failed"
                continue
            say(f"[{position}/{len(units)}] {unit.title}{watch.left()}")
            failed = _train(unit, out, command, stop, watch)
            if failed is not None:
                failures[unit.name] = failed
                say(f"[{position}/{len(units)}] {unit.title}: failed, {failed}; the others go on")
    return failures


class _Watch:
    """Progress over the whole plan, as lines at most every `SPEAK_SECONDS`."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self.units = units
        self.cost = costs(units)
        self.at_start = {unit.name: share_done(unit) for unit in units}
        self.started = self.spoke = time.monotonic()

    def left(self) -> str:
        """`, about 12m05s left` over all units, as far as it is known."""
        elapsed = time.monotonic() - self.started
        seconds = seconds_left(self.cost, self.at_start, {unit.name: share_done(unit) for unit in self.units}, elapsed)
        return "" if seconds is None else f", about {duration(seconds)} left"

    def speak(self, unit: Unit) -> None:
        """Say where the unit is, if nothing was said for a while."""
        now = time.monotonic()
        if now - self.spoke >= SPEAK_SECONDS:
            self.spoke = now
            say(f"  {unit.title}: {share_done(unit):.0%}, {duration(now - self.started)} elapsed{self.left()}")


def _train(unit: Unit, out: Path, command: Sequence[str], stop: StopRequest, watch: _Watch) -> str | None:
    """Train one unit in a child; None when it finished, otherwise why not.  Preempted when it was stopped from outside."""
    config, log = out / "configs" / f"{unit.name}.yaml", out / "logs" / f"{unit.name}.log"
    config.write_text(unit.config, encoding="utf-8")
    begin = log.stat().st_size if log.exists() else 0
    words = [*command, "adapt", "--config", str(config), "--resume", "auto", "--no_estimate"]
    with log.open("a", encoding="utf-8") as file:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=_end_with_parent)
        try:
            code = _wait(child, unit, stop, watch)
        finally:
            _end(child)
    if stop or code == Preempted.exit_code:
        raise Preempted(f"stopped by {stop.name or 'a signal to the run'} during {unit.title}, saved; the same command goes on")
    if code == 0 and is_finished(unit):
        return None
    return _reason(code, log, begin)


def _wait(child: subprocess.Popen[bytes], unit: Unit, stop: StopRequest, watch: _Watch) -> int:
    is_told = False
    while True:
        try:
            return child.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            watch.speak(unit)
        if stop and not is_told:
            is_told = True
            child.send_signal(signal.SIGTERM)  # after Ctrl-C the child has had a SIGINT already, and takes no notice of this one


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave no child behind, whatever ends the wait."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _end_with_parent() -> None:
    """In the child: SIGTERM when the parent dies, even by SIGKILL, so that no run goes on unseen and holds its lock (Linux alone)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _reason(code: int, log: Path, begin: int) -> str:
    """The child's last error line, or else how it ended."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line for line in file.read().decode("utf-8", errors="replace").splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"killed by {name}" + (", as a machine out of memory does" if name == "SIGKILL" else "") + f" ({log})"
    if told:
        return f"{told[-1]} (exit code {code})"
    last = f": {lines[-1].strip()}" if lines else ""
    return f"exit code {code}{last} ({os.fspath(log)})"
