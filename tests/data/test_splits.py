"""A split that was asked for and is not there is an error that lists what is; its usual names are understood (fault 51)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.cli import main
from iccld.data import open_dataset
from iccld.data.splits import part_of, refuse_missing_split, split_folder
from iccld.errors import DataError
from iccld.labels import LabelClass, LabelSpace

TWO = LabelSpace("two", (LabelClass("road", (1, 1, 1)), LabelClass("sky", (2, 2, 2))))


def labelled(root: Path, images: str, masks: str, count: int) -> None:
    rng = np.random.default_rng(count)
    for folder in (images, masks):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(root / images / f"{i}.png")
        Image.fromarray(rng.integers(0, 2, (24, 32), dtype=np.uint8)).save(root / masks / f"{i}.png")


@pytest.mark.parametrize(
    ("name", "part"), [("training", "train"), ("Validation", "val"), ("VAL", "val"), ("testing", "test"), ("night", "night")]
)
def test_part_names(name: str, part: str) -> None:
    assert part_of(name) == part


def test_fault_51_training_and_validation_are_understood(tmp_path: Path) -> None:
    labelled(tmp_path, "images/training", "masks/training", 3)
    labelled(tmp_path, "images/validation", "masks/validation", 2)
    for split, count in (("train", 3), ("val", 2), ("validation", 2)):
        assert len(open_dataset(tmp_path, split=split, label_space=TWO, is_asked=True)) == count
    with pytest.raises(DataError, match=r"images: expected a split 'test', found training, validation"):
        open_dataset(tmp_path, split="test", label_space=TWO, is_asked=True)


def test_fault_51_a_split_of_an_undivided_folder_is_refused_when_asked_for(tmp_path: Path) -> None:
    labelled(tmp_path, "images/day", "masks/day", 2)
    labelled(tmp_path, "images/night", "masks/night", 1)
    assert len(open_dataset(tmp_path, split="night", label_space=TWO, is_asked=True)) == 1
    assert len(open_dataset(tmp_path, split="val", label_space=TWO)) == 3
    with pytest.raises(DataError, match=r"expected a split 'val', found day, night; leave --split out"):
        open_dataset(tmp_path, split="val", label_space=TWO, is_asked=True)


def test_a_folder_that_is_the_split_itself_is_taken(tmp_path: Path) -> None:
    labelled(tmp_path / "validation", "images", "masks", 2)
    assert len(open_dataset(tmp_path / "validation", split="val", label_space=TWO, is_asked=True)) == 2
    assert len(open_dataset(tmp_path, split="val", label_space=TWO, is_asked=True)) == 2


def test_a_target_needs_no_masks_for_its_split(tmp_path: Path) -> None:
    labelled(tmp_path, "images/train", "masks/train", 2)
    labelled(tmp_path, "images/test", "elsewhere", 1)
    assert len(open_dataset(tmp_path, split="test", labels=False)) == 1


def test_splits_of_gta5_and_cityscapes_by_their_other_names(tmp_path: Path) -> None:
    labelled(tmp_path / "g", "images/training", "labels/training", 2)
    assert len(open_dataset(tmp_path / "g", "gta5", split="train", labels=False)) == 2
    city = tmp_path / "c" / "leftImg8bit" / "validation" / "x"
    city.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(city / "x_000000_000000_leftImg8bit.png")
    assert len(open_dataset(tmp_path / "c", split="val")) == 1


def test_fault_51_data_check_and_evaluate_refuse_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled(tmp_path, "images", "masks", 2)
    assert main(["data", "check", "--data", str(tmp_path), "--split", "val"]) == 3
    assert "expected a split 'val', it has no parts; leave --split out" in capsys.readouterr().err
    assert main(["evaluate", "--predictions", str(tmp_path / "masks"), "--data", str(tmp_path), "--split", "val"]) == 3
    assert "expected a split 'val'" in capsys.readouterr().err


def test_helpers_say_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "images" / "dusk").mkdir(parents=True)
    assert split_folder(tmp_path / "images", "val") == tmp_path / "images"
    with pytest.raises(DataError, match="found dusk"):
        refuse_missing_split(tmp_path, tmp_path / "images", "val")
