"""SYNTHIA: 16-bit RGB masks, exact, and depth in centimetres."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from iccld.data import open_dataset
from iccld.errors import DataError


def write_synthia(root: Path, ids: list[list[int]], depth_folder: str = "Depth") -> Path:
    for number, row in enumerate(ids):
        raw = np.zeros((1, len(row), 3), dtype=np.uint16)
        raw[..., 2] = row  # OpenCV writes blue, green, red
        raw[..., 1] = 1000 + np.arange(len(row))  # instances, above 8 bits
        depth = np.full((1, len(row), 3), 1250, dtype=np.uint16)
        for name in ("RGB", "GT/LABELS", depth_folder):
            (root / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (len(row), 1), (number, 1, 2)).save(root / "RGB" / f"{number:07d}.png")
        cv2.imwrite(str(root / "GT/LABELS" / f"{number:07d}.png"), raw)
        cv2.imwrite(str(root / depth_folder / f"{number:07d}.png"), depth)
    return root


@pytest.mark.parametrize("depth_folder", ["Depth", "Depth/Depth"])
def test_synthia_reads_red_channel_and_depth(tmp_path: Path, depth_folder: str) -> None:
    dataset = open_dataset(write_synthia(tmp_path, [[3, 4, 22, 0, 21], [12, 11, 8, 1, 15]], depth_folder))
    assert (dataset.format, dataset.names, dataset.has_depth) == ("synthia", ["0000000", "0000001"], True)
    sample = dataset[0]
    assert sample.label is not None
    assert sample.label.tolist() == [[0, 1, 255, 255, 3]]
    assert sample.depth is not None
    assert sample.depth.tolist() == [[12.5] * 5]
    assert dataset.read_label(1).tolist() == [[17, 18, 13, 10, 6]]


def test_fault_27_synthia_unknown_id_is_an_error(tmp_path: Path) -> None:
    dataset = open_dataset(write_synthia(tmp_path, [[3, 300]]))
    with pytest.raises(DataError, match=r"0000000\.png: unknown label value 300 .*known here are 0-22"):
        dataset.read_label(0)


def test_fault_30_synthia_8_bit_mask_is_an_error(tmp_path: Path) -> None:
    root = write_synthia(tmp_path, [[3, 4]])
    Image.new("RGB", (2, 1)).save(root / "GT/LABELS/0000000.png")
    with pytest.raises(DataError, match="expected a 16-bit PNG, found 8 bits"):
        open_dataset(root)[0]


def test_synthia_missing_mask_and_missing_depth(tmp_path: Path) -> None:
    root = write_synthia(tmp_path, [[3], [4]])
    (root / "Depth/0000001.png").unlink()
    dataset = open_dataset(root)
    assert not dataset.has_depth
    with pytest.raises(DataError, match="has no depth map"):
        dataset.read_depth(1)
    (root / "GT/LABELS/0000001.png").unlink()
    with pytest.raises(DataError, match="expected 2 masks for 2 pictures, found 1"):
        open_dataset(root)
