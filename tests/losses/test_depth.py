"""berHu against its closed form."""

from __future__ import annotations

import pytest
import torch

from iccld.losses import berhu


def test_linear_below_a_fifth_of_the_largest_error_and_quadratic_above() -> None:
    truth = torch.zeros(1, 1, 4)
    prediction = torch.tensor([[[10.0, 2.0, -1.0, 4.0]]])  # c = 2
    expected = ((100 + 4) / 4 + 2 + 1 + (16 + 4) / 4) / 4
    assert float(berhu(prediction, truth, torch.ones(1, 1, 4, dtype=torch.bool))) == pytest.approx(expected)


def test_pixels_without_depth_have_no_say() -> None:
    truth, prediction = torch.zeros(1, 1, 3), torch.tensor([[[1.0, 50.0, 1.0]]])
    valid = torch.tensor([[[True, False, True]]])
    assert float(berhu(prediction, truth, valid)) == pytest.approx((1 + 0.04) / 0.4)  # c = 0.2, not 10
    prediction.requires_grad_(True)
    loss = berhu(prediction, truth, torch.zeros(1, 1, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert prediction.grad is not None
    assert float(prediction.grad.abs().max()) == 0.0


def test_the_turning_point_takes_no_gradient() -> None:
    prediction = torch.tensor([[[10.0, 1.0]]], requires_grad=True)
    berhu(prediction, torch.zeros(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool)).backward()
    assert prediction.grad is not None
    assert prediction.grad.flatten().tolist() == pytest.approx([10 / 2 / 2, 1 / 2])  # x / c and 1, over two pixels


def test_a_perfect_prediction_costs_nothing() -> None:
    depth = torch.full((1, 2, 2), 7.0)
    assert float(berhu(depth, depth, torch.ones(1, 2, 2, dtype=torch.bool))) == 0.0
