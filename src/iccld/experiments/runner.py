"""Train the units of an experiment, each in a process of its own, one or several at a time.

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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from iccld.errors import Preempted
from iccld.experiments.units import Unit, costs, is_finished, seconds_left, share_done, share_trained
from iccld.files import write_atomically
from iccld.machine import available_cores
from iccld.methods.common.view_labels import STORE
from iccld.progress import duration, say
from iccld.training.signals import StopRequest, stop_on_signals

POLL_SECONDS = 0.2
SPEAK_SECONDS = 60.0
"""Between two lines of progress."""

PATIENCE_SECONDS = 20.0
"""How long a child may take to end once nobody waits for its last step any more."""

PR_SET_PDEATHSIG = 1


def run_units(units: Sequence[Unit], out: Path, command: Sequence[str] = (sys.executable, "-m", "iccld"), jobs: int = 1) -> dict[str, str]:
    """Train what is not finished, in order, `jobs` at a time; returns the name of each unit that failed with the reason, in one line.

    Configurations go to OUT/configs, what the processes say to OUT/logs.  Of several at a time each computes with its share of the cores,
    and a unit waits for the one it needs.  A stop from outside (SIGTERM, Ctrl-C) is handed on: the runs at hand save themselves, then
    Preempted is raised.
    """
    for name in ("configs", "logs"):
        (out / name).mkdir(parents=True, exist_ok=True)
    with stop_on_signals() as stop:
        return _Queue(units, out, command, jobs, stop).run()


@dataclass
class _Child:
    """A unit's process, and where its words begin in the log."""

    unit: Unit
    process: subprocess.Popen[bytes]
    log: Path
    begin: int
    is_told: bool = False


class _Queue:
    """Units that wait, run, and have failed."""

    def __init__(self, units: Sequence[Unit], out: Path, command: Sequence[str], jobs: int, stop: StopRequest) -> None:
        self.units, self.out, self.command, self.jobs, self.stop = units, out, command, jobs, stop
        self.waiting = [unit for unit in units if not is_finished(unit)]
        self.running: list[_Child] = []
        self.failures: dict[str, str] = {}
        self.stopped: list[str] = []
        self.is_preempted = False
        self.watch = _Watch(units)

    def run(self) -> dict[str, str]:
        """Until nothing waits and nothing runs."""
        try:
            while self.waiting or self.running:
                while not self.stop and len(self.running) < self.jobs and (unit := self._next()) is not None:
                    self.running.append(self._start(unit))
                if self.running:
                    self._poll()
                if self.is_preempted or (self.stop and not self.running):
                    names = ", ".join(self.stopped) or "nothing"
                    raise Preempted(f"stopped by {self.stop.name or 'a signal to the run'} during {names}, saved; the same command goes on")
        finally:
            for child in self.running:
                _end(child.process)
        return self.failures

    def _next(self) -> Unit | None:
        """The first unit whose need is met, taken off the queue; those whose need failed fail with it."""
        for unit in self.waiting:
            if unit.needs in self.failures:
                self.failures[unit.name] = f"needs {unit.needs}, which failed"
        self.waiting = [unit for unit in self.waiting if unit.name not in self.failures]
        missing = {unit.name for unit in self.waiting} | {child.unit.name for child in self.running}
        ready = next((unit for unit in self.waiting if unit.needs not in missing), None)
        if ready is not None:
            self.waiting.remove(ready)
        return ready

    def _start(self, unit: Unit) -> _Child:
        say(f"{self._place(unit)}{self.watch.left()}")
        config, log = self.out / "configs" / f"{unit.name}.yaml", self.out / "logs" / f"{unit.name}.log"
        write_atomically(config, unit.config)
        begin = log.stat().st_size if log.exists() else 0
        words = [*self.command, "adapt", "--config", str(config), "--resume", "auto", "--no_estimate"]
        labels = os.environ.get(STORE) or (self.out / "labels").resolve()  # of several views: runs from one start make them once
        share = {"OMP_NUM_THREADS": str(max(1, available_cores() // self.jobs))} if self.jobs > 1 else {}
        with log.open("a", encoding="utf-8") as file:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **share, STORE: str(labels)},
                preexec_fn=_end_with_parent,
            )
        return _Child(unit, process, log, begin)

    def _poll(self) -> None:
        """Hand a stop on, wait a moment, and take note of what ended."""
        for child in self.running:
            if self.stop and not child.is_told:
                child.is_told = True
                # After Ctrl-C the child has had a SIGINT already, and takes no notice of this one.
                child.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.running[0].process.wait(POLL_SECONDS)
        self.watch.speak([child.unit for child in self.running])
        ended = [child for child in self.running if child.process.poll() is not None]
        self.running = [child for child in self.running if child not in ended]
        for child in ended:
            self._note(child)

    def _note(self, child: _Child) -> None:
        code, unit = child.process.returncode, child.unit
        if self.stop or code == Preempted.exit_code:
            self.stopped.append(unit.title)
            self.is_preempted = self.is_preempted or not self.stop  # a signal that reached the run alone ends the whole as well
            return
        if code == 0 and is_finished(unit):
            return
        self.failures[unit.name] = _reason(code, child.log, child.begin)
        say(f"{self._place(unit)}: failed, {self.failures[unit.name]}; the others go on")

    def _place(self, unit: Unit) -> str:
        return f"[{list(self.units).index(unit) + 1}/{len(self.units)}] {unit.title}"


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

    def speak(self, units: Sequence[Unit]) -> None:
        """Say where these units are, if nothing was said for a while."""
        now = time.monotonic()
        if now - self.spoke >= SPEAK_SECONDS:
            self.spoke = now
            shares = ", ".join(f"{unit.title}: {_progress(unit)}" for unit in units)
            say(f"  {shares}, {duration(now - self.started)} elapsed{self.left()}")


def _progress(unit: Unit) -> str:
    """`40%` of the training, or that it is over and the last stage is being scored, which of many denoising steps takes minutes."""
    share = share_trained(unit)
    return f"{share:.0%}" if share < 1 else "trained, scoring"


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
