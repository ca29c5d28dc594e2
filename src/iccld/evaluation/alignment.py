"""How far apart two sets of latents lie: proxy A-distance, maximum mean discrepancy, and the plane they vary most in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 0.01
"""Weight of the squared norm in the linear classifier, beside a mean squared error of standardised features."""


def proxy_a_distance(first: Tensor, second: Tensor, folds: int = 4, seed: int = 0) -> float:
    """2 (1 - 2 error) of a linear classifier that tells the sets apart: (N, D) twice -> 0 where it guesses, 2 where it never errs.

    Ben-David et al. 2007.  The classifier is ridge regression on labels -1 and 1, fitted on all folds but one and judged on that one; row i
    of both sets falls into one fold, so that a pair made of the same pictures is never split.  Chance can bring it a little below 0.
    """
    if first.shape != second.shape or len(first) < folds:
        raise ValueError(f"two sets of one shape and at least {folds} rows are needed, got {tuple(first.shape)} and {tuple(second.shape)}")
    order = torch.randperm(len(first), generator=torch.Generator().manual_seed(seed))
    fold = torch.empty(len(first), dtype=torch.long)
    fold[order] = torch.arange(len(first)) % folds
    wrong = 0
    for held_out in range(folds):
        kept, tested = fold != held_out, fold == held_out
        score = _linear_classifier(first[kept].double(), second[kept].double())
        wrong += int((score(first[tested].double()) <= 0).sum()) + int((score(second[tested].double()) > 0).sum())
    return 2.0 * (1.0 - 2.0 * wrong / (2 * len(first)))


class _Linear(NamedTuple):
    """A scoring function: positive for the first set."""

    mean: Tensor
    scale: Tensor
    weight: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        return ((rows - self.mean) / self.scale) @ self.weight


def _linear_classifier(first: Tensor, second: Tensor) -> _Linear:
    rows = torch.cat([first, second])
    target = torch.cat([first.new_ones(len(first)), -second.new_ones(len(second))])  # balanced, so its mean is 0
    mean, scale = rows.mean(0), rows.std(0, unbiased=False).clamp(min=1e-12)
    x = (rows - mean) / scale
    gram = x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    return _Linear(mean, scale, torch.linalg.solve(gram, x.T @ target / len(x)))


def median_distance(rows: Tensor) -> float:
    """Median Euclidean distance between different rows: (N, D) -> the usual width of a Gaussian kernel."""
    return float(torch.pdist(rows.double()).quantile(0.5))


def mmd2(first: Tensor, second: Tensor, width: float | None = None) -> float:
    """Squared maximum mean discrepancy, unbiased: (N, D), (M, D) -> 0 in expectation where both come from one distribution.

    Gretton et al. 2012, Eq. 3, with k(x, y) = exp(-||x - y||^2 / (2 width^2)); width defaults to the median distance of all rows.  Being
    unbiased it may lie below 0; for well separated sets it approaches the mean similarity inside them.
    """
    first, second = first.double(), second.double()
    width = median_distance(torch.cat([first, second])) if width is None else width

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square() / (2 * max(width, 1e-12) ** 2))

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(first) + within(second) - 2 * kernel(first, second).mean())


class Plane(NamedTuple):
    """The plane of largest variance.  mean: (D,).  axes: (D, 2), orthonormal.  explained: (2,) shares of the variance in 0..1."""

    mean: Tensor
    axes: Tensor
    explained: Tensor

    def place(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, 2)."""
        return (rows.double() - self.mean) @ self.axes


def principal_plane(rows: Tensor) -> Plane:
    """Principal components by singular values: (N, D) -> `Plane`; the largest entry of each axis is positive, so that signs repeat."""
    rows = rows.double()
    mean = rows.mean(0)
    _, values, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    axes = directions[:2].T
    largest = axes.abs().argmax(0)
    axes = axes * axes[largest, torch.arange(axes.shape[1])].sign()
    variance = values.square()
    return Plane(mean, axes, variance[:2] / variance.sum().clamp(min=1e-30))
