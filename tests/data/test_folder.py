"""Any folder: YAML, no YAML, subfolders, equal stems, splits, and each way it can be wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.data import open_dataset
from iccld.errors import ConfigError, DataError
from iccld.labels import CAMVID11, CITYSCAPES19, LabelClass, LabelSpace

TWO = LabelSpace("two", (LabelClass("ground", (1, 1, 1), ("road", "path")), LabelClass("sky", (2, 2, 2))))
YAML = """
name: mine
classes:
- {name: road, ids: [10, 11], color: [1, 2, 3]}
- {name: path, ids: [20]}
- {name: sky, ids: [300]}
- {name: bin, ids: [40]}
ignore_ids: [0]
"""


def picture(path: Path, color: int = 50, size: tuple[int, int] = (2, 1)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (color, color, color)).save(path)


def mask(path: Path, ids: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([ids], dtype=np.uint16 if max(ids) > 255 else np.uint8)).save(path)


def labelled(root: Path, ids: list[int]) -> Path:
    picture(root / "images" / "a.jpg", size=(len(ids), 1))
    mask(root / "masks" / "a.png", ids)
    return root


def test_yaml_names_the_ids_and_classes_are_absorbed(tmp_path: Path) -> None:
    labelled(tmp_path, [10, 11, 20, 300, 40, 0])
    (tmp_path / "dataset.yaml").write_text(YAML)
    dataset = open_dataset(tmp_path, label_space=TWO)
    label = dataset[0].label
    assert label is not None
    assert label.tolist() == [[0, 0, 0, 1, 255, 255]]
    assert dataset.notes == ["label space 'two' absorbs no bin: ignored (255)"]


def test_yaml_above_the_folder_and_classes_option(tmp_path: Path) -> None:
    labelled(tmp_path / "val", [10, 300])
    (tmp_path / "dataset.yaml").write_text(YAML)
    assert open_dataset(tmp_path / "val", label_space=TWO).read_label(0).tolist() == [[0, 1]]
    other = tmp_path / "other.yaml"
    other.write_text("classes: [{name: sky, ids: [10]}, {name: road, ids: [300]}]")
    assert open_dataset(tmp_path / "val", label_space=TWO, classes=other).read_label(0).tolist() == [[1, 0]]


def test_yaml_names_other_folders(tmp_path: Path) -> None:
    picture(tmp_path / "pics" / "a.png")
    mask(tmp_path / "truth" / "a.png", [10, 300])
    (tmp_path / "dataset.yaml").write_text(YAML + "images: pics\nmasks: truth\ndepth: far\n")
    (tmp_path / "far").mkdir()
    np.save(tmp_path / "far" / "a.npy", np.ones((1, 2)))
    dataset = open_dataset(tmp_path, label_space=TWO)
    assert (dataset.has_labels, dataset.has_depth) == (True, True)
    (tmp_path / "truth" / "a.png").unlink()
    (tmp_path / "truth").rmdir()
    with pytest.raises(DataError, match=r"truth: no such folder, but .*dataset\.yaml names it"):
        open_dataset(tmp_path, label_space=TWO)


def test_fault_27_yaml_unknown_id_names_file_and_value(tmp_path: Path) -> None:
    labelled(tmp_path, [10, 77])
    (tmp_path / "dataset.yaml").write_text(YAML)
    with pytest.raises(DataError, match=r"masks/a\.png: unknown label value 77 .* known here are 0, 10-11, 20, 40, 300"):
        open_dataset(tmp_path, label_space=TWO)[0]


def test_without_yaml_ids_are_train_ids(tmp_path: Path) -> None:
    labelled(tmp_path, [0, 10, 11, 255])
    camvid = open_dataset(tmp_path, label_space=CAMVID11)
    assert camvid.read_label(0).tolist() == [[0, 10, 255, 255]]
    assert "no dataset.yaml" in camvid.notes[0]
    assert open_dataset(tmp_path, label_space=CITYSCAPES19).read_label(0).tolist() == [[0, 10, 11, 255]]
    with pytest.raises(DataError, match=r"a\.png: unknown label value 10, 11"):
        open_dataset(tmp_path, label_space=TWO).read_label(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clases: []", "did you mean 'classes'"),
        ("classes: [{name: a, ids: [1]}, {name: b, ids: [1]}]", "id 1 already belongs to 'a'"),
        ("classes: [{name: a, ids: [1]}, {name: a, ids: [2]}]", "listed twice"),
        ("classes: [{name: a, ids: 1}]", "must be a list of whole numbers"),
        ("classes: [{name: a, ids: [x]}]", "must be a list of whole numbers"),
        ("classes: [{name: a}]", "must be a list of whole numbers"),
        ("classes: [{ids: [1]}]", "has no 'name'"),
        ("classes: {a: 1}", "'classes' must be a list"),
        ("classes: [{name: a, ids: [1]}]\nignore_ids: [1]", "both ignored and 'a'"),
        ("name: x", "names no 'classes'"),
        ("images: [a]", "must name a subfolder"),
        ("classes: [", "cannot be read as YAML"),
    ],
)
def test_bad_yaml_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    labelled(tmp_path, [1])
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        open_dataset(tmp_path, label_space=TWO)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_alone_are_an_unlabelled_dataset(tmp_path: Path) -> None:
    for name in ("x.JPG", "deep/er/x.png", "y.webp"):
        picture(tmp_path / name)
    dataset = open_dataset(tmp_path)
    assert dataset.names == ["deep/er/x", "x", "y"]
    assert not dataset.has_labels
    assert dataset[0].label is None


def test_fault_35_equal_stems_keep_distinct_names(tmp_path: Path) -> None:
    for name in ("one/a.jpg", "two/a.jpg", "b.jpg", "b.png"):
        picture(tmp_path / "images" / name)
    assert open_dataset(tmp_path).names == ["b.jpg", "b.png", "one/a", "two/a"]


def test_masks_pair_through_subfolders(tmp_path: Path) -> None:
    for folder, ids in (("one", [0, 1]), ("two", [1, 1])):
        picture(tmp_path / "images" / folder / "a.jpg")
        mask(tmp_path / "masks" / folder / "a.png", ids)
    dataset = open_dataset(tmp_path, label_space=TWO)
    assert [dataset.read_label(i).tolist() for i in range(2)] == [[[0, 1]], [[1, 1]]]


def test_fault_28_splits_inside_images_and_beside_them(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for number in range(count):
            picture(tmp_path / "inside" / "images" / split / f"{number}.jpg")
            mask(tmp_path / "inside" / "masks" / split / f"{number}.png", [0, 1])
            picture(tmp_path / "beside" / split / "images" / f"{number}.jpg")
    assert [len(open_dataset(tmp_path / "inside", split=s, label_space=TWO)) for s in ("train", "val")] == [2, 1]
    assert [len(open_dataset(tmp_path / "beside", split=s)) for s in ("train", "val")] == [2, 1]
    with pytest.raises(DataError, match="expected a split 'test', found train, val"):
        open_dataset(tmp_path / "inside", split="test", label_space=TWO)


def test_fault_28_unpaired_files_are_errors_with_counts(tmp_path: Path) -> None:
    labelled(tmp_path, [0, 1])
    mask(tmp_path / "masks" / "b.png", [0, 1])
    with pytest.raises(DataError, match=r"expected 1 masks for 1 pictures, found 2; no picture for mask .*b\.png"):
        open_dataset(tmp_path, label_space=TWO)
    picture(tmp_path / "images" / "b.jpg")
    picture(tmp_path / "images" / "c.jpg")
    picture(tmp_path / "images" / "d.jpg")
    with pytest.raises(DataError, match=r"expected 4 masks for 4 pictures, found 2; no mask .*c\.png \(and 1 more\)"):
        open_dataset(tmp_path, label_space=TWO)
    assert len(open_dataset(tmp_path, label_space=TWO, labels=False)) == 4


def test_lossy_masks_are_refused(tmp_path: Path) -> None:
    labelled(tmp_path, [0, 1])
    picture(tmp_path / "masks" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: a mask must keep its ids exact"):
        open_dataset(tmp_path, label_space=TWO)


def test_masks_are_never_taken_for_pictures(tmp_path: Path) -> None:
    mask(tmp_path / "only" / "masks" / "a.png", [0])
    with pytest.raises(DataError, match="has masks/ but no images/"):
        open_dataset(tmp_path / "only")
    labelled(tmp_path / "several" / "first", [0])
    with pytest.raises(DataError, match="holds several datasets"):
        open_dataset(tmp_path / "several")


def test_fault_35_loops_of_links_end(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a b é.jpg")
    os.symlink(tmp_path / "images", tmp_path / "images" / "again")
    assert open_dataset(tmp_path).names == ["a b é"]
