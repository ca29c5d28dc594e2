"""Eq. 6 against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from iccld.losses import denoising_error, relative_gap


def test_denoising_error_is_the_mean_square() -> None:
    prediction = torch.tensor([[[[1.0, 2.0]]], [[[0.0, -1.0]]]])
    target = torch.tensor([[[[0.0, 2.0]]], [[[2.0, 0.0]]]])
    assert float(denoising_error(prediction, target)) == pytest.approx((1 + 0 + 4 + 1) / 4)


def test_denoising_error_is_computed_in_full_precision() -> None:
    prediction = torch.full((1, 1, 100, 100), 1.0, dtype=torch.bfloat16)
    target = torch.full((1, 1, 100, 100), 1.001)  # rounds to 1 in bf16
    assert float(denoising_error(prediction, target)) == pytest.approx(1e-6, rel=1e-2)


def test_denoising_error_is_linear_in_the_images() -> None:
    prediction, target = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 2, 3, 3)
    halves = (denoising_error(prediction[:2], target[:2]) + denoising_error(prediction[2:], target[2:])) / 2
    torch.testing.assert_close(halves, denoising_error(prediction, target))


def test_relative_gap_by_hand() -> None:
    latent = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert float(relative_gap(latent, latent)) == 0.0
    assert float(relative_gap(latent * 1.2, latent)) == pytest.approx(0.2)
