"""Which curves a run has to show, taken from its metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from iccld.report.curves import Chart, Point, Series, line_chart
from iccld.report.run import Json, Run, Stage, evaluation_split, mapping, number

STEP2_CURVES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("domain_accuracy", "Discriminator accuracy", "domains named rightly; 33 % is a guess", {"percent": True}),
    ("confusion", "Domain confusion", "nats, divergence of the discriminator's answer from one third each", {"decimals": 4}),
    ("identity_gap", "Identity gap", "‖ẑ₀ − z₀‖ / ‖z₀‖ on target latents", {"decimals": 3}),
)
"""Scalars of step 2's training: name, title, note, options of the chart."""

NO_LOSSES = frozenset({"domain_accuracy", "identity_gap"})
"""Scalars that are logged among the losses and drawn elsewhere."""


def stage_starts(run: Run) -> list[tuple[float, Stage]]:
    """Where each stage with metrics begins on a common axis of iterations, in order; the control lies outside the line."""
    starts = []
    position = 0.0
    for stage in run.main_stages:
        lines = [*stage.training, *stage.evaluations]
        if lines:
            starts.append((position, stage))
            position += max(float(line["iteration"]) for line in lines)
    return starts


def training_value(key: str, scale: float = 1.0) -> Callable[[Json], float | None]:
    """A reader of one scalar of a training line, scaled."""

    def read(line: Json) -> float | None:
        found = number(line.get(key))
        return None if found is None else found * scale

    return read


def overview_charts(run: Run) -> list[Chart]:
    """Pseudo-label share, entropy, agreement, source validation and learning rate over all stages."""
    starts = stage_starts(run)
    titles = [(x, stage.title) for x, stage in starts]

    def chart(title: str, key: str, note: str, **options: Any) -> Chart | None:
        scale = 100.0 if options.get("percent") else 1.0
        pieces = [_points(stage.training, x, training_value(key, scale)) for x, stage in starts]
        return line_chart(title, [Series(title, pieces)], titles, note=note, **options)

    source = Series("Source validation", [_evaluation_points(stage, x, "source_val", stage.weights) for x, stage in starts])
    charts = [
        chart("Pseudo-label share", "pseudo_label_share", "target pixels confident enough to teach", percent=True),
        chart("Entropy", "entropy", "nats, mean over target pixels", decimals=2),
        chart("Agreement of model and EMA", "agreement", "target pixels given the same class by both", percent=True, from_zero=False),
        line_chart("Source validation", [source], titles, note="mIoU on held-out source images", percent=True),
        chart("Learning rate", "lr", ""),
    ]
    return [found for found in charts if found is not None]


def score_chart(run: Run, width: float, height: float) -> Chart | None:
    """mIoU on the target's validation images over all stages, EMA and trained weights."""
    starts = stage_starts(run)
    titles = [(x, stage.title) for x, stage in starts]
    series = [
        Series(label, [_evaluation_points(stage, x, "val", weights) for x, stage in starts], colour, is_dashed)
        for label, weights, colour, is_dashed in (("EMA", "ema", 1, False), ("Model (trained weights)", "model", 2, True))
    ]
    return line_chart("mIoU over iterations", series, titles, percent=True, width=width, height=height)


def step2_charts(run: Run) -> list[Chart]:
    """How well the discriminator names domains, how sure it is, and how far the denoiser moves the target's latents."""
    charts = []
    for stage in run.stages:
        for name, title, note, options in STEP2_CURVES:
            scale = 100.0 if options.get("percent") else 1.0
            points = [(x, scale * y) for x, y in _points(stage.training, 0.0, _loss(name))]
            charts.append(line_chart(title, [Series(title, [points])], note=note, **options))
    return [found for found in charts if found is not None]


def loss_charts(run: Run) -> list[Chart]:
    """The losses of each stage, one chart a stage since their scales have nothing in common."""
    charts = []
    for stage in run.stages:
        names = dict.fromkeys(str(name) for line in stage.training for name in mapping(line.get("losses")) if name not in NO_LOSSES)
        series = [Series(name, [_points(stage.training, 0.0, _loss(name))], 1 + i % 6, i >= 6) for i, name in enumerate(names)]
        found = line_chart(f"Losses, {stage.title.lower()}", series, decimals=3)
        if found is not None:
            charts.append(found)
    return charts


def _loss(name: str) -> Callable[[Json], float | None]:
    return lambda line: number(mapping(line.get("losses")).get(name))


def _points(lines: Iterable[Json], offset: float, read: Callable[[Json], float | None]) -> list[Point]:
    found = ((offset + float(line["iteration"]), read(line)) for line in lines)
    return [(x, y) for x, y in found if y is not None]


def _evaluation_points(stage: Stage, offset: float, split: str, weights: str) -> list[Point]:
    lines = [line for line in stage.evaluations if evaluation_split(line) == split and line["eval"].get("weights", "ema") == weights]
    return _points(lines, offset, lambda line: number(mapping(line.get("eval")).get("miou")))
