"""The ordered stages of a method, each starting from the one before; finished ones come back from their checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from iccld.batch import DomainBatch
from iccld.errors import Preempted
from iccld.methods.common.protocol import Method, Stage
from iccld.training.engine import Engine
from iccld.training.loop import LoaderFactory, StageResult, train_stage
from iccld.training.options import Hooks, LoopOptions
from iccld.training.signals import Stopped, leaving_at_once, stop_on_signals


@dataclass(frozen=True)
class RunResult:
    """The finished method of the last stage, and what every stage told, in order."""

    method: Method
    stages: dict[str, StageResult]


def run_stages(
    stages: Sequence[Stage],
    loader_factory: LoaderFactory,
    options: LoopOptions,
    hooks: Hooks | None = None,
    *,
    engine: Engine,
    run: Path,
    previous: Method | None = None,
    target_loader: Iterable[DomainBatch] = (),
    scored: Collection[str] = (),
) -> RunResult:
    """Run the stages in order; arguments as in `train_stage`.

    previous: the finished method that the first stage starts from, when it was trained elsewhere.  scored: stages whose evaluation at the
    end is on record.  Hold `lock_run` around this.
    """
    hooks = hooks or Hooks()
    if not stages:
        raise ValueError("a method needs at least one stage")
    if len({stage.name for stage in stages}) != len(stages):
        raise ValueError(f"two stages share a name: {[stage.name for stage in stages]}")
    method = previous
    results: dict[str, StageResult] = {}
    with stop_on_signals():  # one request for all stages and their scores: no signal is lost in between
        for order, stage in enumerate(stages):
            engine.seed_global(options.seed, stage.name, -1)  # initial weights depend on the seed and stage, not on what ran before
            method = stage.make_method(method)
            results[stage.name] = train_stage(
                method,
                stage,
                loader_factory,
                options,
                hooks,
                engine=engine,
                run=run,
                order=order,
                target_loader=target_loader,
                is_scored=stage.name in scored,
            )
            if hooks.on_stage_end is not None:
                _end_stage(partial(hooks.on_stage_end, stage.name, method, results[stage.name]), stage.name, engine)
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
