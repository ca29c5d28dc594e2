"""All estimates side by side: what can be known of a run's stages on pictures without labels, and the one figure that serves best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iccld.evaluation.unlabelled.calibration import fit_correctness, fit_temperature, spread_over_classes, tempered
from iccld.evaluation.unlabelled.estimates import (
    accuracy_of,
    agreement,
    agreement_on_the_line,
    average_confidence,
    average_thresholded_confidence,
    confidence_score,
    expected_confusion,
    miou_of,
    threshold_of,
)
from iccld.evaluation.unlabelled.seen import Seen

TIE = 0.5
"""Points of mIoU below which estimates of two checkpoints do not differ."""
SEEN_SHARE = 1e-4
"""Share of the pixels from which on a class is expected to occur."""
RESAMPLES = 200
"""Of the pictures, for intervals."""
DECIMALS = 2


class Figure(NamedTuple):
    """An estimate and the interval in which the truth is expected, in percent or points."""

    value: float
    low: float
    high: float

    def told(self) -> dict[str, float]:
        """For JSON, to a hundredth."""
        return {"value": round(self.value, DECIMALS), "low": round(self.low, DECIMALS), "high": round(self.high, DECIMALS)}


class Error(NamedTuple):
    """About the largest error that estimates made where the truth was known (docs/trust.md): of accuracy and of mIoU, in points."""

    accuracy: float
    miou: float


LEVEL_ERROR = Error(9.0, 5.0)
"""Of a stage."""
GAIN_ERROR = Error(3.0, 4.0)
"""Of the difference between two stages."""


@dataclass(frozen=True)
class Judged:
    """One stage on the pictures without labels.  confusion: (P, K, K) to be expected of each of P pictures.

    present: (K,) the classes counted."""

    confusion: Tensor
    present: Tensor
    others: Mapping[str, float]
    """Other estimates of its accuracy by name, in percent."""

    def scores(self, pictures: Tensor | None = None) -> tuple[float, float]:
        """(accuracy, mIoU) in percent, of some of the pictures, each as often as it is named."""
        whole = self.confusion.sum(0) if pictures is None else self.confusion[pictures].sum(0)
        return 100 * accuracy_of(whole), 100 * miou_of(whole, self.present)

    def iou(self) -> Tensor:
        """(K,) in percent; NaN for a class that is not counted."""
        whole = self.confusion.sum(0)
        right = whole.diagonal()
        iou = 100 * right / (whole.sum(0) + whole.sum(1) - right).clamp(min=1e-12)
        return torch.where(self.present, iou, torch.nan)


@dataclass(frozen=True)
class Judgement:
    """What is known of a run's stages without labels."""

    stages: Mapping[str, Judged]
    signals: Mapping[str, Any]
    """Agreements, entropies and class shares, as they are told."""

    def figures(self, stage: str) -> tuple[Figure, Figure]:
        """Accuracy and mIoU of a stage, in percent."""
        judged = self.stages[stage]
        drawn = torch.tensor([judged.scores(rows) for rows in _resampled(len(judged.confusion))])  # (R, 2)
        accuracy, miou = (_around(value, drawn[:, i], LEVEL_ERROR[i]) for i, value in enumerate(judged.scores()))
        return Figure(*(min(max(x, 0.0), 100.0) for x in accuracy)), Figure(*(min(max(x, 0.0), 100.0) for x in miou))

    def gain(self, before: str, after: str) -> tuple[Figure, Figure]:
        """Accuracy and mIoU of one stage less another's, on the same pictures, in points."""
        first, second = self.stages[before], self.stages[after]
        drawn = torch.tensor([second.scores(rows) for rows in _resampled(len(second.confusion))])
        drawn = drawn - torch.tensor([first.scores(rows) for rows in _resampled(len(first.confusion))])
        values = [b - a for a, b in zip(first.scores(), second.scores(), strict=True)]
        accuracy, miou = (_around(value, drawn[:, i], GAIN_ERROR[i]) for i, value in enumerate(values))
        return accuracy, miou

    def told(self, names: Sequence[str]) -> dict[str, Any]:
        """For summary.json; names: of the K classes."""
        stages = {}
        for name, judged in self.stages.items():
            accuracy, miou = self.figures(name)
            iou = {each: _rounded(value) for each, value in zip(names, judged.iou().tolist(), strict=True)}
            others = {key: round(value, DECIMALS) for key, value in judged.others.items()}
            stages[name] = {"pixel_accuracy": accuracy.told(), "miou": miou.told(), "iou": iou, "others": others}
        found: dict[str, Any] = {"stages": stages}
        order = list(self.stages)
        if len(order) > 1:
            accuracy, miou = self.gain(order[0], order[-1])
            told = {"from": order[0], "to": order[-1], "pixel_accuracy": accuracy.told(), "miou": miou.told(), "answer": answer(miou)}
            found["gain"] = told
        shares = {key: dict(zip(names, each, strict=True)) for key, each in self.signals["class_shares"].items()}
        return {**found, **self.signals, "class_shares": shares}


def answer(gain: Figure) -> str:
    """Did adaptation help?  "yes" and "no" where the interval lies on one side of 0, otherwise "unknown": the sign would be a guess."""
    if gain.low > 0 or gain.high < 0:
        return "yes" if gain.low > 0 else "no"
    return "unknown"


def preferred(estimates: Mapping[int, float]) -> int:
    """The checkpoint to take: the last one whose estimated mIoU, in percent, is within `TIE` of the highest.  Iteration -> iteration."""
    highest = max(estimates.values())
    return max(iteration for iteration, miou in estimates.items() if miou >= highest - TIE)


def judge(labelled: Seen, target: Seen, stages: Sequence[str], source_shares: Sequence[float]) -> Judgement:
    """Judge voices that are stages, from labelled pixels that look like the target's and from target pixels without labels.

    stages: voices in the order of training, the first of which has not been taught by the target; the last one's views and trained weights
    are voices as well.  source_shares: (K,) of the source's labelled pixels, 0..1.
    """
    line = _on_the_line(labelled, target)
    judged = {name: judged_voice(labelled, target, name, stages[0], {"agreement_on_the_line": 100 * line[name]}) for name in stages}
    return Judgement(judged, signals(labelled, target, stages[-1], source_shares))


def judged_voice(labelled: Seen, target: Seen, voice: str, anchor: str, estimates: Mapping[str, float] | None = None) -> Judged:
    """One voice: how often it is right where the voices speak as they do, learnt on labelled pixels and expected on the others.

    anchor: the voice that the target has taught nothing.  estimates: others of the accuracy, to be told beside its own, in percent.
    """
    correct = correctness(labelled, target, voice, anchor)  # (N,)
    said, labels = target.voices[voice], target.labels(voice)
    posterior = spread_over_classes(said, correct)  # (N, K)
    confusion = torch.stack(
        [expected_confusion(posterior[target.picture == i], labels[target.picture == i]) for i in range(target.num_pictures)]
    )
    whole = confusion.sum(0)
    present = (whole.sum(0) > 0) | (whole.sum(1) / whole.sum() > SEEN_SHARE)
    threshold = threshold_of(confidence_score(labelled.voices[voice]), labelled.right(voice))
    factor = fit_temperature(labelled.voices[voice], _truth(labelled))
    told = {
        "average_confidence": 100 * average_confidence(said),
        "calibrated_confidence": 100 * average_confidence(tempered(said, factor)),
        "average_thresholded_confidence": 100 * average_thresholded_confidence(confidence_score(said), threshold),
        **(estimates or {}),
    }
    return Judged(confusion, present, told)


def correctness(labelled: Seen, target: Seen, voice: str, anchor: str) -> Tensor:
    """The probability that a voice is right at each of the target's pixels: -> (N,) float64 in 0..1.

    The anchor is judged by its own confidence and by all other voices.  A voice that taught itself on the target has become sure there,
    right or wrong, and so have its views: it is judged by the anchor, with its own confidence and without; the mean of both counts.
    """
    if voice == anchor:
        return fit_correctness(labelled, voice, [name for name in target.voices if name != voice])(target)
    by_both, by_anchor = (fit_correctness(labelled, voice, [anchor], hears_itself)(target) for hears_itself in (True, False))
    return (by_both + by_anchor) / 2


def signals(labelled: Seen, target: Seen, last: str, source_shares: Sequence[float]) -> dict[str, Any]:
    """Agreement of the last stage with each other voice and its entropy, here and on held-out source pictures; class shares in percent."""
    found: dict[str, Any] = {"agreement": {}, "entropy": {}}
    for role, seen in (("target", target), ("source", labelled)):
        others = [name for name in seen.voices if name != last]
        found["agreement"][role] = {name: round(100 * agreement(seen.labels(last), seen.labels(name)), DECIMALS) for name in others}
        found["entropy"][role] = round(-float(confidence_score(seen.voices[last]).mean()), 4)
    counts = torch.bincount(target.labels(last), minlength=target.num_classes)
    shares = {"target": (counts / counts.sum()).tolist(), "source": list(source_shares)}
    found["class_shares"] = {role: [round(100 * share, 3) for share in each] for role, each in shares.items()}
    return found


def _on_the_line(labelled: Seen, target: Seen) -> dict[str, float]:
    voices = list(target.voices)
    pairs = [(a, b) for i, a in enumerate(voices) for b in voices[i + 1 :]]
    agree, agree_there = ([agreement(seen.labels(a), seen.labels(b)) for a, b in pairs] for seen in (labelled, target))
    accuracy = [float(labelled.right(voice).double().mean()) for voice in voices]
    return dict(zip(voices, agreement_on_the_line(accuracy, agree, agree_there), strict=True))


def _truth(seen: Seen) -> Tensor:
    assert seen.truth is not None
    return seen.truth


def _resampled(count: int) -> list[Tensor]:
    """The same draws of pictures, with replacement, at every call, so that differences are paired."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(count, (count,), generator=generator) for _ in range(RESAMPLES)]


def _around(value: float, drawn: Tensor, error: float) -> Figure:
    """95 % of chance by the draws, and the error that was measured, added as independent ones are."""
    half = (error**2 + (1.96 * float(drawn.std())) ** 2) ** 0.5
    return Figure(value, value - half, value + half)


def _rounded(value: float) -> float | None:
    return None if value != value else round(value, DECIMALS)
