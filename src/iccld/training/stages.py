"""The ordered stages of a method, each starting from the one before; finished ones come back from their checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from iccld.batch import DomainBatch
from iccld.errors import Preempted
from iccld.methods.common.protocol import Method, Stage
from iccld.training.engine import Engine
from iccld.training.loop import Evaluation, StageResult, train_stage
from iccld.training.signals import Stopped, leaving_at_once, stop_on_signals


@dataclass(frozen=True)
class RunResult:
    """The finished method of the last stage, and what every stage told, in order."""

    method: Method
    stages: dict[str, StageResult]


def run_stages(
    stages: Sequence[Stage],
    loader_factory: Callable[[str, int, int], Iterable[DomainBatch]],
    *,
    engine: Engine,
    run: Path,
    seed: int,
    log_every: int = 50,
    checkpoint_every: int = 500,
    evaluate_every: int = 0,
    on_evaluate: Callable[[str, Method, int], Evaluation] | None = None,
    on_stage_end: Callable[[str, Method, StageResult], None] | None = None,
    resume: bool = False,
    progress: bool = True,
    previous: Method | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    keep_last: int = 2,
    describe_batch: Callable[[DomainBatch], str] | None = None,
    target_loader: Iterable[DomainBatch] = (),
    scored: Collection[str] = (),
) -> RunResult:
    """Run the stages in order; arguments as in `train_stage`, the callables with the stage's name first.

    previous: the finished method that the first stage starts from, when it was trained elsewhere.  on_stage_end is called
    on rank 0 after each stage, also after one that a resume found finished; a stop signal leaves it at once, and a resume calls it again.
    scored: stages whose evaluation at the end is on record.  Hold `lock_run` around this.
    """
    if not stages:
        raise ValueError("a method needs at least one stage")
    if len({stage.name for stage in stages}) != len(stages):
        raise ValueError(f"two stages share a name: {[stage.name for stage in stages]}")
    method = previous
    results: dict[str, StageResult] = {}
    with stop_on_signals():  # one request for all stages and their scores: no signal is lost in between
        for order, stage in enumerate(stages):
            engine.seed_global(seed, stage.name, -1)  # initial weights depend on the seed and stage, not on what ran before
            method = stage.make_method(method)
            results[stage.name] = train_stage(
                method,
                stage,
                partial(loader_factory, stage.name),
                engine=engine,
                run=run,
                seed=seed,
                log_every=log_every,
                checkpoint_every=checkpoint_every,
                evaluate_every=evaluate_every,
                on_evaluate=None if on_evaluate is None else partial(on_evaluate, stage.name),
                resume=resume,
                progress=progress,
                order=order,
                fingerprint=fingerprint,
                keep_last=keep_last,
                describe_batch=describe_batch,
                target_loader=target_loader,
                is_scored=stage.name in scored,
            )
            if on_stage_end is not None:
                _end_stage(partial(on_stage_end, stage.name, method, results[stage.name]), stage.name, engine)
    assert method is not None
    return RunResult(method, results)


def _end_stage(on_stage_end: Callable[[], None], name: str, engine: Engine) -> None:
    """Rank 0 tells of the stage's end, unless it is asked to stop meanwhile: then every rank raises `Preempted`."""
    is_left = engine.is_first and not _done_unless_stopped(on_stage_end)
    if engine.any_rank(is_left):
        raise Preempted(f"stopped after stage {name}, before its scores were written; go on with --resume auto")


def _done_unless_stopped(work: Callable[[], None]) -> bool:
    """Whether the work came to its end before anybody asked for a stop."""
    try:
        with leaving_at_once():
            work()
    except Stopped:
        return False
    return True
