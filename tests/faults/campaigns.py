"""Campaigns against a training in a process of its own, which is forked many times and so must never have run a backward pass.

    python campaigns.py kill COUNT FOLDER      SIGKILL at random moments of saves, each followed by a resume
    python campaigns.py signal COUNT FOLDER    SIGTERM, SIGUSR1 and SIGINT at random moments, each followed by a resume

The last line of the output is the result as JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from iccld.errors import Preempted
from iccld.training import checkpoint
from iccld.training.signals import STOP_SIGNALS, stop_on_signals

STAGES = ("source", "step1")
ITERATIONS = 60
"""Of each stage: a run takes many kills before it is finished, and another one begins."""


def load_toy() -> ModuleType:
    """The toy method of the training tests: two optimisers, dropout, statistics, an average, state of its own."""
    path = Path(__file__).parents[1] / "training" / "conftest.py"
    spec = importlib.util.spec_from_file_location("toy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy"] = module
    spec.loader.exec_module(module)
    return module


TOY = load_toy()


def train(folder: Path, report: Callable[[str], None], save_every: int) -> None:
    """Train or go on; `report` gets a line before each step."""
    run = TOY.Toy(folder, iterations=ITERATIONS, keep_last=3)
    run.on_step = lambda stage, iteration: report(f"step {stage} {iteration}")
    with stop_on_signals():
        run.run(resume=True, checkpoint_every=save_every, evaluate_every=20)


def digest(folder: Path) -> str:
    """Of the tensors that both stages ended with."""
    paths = [checkpoint.stage_directory(folder, stage) / f"{ITERATIONS:08d}" / name for stage in STAGES for name in checkpoint.TENSOR_FILES]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def newest(folder: Path) -> tuple[str, int]:
    """(stage, iteration) of the newest checkpoint; every visible one has to be whole."""
    found = (STAGES[0], 0)
    for stage in STAGES:
        directory = checkpoint.stage_directory(folder, stage)
        for iteration in checkpoint.iterations(directory):
            checkpoint.verify(directory / f"{iteration:08d}")
            found = (stage, iteration)
    return found


def position(stage: str, iteration: int) -> int:
    """Finished iterations of the whole run."""
    return STAGES.index(stage) * ITERATIONS + iteration


def start(folder: Path, save_every: int, saves: bool) -> tuple[int, int]:
    """Fork a training; returns its process and the pipe on which it reports steps, and with `saves` every save's two ends."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)

    def report(text: str) -> None:
        os.write(writing, f"{text}\n".encode())

    if saves:
        save = checkpoint.save

        def reported(directory: Path, iteration: int, *arguments: Any, **options: Any) -> Path:
            report(f"begin {directory.name} {iteration}")
            path = save(directory, iteration, *arguments, **options)
            report(f"end {directory.name} {iteration}")
            return path

        checkpoint.save = reported
    code = 1
    with contextlib.suppress(Preempted):
        code = 75
        train(folder, report, save_every)
        code = 0
    os._exit(code)


def wait_for(reading: int, lines: list[str], kind: str, count: int) -> bool:
    """Read the pipe until `count` lines of a kind are there; False when it ended before."""
    text = b""
    while sum(line.startswith(kind) for line in lines) < count:
        part = os.read(reading, 4096)
        if not part:
            return False
        *whole, text = (text + part).split(b"\n")
        lines += [line.decode() for line in whole]
    return True


def drain(reading: int, lines: list[str]) -> None:
    """Read what the ended process had written."""
    wait_for(reading, lines, "never", 1)
    os.close(reading)


def straight(folder: Path) -> str:
    """The digest of the uninterrupted run."""
    child, reading = start(folder, 10, saves=False)
    drain(reading, [])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return digest(folder)


def last(lines: list[str], kind: str) -> int:
    """Position of the last line of a kind, -1 without one."""
    found = [line.split() for line in lines if line.startswith(kind)]
    return position(found[-1][1], int(found[-1][2])) if found else -1


def kill(count: int, folder: Path) -> dict[str, int]:
    """Kill `count` times while a checkpoint is being written."""
    generator = random.Random(0)
    expected, typical = straight(folder / "straight"), 0.02
    told = {"kills": 0, "resumed": 0, "lost_saves": 0, "finished_runs": 0, "wrong_ends": 0, "kills_between": 0}
    number, is_owed = 0, False  # a kill whose resume has not shown itself yet
    while told["kills"] < count or is_owed:
        run = folder / f"run{number}"
        before = position(*newest(run)) if run.exists() else 0
        child, reading = start(run, 1, saves=True)
        lines: list[str] = []
        is_alive = wait_for(reading, lines, "begin", generator.randint(1, 3))
        if is_alive and told["kills"] < count:
            time.sleep(generator.uniform(0, 1.2 * typical))
        began = time.monotonic()
        if told["kills"] < count:
            os.kill(child, signal.SIGKILL)
        drain(reading, lines)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        typical = 0.9 * typical + 0.1 * min(time.monotonic() - began + typical, 0.05)
        first = next((line.split() for line in lines if line.startswith("step")), None)
        if is_owed:  # the run goes on exactly behind the newest checkpoint
            told["resumed"] += (position(first[1], int(first[2])) == before) if first else (code == 0)
            is_owed = False
        if code == 0:
            told["finished_runs"] += 1
            told["wrong_ends"] += digest(run) != expected
            number += 1
            continue
        saved = position(*newest(run))
        told["lost_saves"] += saved < last(lines, "end")
        if last(lines, "begin") > last(lines, "end"):
            told["kills"] += 1
            is_owed = True
        else:
            told["kills_between"] += 1
    return told


def stop(count: int, folder: Path) -> dict[str, int]:
    """Ask `count` times to stop, sometimes twice; every time the step at hand must be saved."""
    generator = random.Random(1)
    expected = straight(folder / "straight")
    told = {"signals": 0, "saved": 0, "most_steps_lost": 0, "finished_runs": 0, "wrong_ends": 0, "other_exits": 0}
    number = 0
    while told["signals"] < count:
        run = folder / f"run{number}"
        child, reading = start(run, 1000, saves=False)
        lines: list[str] = []
        if wait_for(reading, lines, "step", generator.randint(1, 6)):
            time.sleep(generator.uniform(0, 0.01))
            os.kill(child, generator.choice(STOP_SIGNALS))
            if generator.random() < 0.3:
                os.kill(child, generator.choice((signal.SIGTERM, signal.SIGUSR1)))
        drain(reading, lines)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            told["finished_runs"] += 1
            told["wrong_ends"] += digest(run) != expected
            number += 1
        elif code == 75:
            told["signals"] += 1
            lost = last(lines, "step") + 1 - position(*newest(run))
            told["saved"] += lost <= 1
            told["most_steps_lost"] = max(told["most_steps_lost"], lost)
        else:
            told["other_exits"] += 1
            if told["other_exits"] > 3:
                break
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    campaign = {"kill": kill, "signal": stop}[sys.argv[1]]
    print(json.dumps(campaign(int(sys.argv[2]), Path(sys.argv[3]))))
