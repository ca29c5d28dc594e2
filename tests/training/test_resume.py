"""Faults 4, 13, 14, 16, 17: interrupted and resumed equals uninterrupted, and the test can tell."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from iccld.errors import CheckpointError, Preempted
from iccld.training import checkpoint, loop
from iccld.training.engine import Engine
from iccld.training.health import PseudoLabelWatch


class Killed(BaseException):
    """Stands for a process that dies between two steps."""


def die_at(run: Any, stage: str, iteration: int) -> None:
    def on_step(name: str, number: int) -> None:
        if (name, number) == (stage, iteration):
            raise Killed

    run.on_step = on_step


def resumed_trace(run: Any, **overrides: Any) -> dict[str, Any]:
    run.on_step = lambda stage, iteration: None
    trace: dict[str, Any] = run.trace(run.run(resume=True, **overrides))
    return trace


@pytest.mark.parametrize(("stage", "iteration"), [("source", 1), ("source", 5), ("step1", 0), ("step1", 6)])
def test_fault_13_resume_after_a_kill_equals_uninterrupted(
    toy: Callable[..., Any], straight: dict[str, Any], stage: str, iteration: int
) -> None:
    run = toy()
    die_at(run, stage, iteration)
    with pytest.raises(Killed):
        run.run()
    assert resumed_trace(run) == straight


def test_fault_13_resume_with_two_workers_equals_uninterrupted(toy: Callable[..., Any], straight: dict[str, Any]) -> None:
    run = toy(workers=2)
    die_at(run, "step1", 6)
    with pytest.raises(Killed):
        run.run()
    assert resumed_trace(run) == straight


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_fault_04_signal_saves_the_step_and_resume_is_exact(
    toy: Callable[..., Any], straight: dict[str, Any], number: signal.Signals
) -> None:
    run = toy()
    # Iteration 4 is where an evaluation is due: the checkpoint comes first, the evaluation after the resume.
    for stage, iteration in (("source", 3), ("step1", 4)):

        def on_step(name: str, current: int, at: tuple[str, int] = (stage, iteration)) -> None:
            if (name, current) == at:
                os.kill(os.getpid(), number)

        run.on_step = on_step
        with pytest.raises(Preempted, match=f"{number.name} after iteration {iteration + 1} of {stage}") as caught:
            run.run(resume=True)
        assert caught.value.exit_code == 75
        assert checkpoint.iterations(checkpoint.stage_directory(run.directory, stage))[-1] == iteration + 1
    assert resumed_trace(run) == straight


def test_fault_04_signal_in_the_last_step_leaves_the_evaluation_to_the_resume(toy: Callable[..., Any], straight: dict[str, Any]) -> None:
    run = toy()
    run.on_step = lambda stage, iteration: os.kill(os.getpid(), signal.SIGTERM) if (stage, iteration) == ("source", 7) else None
    with pytest.raises(Preempted, match="before iteration 8 of source was scored, saved"):
        run.run()
    assert run.evaluated == [("source", 4)]
    assert resumed_trace(run) == straight


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize(("stage", "iteration"), [("source", 4), ("step1", 8)])
def test_fault_04_signal_during_an_evaluation_leaves_it_and_resume_is_exact(
    toy: Callable[..., Any], straight: dict[str, Any], stage: str, iteration: int, number: signal.Signals
) -> None:
    run = toy()

    def evaluate(name: str, method: Any, current: int) -> dict[str, Any]:
        told: dict[str, Any] = run.evaluate(name, method, current)
        if (name, current) == (stage, iteration):
            os.kill(os.getpid(), number)
            pytest.fail("went on after the signal")
        return told

    with pytest.raises(Preempted, match=f"before iteration {iteration} of {stage} was scored, saved"):
        run.run(on_evaluate=evaluate)
    assert checkpoint.iterations(checkpoint.stage_directory(run.directory, stage))[-1] == iteration
    assert resumed_trace(run) == straight


def test_fault_04_signal_after_a_stage_leaves_what_it_tells_to_the_resume(toy: Callable[..., Any], straight: dict[str, Any]) -> None:
    run, ended = toy(), []

    def tell(stage: str, method: Any, result: Any) -> None:
        ended.append(stage)
        if len(ended) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("went on after the signal")

    with pytest.raises(Preempted, match="after stage source"):
        run.run(on_stage_end=tell)
    assert resumed_trace(run, on_stage_end=tell) == straight
    assert ended == ["source", "source", "step1"]


def test_second_signal_while_an_evaluation_is_left_changes_nothing(toy: Callable[..., Any]) -> None:
    run = toy()

    def evaluate(name: str, method: Any, current: int) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Preempted, match="before iteration 4 of source"):
        run.run(on_evaluate=evaluate)


def test_finished_run_resumes_without_a_step_and_tells_the_same(toy: Callable[..., Any]) -> None:
    run = toy()
    first = run.run()
    steps: list[int] = []
    run.on_step = lambda stage, iteration: steps.append(iteration)
    ended: list[str] = []
    second = run.run(resume=True, on_stage_end=lambda stage, method, result: ended.append(stage))
    assert steps == []
    assert ended == ["source", "step1"]
    assert run.trace(second) == run.trace(first)
    assert {name: told.seconds for name, told in second.stages.items()}.keys() == first.stages.keys()
    for ours, theirs in zip(second.method.networks()["model"].parameters(), first.method.networks()["model"].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_existing_run_is_refused_without_resume(toy: Callable[..., Any]) -> None:
    run = toy()
    run.run()
    with pytest.raises(CheckpointError, match="--resume auto"):
        run.run()


# --- fault 14: forgetting any item shows -------------------------------------------------------------------------------

STATE_ITEMS = [
    ("optimizers", "model"),
    ("optimizers", "critic"),
    ("schedules", "model"),
    ("schedules", "critic"),
    ("update",),
    ("method", "prototypes"),
    ("method", "seen"),
    ("method", "rounds"),
    ("metrics",),
    ("progress", "iteration"),
    ("progress", "evaluated"),
    ("progress", "best"),
    ("progress", "watch"),
]
WEIGHTS = ["model.model", "model.critic", "ema.model"]


def interrupted(toy: Callable[..., Any]) -> tuple[Any, Any]:
    """A run stopped in its first stage, between two log lines, and the checkpoint of iteration 5."""
    run = toy()
    run.on_step = lambda stage, iteration: os.kill(os.getpid(), signal.SIGTERM) if (stage, iteration) == ("source", 4) else None
    with pytest.raises(Preempted):
        run.run()
    loaded = checkpoint.load_latest(checkpoint.stage_directory(run.directory, "source"))
    assert loaded is not None
    assert loaded.iteration == 5
    return run, loaded


def initial_payload(toy: Callable[..., Any]) -> Any:
    """What a checkpoint would hold before the first step: the value of everything that was forgotten."""
    fresh = toy("fresh", iterations=8)
    engine = Engine(accelerator="cpu")
    engine.seed_global(7, "source", -1)
    method = fresh.make("source")(None)
    method.setup(engine)
    progress = {"iteration": 0, "evaluated": 0, "seconds": 0.0, "peak_memory_gib": 0.0, "best": None, "last": []}
    progress["watch"] = PseudoLabelWatch(8).state_dict()
    return loop.snapshot.take(method, engine.update, 7, progress, {"sums": {}, "counts": {}})


def continue_from(monkeypatch: pytest.MonkeyPatch, run: Any, loaded: Any) -> dict[str, Any]:
    """Resume the first stage from a tampered checkpoint."""
    original = checkpoint.load_latest

    def load_latest(directory: Any, **kwargs: Any) -> Any:
        return loaded if directory.name == "source" else original(directory, **kwargs)

    monkeypatch.setattr(checkpoint, "load_latest", load_latest)
    return resumed_trace(run)


def test_fault_14_harness_alone_changes_nothing(toy: Callable[..., Any], straight: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run, loaded = interrupted(toy)
    assert continue_from(monkeypatch, run, loaded) == straight


@pytest.mark.parametrize("item", STATE_ITEMS, ids=".".join)
def test_fault_14_forgetting_a_state_item_shows(
    toy: Callable[..., Any], straight: dict[str, Any], monkeypatch: pytest.MonkeyPatch, item: tuple[str, ...]
) -> None:
    run, loaded = interrupted(toy)
    state, fresh = dict(loaded.state), initial_payload(toy).state
    if len(item) == 1:
        state[item[0]] = fresh[item[0]]
    else:
        state[item[0]] = {**state[item[0]], item[1]: fresh[item[0]][item[1]]}
    try:
        trace = continue_from(monkeypatch, run, replace(loaded, state=state))
    except CheckpointError:
        return  # refused: seen as well
    assert trace != straight


@pytest.mark.parametrize("prefix", WEIGHTS)
def test_fault_14_forgetting_weights_shows(
    toy: Callable[..., Any], straight: dict[str, Any], monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    run, loaded = interrupted(toy)
    kind, _, network = prefix.partition(".")
    fresh = getattr(initial_payload(toy), kind)
    weights = {k: fresh[k] if k.startswith(f"{network}.") else v for k, v in getattr(loaded, kind).items()}
    assert continue_from(monkeypatch, run, replace(loaded, **{kind: weights})) != straight


@pytest.mark.parametrize("key", ["rng", "optimizers", "schedules", "update", "method", "progress", "metrics"])
def test_fault_16_missing_state_is_an_error(toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    run, loaded = interrupted(toy)
    state = {k: v for k, v in loaded.state.items() if k != key}
    with pytest.raises(CheckpointError, match=key):
        continue_from(monkeypatch, run, replace(loaded, state=state))


def test_fault_16_another_seed_is_refused(toy: Callable[..., Any]) -> None:
    run, _ = interrupted(toy)
    with pytest.raises(CheckpointError, match="seed"):
        resumed_trace(run, seed=8)


def test_fault_14_state_items_cover_the_whole_state(toy: Callable[..., Any]) -> None:
    """A new item of the state has to enter the mutation test above."""
    payload = initial_payload(toy)
    covered = {item[0] for item in STATE_ITEMS} | {"rng"}
    assert set(payload.state) == covered
    for key in ("optimizers", "schedules", "method"):
        assert set(payload.state[key]) == {item[1] for item in STATE_ITEMS if item[0] == key}
    # Measured, not continued from; and what the end of the stage replaces (a finished stage's is tested above).
    untested = {"seconds", "processor_seconds", "peak_memory_gib", "last"}
    assert set(payload.state["progress"]) - untested == {item[1] for item in STATE_ITEMS if item[0] == "progress"}
    assert {f"model.{k.partition('.')[0]}" for k in payload.model} | {f"ema.{k.partition('.')[0]}" for k in payload.ema} == set(WEIGHTS)
