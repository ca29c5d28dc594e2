"""Cityscapes: splits, cities, labelIds beside files of other kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.data import open_dataset
from iccld.errors import DataError


def write_cityscapes(root: Path, split: str, frames: list[str], labels: bool = True) -> Path:
    for frame in frames:
        city = frame.split("_")[0]
        image = root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 1), (9, 9, 9)).save(image)
        if labels:
            folder = root / "gtFine" / split / city
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array([[7, 0, 33]], dtype=np.uint8)).save(folder / f"{frame}_gtFine_labelIds.png")
            Image.new("RGBA", (3, 1)).save(folder / f"{frame}_gtFine_color.png")
            Image.fromarray(np.array([[700, 0, 33]], dtype=np.uint16)).save(folder / f"{frame}_gtFine_instanceIds.png")
    return root


def test_cityscapes_reads_the_split_asked_for(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "train", ["aachen_000000_000019", "bochum_000000_000019"])
    write_cityscapes(tmp_path, "val", ["munster_000001_000019"])
    train, val = open_dataset(tmp_path), open_dataset(tmp_path, split="val")
    assert train.format == "cityscapes"
    assert train.names == ["aachen/aachen_000000_000019", "bochum/bochum_000000_000019"]
    assert val.names == ["munster/munster_000001_000019"]
    label = val[0].label
    assert label is not None
    assert label.tolist() == [[0, 255, 18]]


def test_fault_28_cityscapes_wrong_split_names_those_that_exist(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "train", ["aachen_000000_000019"])
    write_cityscapes(tmp_path, "val", ["munster_000001_000019"])
    with pytest.raises(DataError, match="expected leftImg8bit/test, found train, val"):
        open_dataset(tmp_path, split="test")


def test_cityscapes_without_gtfine_is_unlabelled(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "train", ["aachen_000000_000019"], labels=False)
    assert not open_dataset(tmp_path).has_labels


def test_fault_28_cityscapes_missing_label_is_an_error_with_counts(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "train", ["aachen_000000_000019", "aachen_000001_000019"])
    (tmp_path / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match=r"expected 2 masks for 2 pictures, found 1; no mask .*000001_000019_gtFine_labelIds\.png"):
        open_dataset(tmp_path)
