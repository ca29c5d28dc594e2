"""Two processes of one thread each against one process of one thread with the same global batch: where the time of each goes.

    python benchmarks/two_processes.py [--recipe demo_scratch] [--iterations 100] [--rounds 3] [--before SRC]

Both train the recipe's stages source and step 1 with a global batch of 4 through the package's own loop, gloo between the two.  The first
iterations of a stage are left out.  Printed for each stage: milliseconds of the clock and of the processor an iteration, the processor's
split into reading, communication and the rest, and ratios: of the clock as it went, and of the processor's time, which other work on the
machine disturbs far less; on two idle cores both would agree but for what the ranks wait for each other.  The limit is what a process gains
that takes half the batch and talks to nobody: what an iteration costs whatever its batch, two processes both pay.  Last, how fast pictures
are read and decoded beside what the faster stage takes.  --before: `src` of another commit, measured in turns with this one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES = ("source", "step1")
WARM_UP = 10
"""Iterations of a stage that are not counted: the first ones read pictures for the first time and choose kernels."""

Row = dict[str, float]

KINDS = {"one process": (1, 4), "one process, half the batch": (1, 2), "two processes": (2, 4)}
"""Ranks and global batch."""


class Meter:
    """What one rank measures of one stage, in seconds: the clock, the main thread, the whole process, and parts of them."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.rows: dict[str, Row] = {}
        self._began: dict[str, tuple[dict[str, float], int]] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its processor time (of its thread) and clock time added up under `name`."""

        def wrapped(*arguments: Any, **options: Any) -> Any:
            clock, own = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                self.parts[f"{name} clock"] = self.parts.get(f"{name} clock", 0.0) + time.perf_counter() - clock
                self.parts[name] = self.parts.get(name, 0.0) + time.thread_time() - own
                self.parts[f"{name} calls"] = self.parts.get(f"{name} calls", 0.0) + 1

        return wrapped

    def _now(self) -> dict[str, float]:
        return {"clock": time.perf_counter(), "main": time.thread_time(), "process": time.process_time(), **self.parts}

    def finished(self, stage: str, iteration: int) -> None:
        """Called in the main thread after `iteration` steps of a stage."""
        assert threading.current_thread() is threading.main_thread()
        if iteration == WARM_UP:
            self._began[stage] = self._now(), iteration
        elif iteration > WARM_UP:
            before, first = self._began[stage]
            self.rows[stage] = {name: (value - before.get(name, 0.0)) / (iteration - first) for name, value in self._now().items()}


def rank(engine: Any, config: Any, folder: str) -> None:
    """The run on one rank, measured."""
    import iccld.data.pairs as pairs
    import iccld.runs.run as run
    from iccld.runs.scores import StageScorer
    from iccld.training.loop import _StageLoop
    from iccld.training.update import Update

    meter = Meter()
    step, finish = _StageLoop._step, _StageLoop._finish_iteration

    def measured(self: Any, stop: Any) -> None:
        finish(self, stop)
        meter.finished(self.stage.name, self.iteration)

    engine.all_reduce = meter.timed("communication", engine.all_reduce)
    engine.broadcast = meter.timed("communication", engine.broadcast)
    pairs.PairDataset.__getitem__ = meter.timed("reading", pairs.PairDataset.__getitem__)  # type: ignore[method-assign]
    pairs.PairDataset._read = meter.timed("decoding", pairs.PairDataset._read)  # type: ignore[method-assign]
    pairs._next_batch = meter.timed("waiting for data", pairs._next_batch)
    Update.__call__ = meter.timed("update", Update.__call__)  # type: ignore[method-assign]
    _StageLoop._step = meter.timed("step", step)  # type: ignore[method-assign]
    _StageLoop._finish_iteration = measured  # type: ignore[method-assign]
    StageScorer.evaluate = lambda *_: []  # type: ignore[method-assign]
    run._Run._finish_stage = lambda *_: None  # type: ignore[method-assign]
    run._adapt_rank(engine, config, None)
    rows = {**meter.rows, "all": meter.parts}
    (Path(folder) / f"{engine.rank}.json").write_text(json.dumps(rows), encoding="utf-8")


def train(recipe: str, ranks: int, batch: int, iterations: int, folder: str, more: list[str]) -> None:
    """One training in this process, or in those that it starts."""
    from iccld.assembly.objects import make_engine
    from iccld.config import load_config

    options: dict[str, object] = {
        "batch_size": batch,
        "runtime.devices": ranks,
        "runtime.threads": 1,
        "runtime.device": "cpu",
        "name": "measured",
    }
    options |= {f"stages.{stage}.iterations": iterations for stage in STAGES} | {"stages.step2.iterations": 0}
    options |= {"runtime.out": f"{folder}/runs", "runtime.evaluate_every": 0, "runtime.checkpoint_every": iterations}
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    config = load_config(recipe, [*given, *more])
    engine = make_engine(config, devices=ranks, max_norm=config.runtime.clip_norm, start="spawn")
    engine.launch(rank, config, folder)


def measured(given: argparse.Namespace, kind: str, source: str, more: list[str]) -> list[dict[str, Row]]:
    """One training in processes of its own: each rank's stages."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--recipe", given.recipe, "--iterations", str(given.iterations), "--kind", kind]
        environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
        finished = subprocess.run([*command, "--folder", folder, *more], env=environment, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise SystemExit(finished.stdout + finished.stderr)
        return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(Path(folder).glob("*.json"))]


def middle(rows: list[Row], name: str) -> float:
    """Median in milliseconds."""
    return 1e3 * statistics.median(row.get(name, 0.0) for row in rows)


def told(stage: str, found: dict[str, list[list[dict[str, Row]]]]) -> str:
    """A paragraph on one stage from the trainings of each kind, each a list of ranks."""
    lines = [f"{stage}: ms an iteration          clock  processor = reading + communication + the rest"]
    cost, clock = {}, {}
    for kind, trainings in found.items():
        ranks = [[training[rank][stage] for training in trainings] for rank in range(len(trainings[0]))]
        for number, rows in enumerate(ranks):
            whole, reading, talking = (middle(rows, name) for name in ("process", "reading", "communication"))
            rest = whole - reading - talking
            title = f"{kind}, rank {number}" if len(ranks) > 1 else kind
            lines.append(f"{title:30s} {middle(rows, 'clock'):7.1f}  {whole:9.1f} = {reading:7.1f} + {talking:13.1f} + {rest:8.1f}")
        cost[kind], clock[kind] = max(middle(rows, "process") for rows in ranks), middle(ranks[0], "clock")
    one, half, two = KINDS
    ratios = f"by the processor {cost[one] / cost[two]:.2f}, limit {cost[one] / cost[half]:.2f}, by the clock {clock[one] / clock[two]:.2f}"
    lines.append(f"two processes over one: {ratios}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="demo_scratch")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", metavar="SRC", help="`src` of another commit, measured in turns with this one")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given, more = parser.parse_known_args()
    if given.folder:
        ranks, batch = KINDS[given.kind]
        train(given.recipe, ranks, batch, given.iterations, given.folder, more)
        return
    own = str(Path(__file__).resolve().parents[1] / "src")
    trees = {"before": given.before, "now": own} if given.before else {"now": own}
    found: dict[str, dict[str, list[list[dict[str, Row]]]]] = {tree: {kind: [] for kind in KINDS} for tree in trees}
    for _ in range(given.rounds):
        for kind in KINDS:
            for tree in trees:
                found[tree][kind].append(measured(given, kind, trees[tree], more))
    print(f"{given.recipe}, global batch 4, {given.iterations - WARM_UP} iterations, medians of {given.rounds} trainings")
    for tree in trees:
        for stage in STAGES:
            print(f"\n[{tree}] {told(stage, found[tree])}")
    one = [training[0] for training in found["now"]["one process"]]
    fastest = min(middle([row[stage] for row in one], "process") for stage in STAGES) / 1e3
    decoding = statistics.median(row["all"]["decoding"] / row["all"]["decoding calls"] for row in one)
    print(
        f"\none thread decodes {1 / decoding:.0f} pictures/s for the first time; the faster stage takes {8 / fastest:.0f}/s on one core "
        f"({fastest / decoding / 8:.1f} times; later epochs decode nothing)"
    )


if __name__ == "__main__":
    main()
