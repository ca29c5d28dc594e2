"""Distances between sets of latents: values worked out by hand, and sets whose distance is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from iccld.evaluation.alignment import median_distance, mmd2, principal_plane, proxy_a_distance


def normal(*shape: int, seed: int = 0, mean: float = 0.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + mean


def test_sets_that_a_line_separates_are_two_apart() -> None:
    assert proxy_a_distance(normal(40, 3), normal(40, 3, seed=1, mean=20.0)) == 2.0


def test_sets_of_one_distribution_are_about_nothing_apart() -> None:
    distances = [proxy_a_distance(normal(200, 5, seed=2 * seed), normal(200, 5, seed=2 * seed + 1)) for seed in range(10)]
    assert abs(sum(distances) / 10) < 0.1
    assert min(distances) < 0  # judged on rows that it was not fitted on; otherwise no line would do worse than chance


def test_the_distance_is_the_error_of_the_best_line() -> None:
    """Two unit normals d apart along one axis: the best line errs with probability Phi(-d / 2)."""
    gap = 1.5
    expected = 2 * (1 - 2 * 0.5 * math.erfc(gap / 2 / math.sqrt(2)))
    shift = torch.tensor([gap, 0.0, 0.0])
    assert proxy_a_distance(normal(4000, 3), normal(4000, 3, seed=1) + shift) == pytest.approx(expected, abs=0.05)


def test_the_distance_repeats_and_ignores_scales() -> None:
    first, second = normal(50, 4), normal(50, 4, seed=1, mean=0.4)
    distance = proxy_a_distance(first, second)
    assert distance == proxy_a_distance(first, second)
    scale = torch.tensor([1e-4, 1.0, 30.0, 1e5])
    assert proxy_a_distance(first * scale + 7, second * scale + 7) == distance


def test_a_constant_feature_is_no_feature() -> None:
    first, second = normal(50, 4), normal(50, 4, seed=1, mean=0.4)
    constant = torch.full((50, 1), 3.0)
    assert proxy_a_distance(torch.cat([first, constant], 1), torch.cat([second, constant], 1)) == proxy_a_distance(first, second)


def test_too_few_or_unlike_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 rows"):
        proxy_a_distance(normal(3, 2), normal(3, 2))
    with pytest.raises(ValueError, match="one shape"):
        proxy_a_distance(normal(8, 2), normal(9, 2))


def test_median_distance_by_hand() -> None:
    assert median_distance(torch.tensor([[0.0], [1.0], [5.0]])) == pytest.approx(4.0)  # distances 1, 4, 5


def test_mmd_by_hand() -> None:
    # x = {0, 1}, y = {2, 4}, width 1: k(d) = exp(-d^2 / 2).
    k = {d: math.exp(-(d**2) / 2) for d in (1, 2, 3, 4)}
    expected = k[1] + k[2] - 2 * (k[2] + k[4] + k[1] + k[3]) / 4
    assert mmd2(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [4.0]]), 1.0) == pytest.approx(expected, abs=1e-12)


def test_mmd_is_unbiased_where_there_is_no_difference() -> None:
    values = [mmd2(normal(30, 2, seed=2 * seed), normal(30, 2, seed=2 * seed + 1)) for seed in range(60)]
    mean = sum(values) / 60
    spread = (sum((value - mean) ** 2 for value in values) / 59) ** 0.5
    assert abs(mean) < 3 * spread / 60**0.5
    assert min(values) < 0 < max(values)


def test_mmd_grows_with_the_distance_and_sees_more_than_means() -> None:
    base = normal(300, 2)
    near, far = mmd2(base, normal(300, 2, seed=1, mean=0.5)), mmd2(base, normal(300, 2, seed=1, mean=2.0))
    assert 0.01 < near < far
    assert mmd2(base, 3 * normal(300, 2, seed=1)) > 0.05  # equal means


def test_the_plane_is_that_of_the_largest_variance() -> None:
    axes = torch.linalg.qr(normal(6, 2, seed=3)).Q  # (6, 2)
    flat = normal(500, 2) * torch.tensor([5.0, 2.0])
    rows = flat @ axes.T + 4.0
    plane = principal_plane(rows)
    assert plane.explained.tolist() == pytest.approx([25 / 29, 4 / 29], abs=0.03)
    placed = plane.place(rows)
    torch.testing.assert_close(torch.pdist(placed), torch.pdist(flat).double(), atol=1e-4, rtol=1e-4)
    assert float(placed.mean(0).abs().max()) < 1e-6
    again = principal_plane(rows.flip(0))
    torch.testing.assert_close(again.axes, plane.axes)
    assert (plane.axes.abs().amax(0) == plane.axes.amax(0)).all()
