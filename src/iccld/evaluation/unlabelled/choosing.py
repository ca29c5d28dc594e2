"""Which pictures should be labelled first: uncertain ones, with rare classes, and none like another (pure functions)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

CELLS = 3
"""Rows and columns into which a picture is pooled, so that a street seen from the left is not one seen from the right."""
LEAST_SHARE = 1e-4
"""Share of a class below which it is no rarer."""


class Look(NamedTuple):
    """What is kept of a picture.  doubt: mean share of the voices' probability against the class decided for, 0..1.  shares: (K,)."""

    doubt: float
    shares: Tensor
    features: Tensor
    """(F,) for distances between pictures."""


def look_of(voices: list[Tensor], image: Tensor) -> Look:
    """Voices' probabilities (1, K, h, w), the deciding one first, and the picture (1, 3, H, W) in 0..1 -> `Look`.

    Features are square roots of pooled probabilities (their distance is Hellinger's) and pooled colours.
    """
    main = voices[0]
    size = (main.shape[2], main.shape[3])
    same = [voice if voice.shape[2:] == main.shape[2:] else functional.interpolate(voice, size=size, mode="bilinear") for voice in voices]
    labels = main.argmax(1, keepdim=True)  # (1, 1, h, w)
    support = torch.stack([voice.gather(1, labels) for voice in same]).mean()
    shares = torch.bincount(labels.flatten(), minlength=main.shape[1]).double() / labels.numel()
    pooled = functional.adaptive_avg_pool2d(main, CELLS).clamp(min=0).sqrt().flatten() / CELLS
    colours = functional.adaptive_avg_pool2d(image, CELLS).flatten() / CELLS
    return Look(1.0 - float(support), shares, torch.cat([pooled, colours]).double())


def values(doubt: Tensor, shares: Tensor) -> Tensor:
    """How much a label would teach, as far as one picture tells: (N,), (N, K) -> (N,) in 0..1.

    The mean of two ranks: of its doubt, and of the mean rarity of its pixels' classes (-log of the class's share of all pictures).
    """
    rarity = shares @ -shares.mean(0).clamp(min=LEAST_SHARE).log()
    return (_rank(doubt) + _rank(rarity)) / 2


def spread_choice(value: Tensor, features: Tensor, num: int) -> list[int]:
    """Greedy choice of `num` pictures, the first the most valuable, each next one of largest value times distance from those chosen.

    (N,) above 0, (N, F) -> positions in the order of choice; all of them where `num` is N or more.  Weighted farthest-first traversal:
    with equal values it is the greedy k-center of Gonzalez (1985), as Sener and Savarese (ICLR 2018) choose what to label.
    """
    if len(value) == 0:
        return []
    chosen = [int(value.argmax())]
    distance = (features - features[chosen[0]]).norm(dim=1)  # to the nearest one chosen
    left = torch.ones(len(value), dtype=torch.bool)
    left[chosen[0]] = False
    while len(chosen) < min(num, len(value)):
        score = torch.where(left, value * (distance + 1e-9), -1.0)
        following = int(score.argmax())
        chosen.append(following)
        left[following] = False
        distance = torch.minimum(distance, (features - features[following]).norm(dim=1))
    return chosen


def _rank(figures: Tensor) -> Tensor:
    """1 for the largest, 1 / N for the smallest; equal ones share the mean of their ranks."""
    below = torch.searchsorted(figures.sort().values, figures)
    up_to = torch.searchsorted(figures.sort().values, figures, right=True)
    return (below + 1 + up_to).double() / 2 / len(figures)
