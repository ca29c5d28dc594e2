"""Sliding windows and the decision by bands."""

import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from iccld.errors import ConfigError
from iccld.evaluation import decide, decision, resize_rows, sliding_window, window_starts


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 30))
def test_windows_cover_every_pixel_and_stay_inside(length, window, stride):
    if stride > window:
        with pytest.raises(ConfigError, match="stride"):
            window_starts(length, window, stride)
        return
    starts = window_starts(length, window, stride)
    size = min(window, length)
    assert {pixel for start in starts for pixel in range(start, start + size)} == set(range(length))
    assert len(set(starts)) == len(starts)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_sliding_window_of_the_identity_is_the_identity(height, width, window_height, window_width, stride, at_once):
    stride = min(stride, window_height, window_width)
    images = torch.randn(2, 3, height, width)
    result = sliding_window(lambda crops, _: crops, images, (window_height, window_width), stride, windows_at_once=at_once)
    torch.testing.assert_close(result, images, rtol=1e-6, atol=1e-6)


def test_sliding_window_averages_where_windows_overlap():
    calls = []

    def forward(crops, positions):
        calls.extend(positions)
        values = torch.tensor([float(x) for _, x in positions])
        return values[:, None, None, None].expand(len(positions), 1, *crops.shape[2:])

    result = sliding_window(forward, torch.zeros(1, 3, 4, 8), (4, 4), 2)
    assert calls == [(0, 0), (0, 2), (0, 4)]
    assert result[0, 0, 0].tolist() == [0, 0, 1, 1, 3, 3, 4, 4]


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_sliding_window_positions_belong_to_their_crops(at_once):
    """Every pixel holds its own coordinates; forward rebuilds them from the position."""
    height, width = 13, 17
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).float()
    images = torch.stack([grid, grid + 100])  # (2, 2, H, W)

    def forward(crops, positions):
        assert crops.shape[0] == 2 * len(positions)
        for index, (y, x) in enumerate(positions):
            assert crops[2 * index, :, 0, 0].tolist() == [y, x]
            assert crops[2 * index + 1, :, 0, 0].tolist() == [y + 100, x + 100]
        return crops

    assert torch.allclose(sliding_window(forward, images, (6, 5), (4, 5), windows_at_once=at_once), images)


def test_sliding_window_resizes_logits_of_lower_resolution():
    images = torch.full((1, 3, 8, 8), 2.0)
    result = sliding_window(lambda crops, _: functional.avg_pool2d(crops, 2), images, (4, 4), 4)
    assert torch.equal(result, images)


@pytest.mark.parametrize("at_once", [1, 3])
def test_logits_of_whole_cells_are_averaged_as_they_are(at_once):
    """Cells of 2 x 2 pixels: what comes out is the mean of each cell, at the size of the cells."""
    images = torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    cells = torch.nn.functional.avg_pool2d(images, 2)
    options = {"windows_at_once": at_once, "by_cells": True}
    found = sliding_window(lambda crops, _: torch.nn.functional.avg_pool2d(crops, 2), images, (8, 8), (4, 4), **options)
    torch.testing.assert_close(found, cells, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("size", "stride"), [((16, 21), 4), ((16, 20), 3)])
def test_where_cells_do_not_fit_logits_are_averaged_at_the_pixels(size, stride):
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))

    def forward(crops, _):
        return torch.nn.functional.avg_pool2d(crops, 2)

    found = sliding_window(forward, images, (8, 8), stride, by_cells=True)
    assert found.shape == images.shape
    assert torch.equal(found, sliding_window(forward, images, (8, 8), stride))


@pytest.mark.parametrize("size", [(5, 7), (40, 64), (23, 9), (8, 200), (1, 1)])
def test_resize_rows_equals_interpolate(size):
    logits = torch.randn(2, 4, 11, 16)
    expected = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    rows = torch.cat([resize_rows(logits, size, start, min(size[0], start + 7)) for start in range(0, size[0], 7)], dim=2)
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)


def test_decide_in_bands_is_argmax_of_the_resized_logits(monkeypatch):
    logits = torch.randn(2, 4, 11, 16)
    resized = functional.interpolate(logits, size=(40, 37), mode="bilinear", align_corners=False)
    monkeypatch.setattr(decision, "BAND_VALUES", 2 * 4 * 37 * 3)
    labels, confidence = decide(logits, (40, 37), confidence=True)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), resized.argmax(1))
    torch.testing.assert_close(confidence, resized.softmax(1).amax(1))
    assert decide(logits)[0].shape == (2, 11, 16)
    assert decide(logits)[1] is None
