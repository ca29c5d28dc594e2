"""Resized pictures are those of PyTorch's antialiased interpolation, up to the order of its sums."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional

from iccld.evaluation.antialias import antialias_weights, resized
from iccld.geometry import Shape

ROUNDING = 6e-7
SIZES = [
    ((64, 96), (16, 24)),
    ((101, 67), (33, 67)),
    ((7, 9), (3, 4)),
    ((5, 5), (9, 13)),
    ((1, 1), (4, 4)),
    ((100, 2), (17, 2)),
    ((6, 8), (6, 8)),
]


@pytest.mark.parametrize(("size", "new"), SIZES)
@pytest.mark.parametrize("is_read_from_a_file", [True, False])
def test_resized_is_interpolate(size: Shape, new: Shape, is_read_from_a_file: bool) -> None:
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if is_read_from_a_file:  # channels behind each other
        images = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    expected = functional.interpolate(images.float() / 255, size=new, mode="bilinear", antialias=True)
    with torch.autocast("cpu", torch.bfloat16):  # pictures stay in full precision
        torch.testing.assert_close(resized(images, new), expected, atol=ROUNDING, rtol=0)


def test_resized_at_random_sizes() -> None:
    draw = random.Random(1)
    for _ in range(30):
        size, new = ((draw.randint(2, 150), draw.randint(2, 150)) for _ in range(2))
        images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        expected = functional.interpolate(images.float() / 255, size=new, mode="bilinear", antialias=True)
        torch.testing.assert_close(resized(images, new), expected, atol=ROUNDING, rtol=0)


def test_a_picture_one_pixel_wide_is_resized_as_a_wider_one_of_equal_columns() -> None:
    """PyTorch 2.13 takes it for one whose channels lie behind each other and mixes them."""
    images = torch.randint(0, 256, (1, 3, 100, 1), dtype=torch.uint8)
    wide = resized(images.expand(-1, -1, -1, 4).contiguous(), (17, 4))
    torch.testing.assert_close(resized(images, (17, 1)), wide[..., :1], atol=ROUNDING, rtol=0)


def test_weights_of_a_place_sum_to_one() -> None:
    for length, new in ((2048, 581), (10, 10), (3, 11)):
        begin, weights = antialias_weights(length, new)
        torch.testing.assert_close(torch.from_numpy(weights.sum(1)), torch.ones(new), atol=1e-6, rtol=0)
        assert begin.min() >= 0
        assert begin.max() < length
