"""DAFormer's feature distance, by hand."""

from __future__ import annotations

import pytest
import torch

from iccld.losses import feature_distance, majority_label


def test_the_distance_is_the_mean_norm_over_the_chosen_cells() -> None:
    features, reference = torch.zeros(1, 2, 1, 3), torch.tensor([[[[3.0, 6.0, 9.0]], [[4.0, 8.0, 9.0]]]])
    chosen = torch.tensor([[[True, True, False]]])
    assert float(feature_distance(features, reference, chosen)) == pytest.approx((5 + 10) / 2)


def test_no_chosen_cell_gives_zero_and_no_gradient() -> None:
    features = torch.ones(1, 2, 2, 2, requires_grad=True)
    distance = feature_distance(features, torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool))
    distance.backward()
    assert float(distance.detach()) == 0.0
    assert features.grad is not None
    assert not features.grad.any()


def test_equal_features_pass_a_finite_gradient() -> None:
    features = torch.ones(1, 2, 2, 2, requires_grad=True)
    feature_distance(features, torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool)).backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize(("ratio", "expected"), [(0.75, [[1, 255]]), (0.5, [[1, 2]])])
def test_a_cell_is_of_the_class_that_covers_enough_of_it(ratio: float, expected: list[list[int]]) -> None:
    label = torch.tensor([[[1, 1, 2, 2], [1, 0, 3, 0]]])
    assert majority_label(label, (1, 2), 4, ratio).tolist() == [expected]


def test_unlabelled_is_no_class() -> None:
    label = torch.tensor([[[255, 255, 255, 1]]])
    assert majority_label(label, (1, 1), 4, 0.25).tolist() == [[[255]]]
