"""Faults 13 and 14 for every stage of every registered method, with tiny networks: a new method is covered by being registered."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iccld.batch import DomainBatch
from iccld.errors import CheckpointError, Preempted
from iccld.methods import METHODS
from iccld.methods.common.iccld_step2 import Step2
from iccld.methods.common.protocol import Method, Stage
from iccld.training import checkpoint, loop, snapshot
from iccld.training.checkpoint import Loaded
from iccld.training.engine import Engine
from iccld.training.options import LoopOptions
from iccld.training.stages import RunResult, run_stages

SEED = 3
ITERATIONS = 3
SETTINGS: dict[str, dict[str, Any]] = {"cbst": {"rounds": 1}}
"""Settings by method, where the defaults would make a state of its own anew at every one of so few steps."""

SPLIT = 2
"""Finished iterations of the checkpoint that the mutations start from; between two log lines."""


EVERY_METHOD = [name if name == "iccld" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
"""`make test` takes the project's own; `make faults` and `make test-slow` take all."""


@cache
def tiny() -> ModuleType:
    """The factories of tiny networks that the tests of methods use."""
    path = Path(__file__).parents[1] / "methods" / "tiny_method.py"
    spec = importlib.util.spec_from_file_location("tiny_method", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Killed(BaseException):
    """Stands for a process that dies between two steps."""


class Batches(Dataset[DomainBatch]):
    """Batch i is a function of (stage, i)."""

    def __init__(self, stage: str, start: int, end: int, needs: frozenset[str]) -> None:
        self.stage, self.start, self.end, self.needs = stage, start, end, needs

    def __len__(self) -> int:
        return self.end - self.start

    def __getitem__(self, position: int) -> DomainBatch:
        seed = int(hashlib.sha256(f"{self.stage}/{self.start + position}".encode()).hexdigest()[:6], 16)
        batch: DomainBatch = tiny().batch(seed=seed)
        if "depth" not in self.needs:
            return batch
        generator = torch.Generator().manual_seed(seed)
        shape = batch.source_label.shape
        return batch._replace(
            source_depth=1 + 50 * torch.rand(shape, generator=generator), target_depth=1 + 50 * torch.rand(shape, generator=generator)
        )


@dataclass
class MethodRun:
    """A registered method's stages under one directory.  `before_step` is called with (stage, iteration)."""

    method: str
    directory: Path
    workers: int = 0
    before_step: Callable[[str, int], None] = field(default=lambda stage, iteration: None)
    accelerator: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def stages(self) -> list[Stage]:
        registered = METHODS[self.method]
        optimisation = {
            name: tiny().optimisation(iterations=ITERATIONS, warmup=1 / ITERATIONS, ema_decay=0.7) for name in registered.stage_names
        }
        return registered.stages(tiny().parts(), registered.settings(**SETTINGS.get(self.method, {}) | dict(self.settings)), optimisation)

    def loader(self, stage: str, start: int, end: int) -> Iterator[DomainBatch]:
        batches = Batches(stage, start, end, METHODS[self.method].needs)
        for i, batch in enumerate(DataLoader(batches, batch_size=None, num_workers=self.workers, generator=torch.Generator())):
            self.before_step(stage, start + i)
            yield batch

    def run(self, stages: list[Stage] | None = None, previous: Method | None = None, resume: bool = True) -> RunResult:
        engine = Engine(accelerator=self.accelerator, max_norm=1.0, deterministic=self.accelerator != "cpu")
        targets = [engine.to_device(Batches("round", i, i + 1, METHODS[self.method].needs)[0]) for i in range(2)]
        return run_stages(
            self.stages() if stages is None else stages,
            self.loader,
            LoopOptions(seed=SEED, log_every=ITERATIONS, checkpoint_every=2, keep_last=100, resume=resume, progress=False),
            engine=engine,
            run=self.directory,
            previous=previous,
            target_loader=targets,
        )

    def trace(self, stages: Iterable[str]) -> dict[str, Any]:
        """What must not depend on interruptions: digests of every saved tensor, the rest of the state, the log lines."""
        trace: dict[str, Any] = {}
        for stage in stages:
            path = checkpoint.stage_directory(self.directory, stage) / f"{ITERATIONS:08d}"
            trace |= {f"{stage}/{name}": hashlib.sha256((path / name).read_bytes()).hexdigest() for name in checkpoint.TENSOR_FILES}
            state = json.loads((path / checkpoint.STATE).read_text())
            for measured in ("seconds", "processor_seconds", "peak_memory_gib"):
                del state["progress"][measured]
            trace[f"{stage}/state"] = state
        records = [json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()]
        trace["metrics"] = [{k: v for k, v in r.items() if k != "time"} for r in records if r["stage"] in set(stages)]
        return trace


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", lambda descriptor: None)  # whether a save is durable is tested elsewhere
        yield


@cache
def straight(method: str, folder: Path) -> tuple[dict[str, Any], RunResult]:
    """The uninterrupted run of a method, made once."""
    run = MethodRun(method, folder / method)
    result = run.run(resume=False)
    return run.trace(METHODS[method].stage_names), result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("straight")


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_fault_13_stopped_after_every_step_equals_uninterrupted(method: str, folder: Path, tmp_path: Path) -> None:
    run = MethodRun(method, tmp_path / "run")
    run.before_step = lambda stage, iteration: os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(ITERATIONS * len(METHODS[method].stage_names)):
        with pytest.raises(Preempted):
            run.run()
    run.run()
    assert run.trace(METHODS[method].stage_names) == straight(method, folder)[0]


@pytest.mark.parametrize("kept", [1, 2])
def test_fault_13_kept_views_are_made_again_and_their_batches_alone_are_loaded(kept: int, tmp_path: Path) -> None:
    """Stopped after every step, or never: the same bits; a run that goes on reads a batch for each view that it needs again."""
    loaded: dict[str, list[tuple[str, int]]] = {"straight": [], "stopped": []}
    runs = {name: MethodRun("iccld", tmp_path / name, settings={"kept_views": kept}) for name in loaded}
    for name, run in runs.items():
        run.before_step = lambda stage, iteration, seen=loaded[name]: seen.append((stage, iteration))
    runs["straight"].run(resume=False)
    assert [iteration for stage, iteration in loaded["straight"] if stage == "step2"] == list(range(kept))
    step_again = Step2.step_again

    def stopping(method: Step2, iteration: int, draw: Any) -> dict[str, Tensor]:
        os.kill(os.getpid(), signal.SIGTERM)
        return step_again(method, iteration, draw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step2, "step_again", stopping)
        for _ in range(ITERATIONS):
            with pytest.raises(Preempted):
                runs["stopped"].run()
    runs["stopped"].run()
    assert runs["stopped"].trace(["step2"]) == runs["straight"].trace(["step2"])
    assert [iteration for stage, iteration in loaded["stopped"] if stage == "step2"] == [i % kept for i in range(ITERATIONS)]
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == {path.name for path in (tmp_path / "straight").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("method", METHODS)
def test_fault_13_killed_anywhere_twice_equals_uninterrupted(method: str, workers: int, folder: Path, tmp_path: Path) -> None:
    generator = random.Random(f"{method}/{workers}")
    run = MethodRun(method, tmp_path / "run", workers)
    steps = [(stage, iteration) for stage in METHODS[method].stage_names for iteration in range(ITERATIONS)]
    for place in sorted(generator.sample(range(len(steps)), 2)):

        def die(stage: str, iteration: int, at: tuple[str, int] = steps[place]) -> None:
            if (stage, iteration) == at:
                raise Killed

        run.before_step = die
        with pytest.raises(Killed):
            run.run()
    run.before_step = lambda stage, iteration: None
    run.run()
    assert run.trace(METHODS[method].stage_names) == straight(method, folder)[0]


NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

REPEATS = 3
"""Uninterrupted runs that tell how far apart two runs of the same computation may end."""


def distance(first: MethodRun, second: MethodRun) -> float:
    """The largest difference of any saved weight of any stage; infinite where the weights are not even the same ones."""
    largest = 0.0
    for stage in METHODS[first.method].stage_names:
        loaded = [checkpoint.load(checkpoint.stage_directory(run.directory, stage) / f"{ITERATIONS:08d}") for run in (first, second)]
        for kind in ("model", "ema"):
            one, other = (getattr(each, kind) for each in loaded)
            if one.keys() != other.keys():
                return float("inf")
            largest = max([largest, *(float((one[key].double() - other[key].double()).abs().max()) for key in one)])
    return largest


@pytest.mark.parametrize(
    ("method", "accelerator"),
    [pytest.param("iccld", "cpu", marks=pytest.mark.slow), *(pytest.param(name, "cuda", marks=NEEDS_GPU) for name in METHODS)],
)
def test_fault_13_resumed_is_no_further_off_than_a_run_that_is_repeated(
    method: str, accelerator: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Bit for bit where repeating a run gives its bits again; otherwise within four times what repeating it changes."""
    repeated = [MethodRun(method, tmp_path / str(number), accelerator=accelerator) for number in range(REPEATS)]
    for run in repeated:
        run.run(resume=False)
    resumed = MethodRun(method, tmp_path / "resumed", accelerator=accelerator)
    resumed.before_step = lambda stage, iteration: os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(ITERATIONS * len(METHODS[method].stage_names)):
        with pytest.raises(Preempted):
            resumed.run()
    resumed.run()
    spread = max(distance(repeated[0], run) for run in repeated[1:])
    off = distance(repeated[0], resumed)
    record_property("spread", spread)
    record_property("resumed", off)
    print(f"{method} on {accelerator}: repeated runs differ by {spread:.3g}, the resumed one by {off:.3g}")
    assert off <= 4 * spread


# --- fault 14 -------------------------------------------------------------------------------------------------------------


def items_of(loaded: Loaded) -> dict[tuple[str, ...], Any]:
    """Every item that a method brings into a checkpoint, under its place in the payload."""
    items: dict[tuple[str, ...], Any] = {}
    for kind in ("model", "ema"):
        for key, tensor in getattr(loaded, kind).items():
            items.setdefault((kind, key.partition(".")[0]), {})[key] = tensor
    for kind in ("optimizers", "schedules"):
        items |= {(kind, name): value for name, value in loaded.state[kind].items()}
    items |= {("optimizers", name, "state"): state["state"] for name, state in loaded.state["optimizers"].items()}
    items |= {("method", name): value for name, value in loaded.state["method"].items()}
    return items | {("update",): loaded.state["update"], ("metrics",): loaded.state["metrics"]}


def without(loaded: Loaded, place: tuple[str, ...], fresh: Loaded) -> Loaded:
    """The checkpoint as it would be had the item been forgotten: with the value that it has before the first step."""
    if place[0] in ("model", "ema"):
        weights = {**getattr(loaded, place[0]), **items_of(fresh)[place]}
        return replace(loaded, **{place[0]: weights})
    state = json_like_copy(loaded.state)
    target, source = state, fresh.state
    for key in place[:-1]:
        target, source = target[key], source[key]
    target[place[-1]] = source.get(place[-1])
    return replace(loaded, state=state)


def removed(loaded: Loaded, place: tuple[str, ...]) -> Loaded:
    """The checkpoint with the item missing altogether."""
    if place[0] in ("model", "ema"):
        kept = {key: value for key, value in getattr(loaded, place[0]).items() if key.partition(".")[0] != place[1]}
        return replace(loaded, **{place[0]: kept})
    state = json_like_copy(loaded.state)
    target = state
    for key in place[:-1]:
        target = target[key]
    del target[place[-1]]
    return replace(loaded, state=state)


def json_like_copy(tree: Any) -> Any:
    """Containers copied, leaves shared."""
    if isinstance(tree, Mapping):
        return {key: json_like_copy(value) for key, value in tree.items()}
    return [json_like_copy(value) for value in tree] if isinstance(tree, list) else tree


def is_equal(a: Any, b: Any) -> bool:
    """Bitwise equality of trees."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(is_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(is_equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def fresh_payload(stage: Stage, previous: Method | None) -> Loaded:
    """What a checkpoint before the first step would hold: the value of everything that a resume forgets to put back."""
    engine = Engine(accelerator="cpu", max_norm=1.0)
    engine.seed_global(SEED, stage.name, -1)
    method = stage.make_method(previous)
    method.setup(engine)
    payload = snapshot.take(method, engine.update, SEED, {}, {"sums": {}, "counts": {}})
    copied = {kind: {k: v.clone() for k, v in getattr(payload, kind).items()} for kind in ("model", "ema")}
    return Loaded(copied["model"], copied["ema"], payload.state, Path(), stage.name, 0, {})


CASES = [(method, stage) for method in METHODS for stage in METHODS[method].stage_names if method == "iccld" or stage != "source"]
"""Every stage once: the source stage is the same in all methods."""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stage"), CASES)
def test_fault_14_every_item_of_every_method_is_missed(
    method: str, stage: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight(method, folder)
    names = METHODS[method].stage_names
    index = names.index(stage)
    whole = MethodRun(method, folder / method)
    expected = whole.trace([stage])
    loaded = checkpoint.load(checkpoint.stage_directory(whole.directory, stage) / f"{SPLIT:08d}")
    previous = MethodRun(method, folder / method).run(whole.stages()[:index]).method if index else None

    def finish(start: Loaded, name: str) -> dict[str, Any]:
        """The stage trained from a checkpoint to its end."""
        copied = replace(start, state=copy.deepcopy(start.state))  # training goes on in the tensors that it is given
        monkeypatch.setattr(loop.checkpoint, "load_latest", lambda directory, **kwargs: copied)
        run = MethodRun(method, tmp_path / name)
        run.run([run.stages()[index]], previous)
        return run.trace([stage])

    assert finish(loaded, "untouched") == expected  # the harness alone changes nothing
    fresh = fresh_payload(whole.stages()[index], previous)
    constant = []
    for number, (place, value) in enumerate(items_of(loaded).items()):
        with pytest.raises(CheckpointError):
            finish(removed(loaded, place), f"removed{number}")
        if is_equal(value, items_of(fresh).get(place)):
            constant.append(place)
            continue
        try:
            trace = finish(without(loaded, place, fresh), f"forgotten{number}")
        except CheckpointError:
            continue  # refused: seen as well
        assert trace != expected, f"{'.'.join(place)} can be left out of {stage} unnoticed"
    assert finish(loaded, "again") == expected  # nothing above reached the finished stage before
    trained = {("optimizers", name) for name in loaded.state["optimizers"]} | {("metrics",)}
    assert not trained & set(constant)
    assert any(place[0] == "model" and place not in constant for place in items_of(loaded))
