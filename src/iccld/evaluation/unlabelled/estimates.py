"""Accuracy and mIoU of a voice on pixels without labels, each estimate a pure function of what voices say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

EDGE = 1e-4
"""Shares nearer to 0 or 1 than this are taken for it, where their probit is needed."""


def agreement(first: Tensor, second: Tensor) -> float:
    """Share of the pixels to which two voices give one class: (N,), (N,) -> 0..1."""
    return float((first == second).double().mean())


def average_confidence(log_probability: Tensor) -> float:
    """Mean probability of the winning class, the accuracy of a calibrated voice: (N, K) -> 0..1."""
    return float(log_probability.max(1).values.double().exp().mean())


def confidence_score(log_probability: Tensor) -> Tensor:
    """The negative entropy in nats, Garg et al.'s score: (N, K) -> (N,)."""
    said = log_probability.double()
    return (said.exp() * said.clamp(min=-100)).sum(1)


def threshold_of(score: Tensor, right: Tensor) -> float:
    """The score that as many labelled pixels exceed as are right (ATC, Garg et al., ICLR 2022, Eq. 3): (N,), (N,) bool -> number."""
    ordered = score.double().sort(descending=True).values
    count = int(right.sum())
    if count == 0:
        return math.inf
    return float(ordered[count]) if count < len(ordered) else -math.inf


def average_thresholded_confidence(score: Tensor, threshold: float) -> float:
    """Share of the pixels whose score exceeds the threshold (ATC, Eq. 4): (N,) -> 0..1."""
    return float((score.double() > threshold).double().mean())


def agreement_on_the_line(accuracy: Sequence[float], agree: Sequence[float], agree_there: Sequence[float]) -> list[float]:
    """Accuracies of some voices on other pictures, from how much less they agree there (ALine-S, Baek et al., NeurIPS 2022).

    accuracy: of each voice where there are labels, 0..1.  agree, agree_there: of each pair of voices there and on the other pictures.
    The probits of agreements lie on a line, and accuracies on the same one.  With fewer than three pairs, or pairs that agree alike, the
    line has slope 1.  Returns an accuracy a voice, 0..1.
    """
    x, y = _probit(agree), _probit(agree_there)
    spread = (x - x.mean()).square().sum()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if len(x) > 2 and float(spread) > 1e-4 else 1.0
    offset = float(y.mean()) - slope * float(x.mean())
    found: list[float] = torch.special.ndtr(slope * _probit(accuracy) + offset).tolist()
    return found


def _probit(shares: Sequence[float]) -> Tensor:
    found: Tensor = torch.special.ndtri(torch.tensor(list(shares), dtype=torch.float64).clamp(EDGE, 1 - EDGE))
    return found


def expected_confusion(posterior: Tensor, labels: Tensor) -> Tensor:
    """The confusion to be expected when pixel n is of class k with probability posterior[n, k]: (N, K), (N,) -> (K, K), rows truth."""
    num_classes = posterior.shape[1]
    by_prediction = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    by_prediction.index_add_(0, labels, posterior.double())
    return by_prediction.T


def accuracy_of(confusion: Tensor) -> float:
    """Share of the diagonal: (K, K) -> 0..1."""
    return float(confusion.diagonal().sum() / confusion.sum())


def miou_of(confusion: Tensor, present: Tensor) -> float:
    """Mean IoU over the classes that are present: (K, K), (K,) bool -> 0..1."""
    right = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - right
    iou = torch.where(union > 0, right / union.clamp(min=1e-12), 0.0)
    return float(iou[present].mean())
