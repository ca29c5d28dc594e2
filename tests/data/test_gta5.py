"""GTA5: palette indices, sizes that vary, pairs, and format detection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.data import detect_format, open_dataset
from iccld.data.dataset import Dataset
from iccld.errors import ConfigError, DataError
from iccld.labels import CAMVID11, CITYSCAPES13, CITYSCAPES19, LabelClass, LabelSpace


def write_gta5(root: Path, ids: list[list[list[int]]]) -> Path:
    for number, rows in enumerate(ids, start=1):
        mask = Image.fromarray(np.array(rows, dtype=np.uint8))
        mask.putpalette(bytes(range(255, -1, -1)) * 3)  # colours far from the ids
        for name, image in (("images", Image.new("RGB", mask.size, (number, 0, 0))), ("labels", mask)):
            (root / name).mkdir(parents=True, exist_ok=True)
            image.save(root / name / f"{number:05d}.png")
    return root


def test_gta5_reads_palette_indices_and_varying_sizes(tmp_path: Path) -> None:
    dataset = open_dataset(write_gta5(tmp_path, [[[7, 26, 0, 34]], [[33, 23], [1, 8]]]))
    assert isinstance(dataset, Dataset)
    assert (dataset.format, len(dataset), dataset.has_labels, dataset.has_depth) == ("gta5", 2, True, False)
    assert dataset.names == ["00001", "00002"]
    first, second = dataset[0], dataset[1]
    assert first.label is not None
    assert first.label.tolist() == [[0, 13, 255, 255]]
    assert (first.image.shape, first.image[0, 0].tolist(), first.name, first.index) == ((1, 4, 3), [1, 0, 0], "00001", 0)
    assert second.label is not None
    assert second.label.tolist() == [[18, 10], [255, 1]]


def test_gta5_absorbs_into_a_coarser_space(tmp_path: Path) -> None:
    root = write_gta5(tmp_path, [[[7, 12, 27, 33]]])
    assert open_dataset(root, label_space=CAMVID11).read_label(0).tolist() == [[3, 1, 8, 10]]
    coarse = open_dataset(root, label_space=CITYSCAPES13)
    assert coarse.read_label(0).tolist() == [[0, 255, 255, 12]]
    assert coarse.notes == ["label space 'cityscapes13' absorbs no wall, fence, pole, terrain, truck, train: ignored (255)"]
    assert open_dataset(root).notes == []


def test_fault_27_gta5_unknown_id_names_file_and_value(tmp_path: Path) -> None:
    dataset = open_dataset(write_gta5(tmp_path, [[[7, 77]]]))
    with pytest.raises(DataError, match=r"00001\.png: unknown label value 77"):
        dataset[0]


def test_fault_28_gta5_pairs_are_complete(tmp_path: Path) -> None:
    root = write_gta5(tmp_path, [[[7]], [[8]], [[11]]])
    (root / "labels" / "00002.png").unlink()
    with pytest.raises(DataError, match=r"expected 3 masks for 3 pictures, found 2; no mask .*00002\.png") as caught:
        open_dataset(root, format="gta5")
    assert "\n" not in str(caught.value)
    lenient = open_dataset(root, strict=False)  # counts what strict refuses
    assert len(lenient.problems) == 1
    assert not lenient.has_labels
    (root / "images" / "00002.png").unlink()
    (root / "images" / "00003.png").unlink()
    with pytest.raises(DataError, match=r"no picture for mask .*00003\.png"):
        open_dataset(root)


def test_gta5_without_labels_is_unlabelled(tmp_path: Path) -> None:
    root = write_gta5(tmp_path, [[[7]]])
    unread = open_dataset(root, format="gta5", labels=False)
    assert (unread.has_labels, unread[0].label) == (False, None)
    (root / "labels" / "00001.png").unlink()
    (root / "labels").rmdir()
    dataset = open_dataset(root, format="gta5")
    assert not dataset.has_labels
    with pytest.raises(DataError, match="has no labels; expected a mask in"):
        dataset.read_label(0)


def test_gta5_below_a_split_folder(tmp_path: Path) -> None:
    write_gta5(tmp_path / "train", [[[7]]])
    write_gta5(tmp_path / "val", [[[8]], [[8]]])
    assert detect_format(tmp_path, "val") == "gta5"
    assert len(open_dataset(tmp_path, split="train")) == 1
    assert len(open_dataset(tmp_path, split="val")) == 2
    with pytest.raises(DataError, match="expected a split 'test', found train, val"):
        open_dataset(tmp_path, format="gta5", split="test")


def test_fault_26_gta5_size_mismatch_names_the_pair(tmp_path: Path) -> None:
    root = write_gta5(tmp_path, [[[7, 8]]])
    Image.new("RGB", (5, 4)).save(root / "images" / "00001.png")
    with pytest.raises(DataError, match=r"images/00001\.png: is 5x4, but .*labels/00001\.png is 2x1"):
        open_dataset(root)[0]


def test_subset_renumbers(tmp_path: Path) -> None:
    part = open_dataset(write_gta5(tmp_path, [[[7]], [[8]], [[11]]])).subset([2, 0])
    assert part.names == ["00003", "00001"]
    assert part[0].index == 0
    assert part.read_label(0).tolist() == [[2]]


@pytest.mark.parametrize("format", ["auto", "gta5", "synthia", "cityscapes", "folder"])
def test_fault_28_missing_and_empty_folders_are_one_line(tmp_path: Path, format: str) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(tmp_path / "nowhere", format=format)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match="is a file"):
        open_dataset(file, format=format)
    empty = tmp_path / "empty"
    for name in ("images", "RGB", "leftImg8bit/train"):
        (empty / name).mkdir(parents=True)
    with pytest.raises(DataError, match="found 0") as caught:
        open_dataset(empty, format=format)
    assert "\n" not in str(caught.value)
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(DataError):
        open_dataset(bare, format=format)


def test_unknown_format_and_misplaced_classes_file(tmp_path: Path) -> None:
    root = write_gta5(tmp_path, [[[7]]])
    with pytest.raises(ConfigError, match="unknown format 'gta'; use one of auto, gta5"):
        open_dataset(root, format="gta")
    with pytest.raises(ConfigError, match="goes with format folder"):
        open_dataset(root, format="gta5", classes=tmp_path / "c.yaml")


def test_finer_label_space_is_refused(tmp_path: Path) -> None:
    finer = LabelSpace("finer", (*CITYSCAPES19.classes, LabelClass("lane marking", (1, 1, 1))))
    with pytest.raises(ConfigError, match="has lane marking, but no class of the data becomes that"):
        open_dataset(write_gta5(tmp_path, [[[7]]]), label_space=finer)
