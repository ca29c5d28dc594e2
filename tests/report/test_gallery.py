"""Error maps and shares of wrong pixels against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from iccld.report.gallery import FIXED, WRONG, change_map, error_map, share_wrong


def test_share_wrong_counts_scored_pixels_only() -> None:
    truth = np.array([[0, 1, 255, 2]], dtype=np.uint8)
    prediction = np.array([[0, 2, 1, 2]], dtype=np.uint8)
    assert share_wrong(truth, prediction) == pytest.approx(100 / 3)
    assert share_wrong(np.full((2, 2), 255, dtype=np.uint8), np.zeros((2, 2), dtype=np.uint8)) is None


def test_error_map_marks_wrong_pixels_and_no_others() -> None:
    image = np.full((1, 4, 3), 120, dtype=np.uint8)
    truth = np.array([[0, 1, 255, 2]], dtype=np.uint8)
    shown = error_map(image, truth, np.array([[0, 2, 1, 2]], dtype=np.uint8)).astype(int)
    reddish = shown[..., 0] - shown[..., 2]
    assert reddish.tolist()[0][1] > 100
    assert [reddish[0, i] for i in (0, 2, 3)] == [0, 0, 0]
    assert abs(shown[0, 1, 0] - WRONG[0]) < 40
    assert shown[0, 2, 0] < 60 < 150 < shown[0, 0, 0]


def test_change_map_tells_mended_from_spoilt() -> None:
    image = np.full((1, 5, 3), 120, dtype=np.uint8)
    truth = np.array([[0, 0, 0, 0, 255]], dtype=np.uint8)
    before = np.array([[1, 0, 0, 1, 1]], dtype=np.uint8)
    after = np.array([[0, 1, 0, 2, 2]], dtype=np.uint8)
    shown = change_map(image, truth, before, after).astype(int)[0]
    assert abs(shown[0] - FIXED).max() < 40
    assert abs(shown[1] - WRONG).max() < 40
    assert shown[2].tolist() == [shown[2, 0]] * 3
    assert abs(shown[3] - (FIXED + WRONG) / 2).max() < 40
    assert shown[4].tolist() == [42] * 3
    assert abs(change_map(image, None, before, after).astype(int)[0, 4] - (FIXED + WRONG) / 2).max() < 40
