"""What a training is told beside its stages and data: how often it logs, scores and saves (`LoopOptions`), whom it tells (`Hooks`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iccld.batch import DomainBatch

if TYPE_CHECKING:
    from iccld.methods.common.protocol import Method
    from iccld.training.loop import StageResult

Evaluation = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
"""One or several `eval` entries of metrics.jsonl; the first one's `miou` decides which checkpoint is the best."""


def describe_indices(batch: DomainBatch) -> str:
    """The batch's pictures by their positions in the datasets, for messages."""
    return f"source {batch.source_index.tolist()}, target {batch.target_index.tolist()}"


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How a training proceeds; of these only `seed` changes a number."""

    seed: int
    """Origin of every random number."""
    log_every: int = 50
    """Iterations between two lines of metrics."""
    checkpoint_every: int = 500
    """Iterations between two checkpoints; each stage's last is always kept."""
    evaluate_every: int = 0
    """Iterations between two evaluations; 0 evaluates at the end of each stage only."""
    keep_last: int = 2
    """Newest checkpoints kept for each stage."""
    resume: bool = False
    """Whether to go on from the newest whole checkpoint; without it existing ones are a CheckpointError."""
    class_shares: tuple[float, ...] = ()
    """Of the source's labelled pixels, 0..1, by train id: what a collapse of the pseudo-labels is compared with."""
    progress: bool = True
    """Whether rank 0 shows a bar."""
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    """What a checkpoint must agree with to be gone on from."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Whom a training calls on rank 0, always with the stage's name first where there is one."""

    on_evaluate: Callable[[str, Method, int], Evaluation] | None = None
    """(stage, method, iteration) -> scores, every `evaluate_every` iterations and at the stage's end; None scores nothing."""
    on_stage_end: Callable[[str, Method, StageResult], None] | None = None
    """(stage, method, result) after each stage, also after one that a resume found finished.  A stop signal leaves it; the resume calls it
    again."""
    on_record: Callable[[Mapping[str, Any]], None] | None = None
    """Called with each line of metrics.jsonl: {"stage", "iteration", ...}."""
    describe_batch: Callable[[DomainBatch], str] = describe_indices
    """Names a batch's pictures in the message of a step that failed."""
