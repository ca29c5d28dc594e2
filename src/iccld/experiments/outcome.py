"""A finished run -> the figures of one row of a table; several seeds -> spreads and paired differences."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from iccld.errors import CheckpointError, DataError
from iccld.evaluation import Record, bootstrap_over_seeds
from iccld.experiments.table import Gain, Spread, spread
from iccld.report.run import mapping, number, read_run

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Outcome:
    """What one run has to say up to one of its stages.

    iterations, seconds, processor_seconds, peak_memory_gib: of the stages after `source` up to this one.
    milliseconds, processor_milliseconds: of one prediction, the second None where a GPU computes it.  means: number of classes -> mIoU.
    by_weights: mIoU of the trained weights ("model") and of their average ("ema").  record: the confusion of every validation picture.
    """

    run: Path
    stage: str
    miou: float
    best: float | None
    iou: Mapping[str, float | None]
    means: Mapping[str, float | None]
    weights: str
    iterations: int
    source_iterations: int
    seconds: float
    peak_memory_gib: float
    parameters: int
    milliseconds: float
    by_weights: Mapping[str, float | None] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    processor_seconds: float | None = None
    processor_milliseconds: float | None = None

    @cached_property
    def record(self) -> Record:
        """The confusion of every validation picture; DataError when it is missing."""
        return Record.load(self.run / "confusions" / f"{self.stage}.npz")


def read_outcome(run: Path, stage: str, after: str = "source") -> Outcome:
    """The figures of a run's stage, with what led to it since the stage `after`; CheckpointError where the summary lacks it."""
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        stages: dict[str, Any] = summary["stages"]
        told = stages[stage]
        names = list(stages)[: list(stages).index(stage) + 1]
        upto = [stages[name] for name in names[names.index(after) + 1 if after in names else 0 :]] or [told]
        is_source = stage == "source"
        return Outcome(
            run=run,
            stage=stage,
            miou=float(told["miou"]),
            best=(told["best"] or {}).get("miou"),
            iou=told["iou"],
            means=next(iter(told["means"].values()), {}),
            weights=told["weights"],
            iterations=0 if is_source else sum(int(each["iterations"]) for each in upto),
            source_iterations=int(stages.get("source", {}).get("iterations", 0)),
            seconds=sum(float(each["seconds"]) for each in upto),
            peak_memory_gib=max(float(each["peak_memory_gib"]) for each in upto),
            parameters=int(told["parameters"]),
            milliseconds=float(told["milliseconds_per_image"]),
            by_weights=_by_weights(run, stage),
            processor_milliseconds=told.get("processor_milliseconds_per_image"),
            processor_seconds=_sum(each.get("processor_seconds") for each in upto),
            extras={key: told[key] for key in ("identity_gap", "sampler_steps") if key in told},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{run}: its summary.json tells nothing of stage {stage!r} ({error!r}); train the run again") from error


def last_loss(run: Path, stage: str, name: str) -> float | None:
    """The last logged mean of one of a stage's losses; None where it has none of that name."""
    told = next((one for one in read_run(run).stages if one.name == stage), None)
    return None if told is None or not told.training else number(mapping(told.training[-1].get("losses")).get(name))


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None where one of them is not known, as in runs of earlier releases."""
    known = list(values)
    return None if None in known else math.fsum(value for value in known if value is not None)


def _by_weights(run: Path, stage: str) -> dict[str, float | None]:
    told = next(one for one in read_run(run).stages if one.name == stage)
    return {weights: number(told.last_evaluation("val", weights).get("miou")) for weights in ("model", "ema")}


Outcomes = Mapping[int, Outcome]
"""By seed."""


def miou_of(outcomes: Outcomes) -> Spread | None:
    """mIoU over the seeds."""
    return spread(outcome.miou for outcome in outcomes.values())


def class_spreads(outcomes: Outcomes) -> dict[str, Spread | None]:
    """IoU of every class over the seeds that saw it."""
    names = dict.fromkeys(name for outcome in outcomes.values() for name in outcome.iou)
    return {name: spread(outcome.iou.get(name) for outcome in outcomes.values()) for name in names}


def paired_gain(base: Outcomes, other: Outcomes, block: int) -> Gain | None:
    """mIoU(other) - mIoU(base) over the seeds that both have, on the same pictures; None where they share no seed.

    block: neighbouring pictures that a draw keeps together.  DataError when they were scored on different pictures.
    """
    seeds = [seed for seed in base if seed in other]
    if not seeds:
        return None
    for seed in seeds:
        _require_same_pictures(base[seed], other[seed])
    first = [base[seed].record.confusions for seed in seeds]
    second = [other[seed].record.confusions for seed in seeds]
    over_images = bootstrap_over_seeds(first, second, block, BOOTSTRAP_SEED, draw_seeds=False)
    over_seeds = bootstrap_over_seeds(first, second, block, BOOTSTRAP_SEED) if len(seeds) > 1 else None
    each = spread(other[seed].miou - base[seed].miou for seed in seeds)
    assert each is not None
    return Gain(
        over_images.estimate,
        each.std,
        over_images.low,
        over_images.high,
        None if over_seeds is None else over_seeds.low,
        None if over_seeds is None else over_seeds.high,
        len(seeds),
    )


def _require_same_pictures(first: Outcome, second: Outcome) -> None:
    if first.record.names != second.record.names:
        raise DataError(f"{first.run} and {second.run} were scored on different pictures; score them on one split before comparing them")


def provenance(runs: Sequence[Path]) -> dict[str, Any]:
    """Where the figures of a table come from: commits, protocol, label space and recipe of its runs, each value once."""
    found: dict[str, list[Any]] = {"commit": [], "dirty": [], "protocol": [], "label_space": [], "recipe": []}
    for run in runs:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        for key, values in found.items():
            if summary.get(key) not in values:
                values.append(summary.get(key))
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}
