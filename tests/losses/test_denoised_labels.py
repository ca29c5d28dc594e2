"""ProDA's formulas against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from iccld.losses import (
    assignment_divergence,
    distillation,
    evenness,
    prototype_distances,
    prototype_weights,
    rectified_label,
    symmetric_cross_entropy,
)


def pixel(*values: float) -> Tensor:
    """One pixel: (1, K, 1, 1)."""
    return torch.tensor(values)[None, :, None, None]


def test_distances_are_euclidean() -> None:
    prototypes = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    assert prototype_distances(pixel(3.0, 4.0), prototypes).flatten().tolist() == pytest.approx([5.0, 4.0, math.sqrt(18)])


def test_weights_are_a_softmax_over_the_distance_beyond_the_nearest() -> None:
    weights = prototype_weights(pixel(2.0, 3.0, 2.0 + math.log(3)), 1.0).flatten()
    total = 1 + math.exp(-1) + 1 / 3
    assert weights.tolist() == pytest.approx([1 / total, math.exp(-1) / total, 1 / 3 / total])
    assert prototype_weights(pixel(100.0, 100.0 + math.log(2)), 1.0).flatten().tolist() == pytest.approx([2 / 3, 1 / 3], rel=1e-4)
    assert prototype_weights(pixel(0.0, 1.0), 0.5).flatten()[1] == pytest.approx(math.exp(-2) / (1 + math.exp(-2)))


def test_prototypes_overrule_a_soft_label() -> None:
    soft = pixel(0.6, 0.4)
    assert rectified_label(pixel(0.5, 0.5), soft).item() == 0
    assert rectified_label(pixel(0.25, 0.75), soft).item() == 1  # 0.15 against 0.30: two thirds
    assert rectified_label(pixel(0.25, 0.75), soft, threshold=0.66).item() == 1
    assert rectified_label(pixel(0.25, 0.75), soft, threshold=0.67).item() == 255


def test_symmetric_cross_entropy_of_one_pixel() -> None:
    """0.1 * -log p + 1 * (1 - p) * -log 1e-4 at p = 0.75."""
    logits = pixel(math.log(3.0), 0.0)
    expected = 0.1 * -math.log(0.75) + 0.25 * math.log(1e4)
    assert float(symmetric_cross_entropy(logits, torch.zeros(1, 1, 1, dtype=torch.int64))) == pytest.approx(expected)
    two = torch.cat([logits, logits], 3)
    assert float(symmetric_cross_entropy(two, torch.tensor([[[0, 255]]]))) == pytest.approx(expected)
    assert float(symmetric_cross_entropy(two, torch.full((1, 1, 2), 255))) == 0.0


def test_evenness_is_least_at_the_uniform_distribution() -> None:
    assert float(evenness(pixel(1.0, 1.0, 1.0))) == pytest.approx(math.log(3))
    assert float(evenness(pixel(math.log(3.0), 0.0))) == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_assignments_agree_or_cost_their_divergence() -> None:
    near, even = pixel(0.0, math.log(3)), pixel(1.0, 1.0)
    assert float(assignment_divergence(near, near)) == pytest.approx(0.0, abs=1e-7)
    assert float(assignment_divergence(near, even)) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_distillation_as_published_and_as_released() -> None:
    teacher, student = pixel(math.log(3.0), 0.0), pixel(0.0, 0.0)
    published = (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2
    released = (0.75 * (math.log(0.75) - 0.5) + 0.25 * (math.log(0.25) - 0.5)) / 2
    assert float(distillation(teacher, student, takes_logarithm=True)) == pytest.approx(published)
    assert float(distillation(teacher, student)) == pytest.approx(released)
