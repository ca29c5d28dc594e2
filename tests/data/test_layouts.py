"""Masks are never taken for pictures: layouts are recognised, or refused with what to give instead (fault 50)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.cli import main
from iccld.config.domains import FORMATS as CONFIG_FORMATS
from iccld.data import FORMATS, open_dataset
from iccld.data.layouts import mirrored_folders, pictures_below, recognise
from iccld.errors import ConfigError, DataError
from iccld.labels import CITYSCAPES19, LabelClass, LabelSpace

SIZE = (24, 40)
TWO = LabelSpace("two", (LabelClass("road", (128, 64, 128)), LabelClass("sky", (70, 130, 180))))


def photo(path: Path, seed: int = 0) -> None:
    """A picture as a camera gives it: every pixel another colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)


def mask(path: Path, ids: Sequence[int] = (7, 23), palette: bool = False) -> None:
    """The upper half holds the first id, the lower one the second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(SIZE, ids[0], dtype=np.uint8)
    values[SIZE[0] // 2 :] = ids[1]
    image = Image.fromarray(values)
    if palette:
        image.putpalette(bytes(range(256)) * 3)
    image.save(path)


def voc(root: Path) -> None:
    for i in range(6):
        photo(root / "JPEGImages" / f"{i:06d}.jpg", i)
        mask(root / "SegmentationClass" / f"{i:06d}.png", (1, 2), palette=True)
        mask(root / "SegmentationObject" / f"{i:06d}.png", (1, 2), palette=True)


def kitti(root: Path) -> None:
    for i in range(6):
        photo(root / "training" / "image_2" / f"{i:06d}_10.png", i)
        mask(root / "training" / "semantic" / f"{i:06d}_10.png")
        mask(root / "training" / "instance" / f"{i:06d}_10.png")


def acdc(root: Path) -> None:
    for i in range(6):
        stem = f"train/GOPR01/GOPR01_frame_{i:06d}"
        condition = ("fog", "night")[i % 2]
        photo(root / "rgb_anon" / condition / f"{stem}_rgb_anon.png", i)
        mask(root / "gt" / condition / f"{stem}_gt_labelIds.png")
        mask(root / "gt" / condition / f"{stem}_gt_labelColor.png", palette=True)


def bdd100k(root: Path) -> None:
    for i in range(6):
        photo(root / "images" / "10k" / "train" / f"{i:04x}-{i:04x}.jpg", i)
        mask(root / "labels" / "sem_seg" / "masks" / "train" / f"{i:04x}-{i:04x}.png", (0, 10))
        mask(root / "labels" / "sem_seg" / "colormaps" / "train" / f"{i:04x}-{i:04x}.png", (0, 10), palette=True)


def mapillary(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text("{}")
    for i in range(6):
        photo(root / "training" / "images" / f"{i}.jpg", i)
        mask(root / "training" / "labels" / f"{i}.png", (1, 2), palette=True)
        mask(root / "training" / "instances" / f"{i}.png", (1, 2))


def parts_of_mapillary(root: Path, beside: str) -> None:
    """The parts without their config.json, named as GTA5's folders are."""
    for i in range(6):
        photo(root / beside.split("/")[0] / "images" / f"{i}.jpg", i)
        mask(root / beside / f"{i}.png", (1, 2), palette=True)
        mask(root / beside.split("/")[0] / "labels" / f"{i}.png", (1, 2), palette=True)


def idd(root: Path) -> None:
    for i in range(6):
        photo(root / "leftImg8bit" / "train" / "0" / f"{i}_leftImg8bit.png", i)
        polygons = root / "gtFine" / "train" / "0" / f"{i}_gtFine_polygons.json"
        polygons.parent.mkdir(parents=True, exist_ok=True)
        polygons.write_text("{}")


def carla(root: Path) -> None:
    for i in range(6):
        photo(root / "rgb" / f"{i:08d}.png", i)
        tags = np.zeros((*SIZE, 3), dtype=np.uint8)
        tags[..., 0] = 7
        tags[: SIZE[0] // 2, :, 0] = 13
        path = root / "semantic" / f"{i:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tags).save(path)


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "voc": (voc, "Pascal VOC"),
    "kitti": (kitti, "KITTI semantics"),
    "acdc": (acdc, "ACDC"),
    "bdd100k": (bdd100k, "BDD100K"),
    "mapillary": (mapillary, "Mapillary Vistas"),
    "idd": (idd, "IDD"),
    "carla": (carla, "CARLA recording (rgb/, semantic/)"),
}
READ = ("kitti", "acdc", "bdd100k")
"""Their masks say what their ids mean."""


def test_settings_and_reader_know_the_same_formats() -> None:
    assert set(CONFIG_FORMATS) == set(FORMATS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_fault_50_a_target_of_each_layout_is_its_pictures_alone(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][0](tmp_path)
    layout = recognise(tmp_path)
    assert layout is not None
    assert (layout.format, layout.title) == (name, LAYOUTS[name][1])
    dataset = open_dataset(tmp_path, labels=False)
    assert len(dataset) == 6
    assert not dataset.has_labels
    assert dataset.layout == LAYOUTS[name][1]
    files, words = pictures_below(tmp_path)
    assert sorted(files) == sorted(dataset.image_paths)
    assert LAYOUTS[name][1] in words


@pytest.mark.parametrize("beside", ["training/instances", "training/v1.2/labels", "validation/v2.0/labels"])
def test_fault_50_mapillary_without_its_config_is_not_taken_for_gta5(beside: str, tmp_path: Path) -> None:
    parts_of_mapillary(tmp_path, beside)
    assert open_dataset(tmp_path, split=beside.split("/")[0], labels=False).format == "mapillary"
    with pytest.raises(ConfigError, match="is Mapillary Vistas; its masks do not say which class an id is"):
        open_dataset(tmp_path, split=beside.split("/")[0])


def test_pictures_beside_masks_are_found_whatever_their_folder_is_called(tmp_path: Path) -> None:
    photo(tmp_path / "imgs" / "a.jpg")
    mask(tmp_path / "masks" / "a.png", (1, 0))
    dataset = open_dataset(tmp_path, label_space=TWO)
    assert [path.parent.name for path in dataset.image_paths] == ["imgs"]
    label = dataset.read_label(0)
    assert (int(label[0, 0]), int(label[-1, 0])) == (1, 0)
    photo(tmp_path / "more" / "a.jpg")  # two folders of pictures: which one is meant has to be said
    with pytest.raises(DataError, match=r"has masks/ but no images/; .* dataset\.yaml to name them: images: FOLDER"):
        open_dataset(tmp_path, label_space=TWO)


@pytest.mark.parametrize("name", READ)
def test_layouts_with_known_ids_are_read(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][0](tmp_path)
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 6
    upper, lower = {"kitti": (0, 10), "acdc": (0, 10), "bdd100k": (0, 10)}[name]
    label = dataset.read_label(0)
    assert (int(label[0, 0]), int(label[-1, 0])) == (upper, lower)


def test_acdc_names_keep_the_condition(tmp_path: Path) -> None:
    acdc(tmp_path)
    assert open_dataset(tmp_path).names[0] == "fog/GOPR01/GOPR01_frame_000000"


@pytest.mark.parametrize("name", ["voc", "mapillary"])
def test_fault_50_layouts_without_known_ids_are_refused_with_what_to_give(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][0](tmp_path)
    with pytest.raises(ConfigError, match=rf"is {LAYOUTS[name][1]}; its masks do not say which class an id is: put a dataset\.yaml there"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.yaml").write_text("classes: [{name: road, ids: [1]}, {name: sky, ids: [2]}]")
    dataset = open_dataset(tmp_path, label_space=TWO)
    assert len(dataset) == 6
    assert dataset.read_label(0)[[0, -1], 0].tolist() == [0, 1]
    assert dataset.layout == LAYOUTS[name][1]


@pytest.mark.parametrize("name", LAYOUTS)
def test_data_check_tells_what_a_layout_is(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "cache"))
    LAYOUTS[name][0](tmp_path / "data")
    code = main(["data", "check", "--data", str(tmp_path / "data")])
    told = capsys.readouterr()
    assert f"laid out as {LAYOUTS[name][1]}" in told.err
    if name in READ:
        assert code == 0
        assert "6 pictures, 6 with labels" in told.out


def test_voc_lists_are_its_splits(tmp_path: Path) -> None:
    voc(tmp_path)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("000000\n000001\n")
    (lists / "val.txt").write_text("000005\n")
    assert open_dataset(tmp_path, split="val", labels=False, is_asked=True).names == ["000005"]
    (tmp_path / "dataset.yaml").write_text("classes: [{name: road, ids: [1]}, {name: sky, ids: [2]}]")
    assert open_dataset(tmp_path, label_space=TWO).names == ["000000", "000001"]


def test_fault_50_the_folder_that_is_suggested_exists(tmp_path: Path) -> None:
    for clip in ("one", "two"):
        for i in range(4):
            photo(tmp_path / "cam" / clip / "rgb" / f"{i}.png", i)
    for i in range(4):
        mask(tmp_path / "seg" / f"{i}.png")
    with pytest.raises(DataError, match=rf"alone, e\.g\. {tmp_path}/cam,"):
        open_dataset(tmp_path, labels=False)


@pytest.mark.parametrize("names", [("cam", "seg"), ("cam", "whatever"), ("a", "depth")])
def test_fault_50_folders_beside_the_pictures_are_refused_by_name_or_content(names: tuple[str, str], tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / names[0] / "one" / f"{i}.png", i)
        photo(tmp_path / names[0] / "two" / f"{i}.png", i)
        if names[1] == "depth":
            photo(tmp_path / names[1] / f"{i}.png", i)
        else:
            mask(tmp_path / names[1] / f"{i}.png")
    with pytest.raises(DataError, match=rf"4 of 12 picture files look like masks or depth maps .*alone, e\.g\. {tmp_path}/{names[0]},"):
        open_dataset(tmp_path, labels=False)
    with pytest.raises(DataError, match="look like masks"):
        pictures_below(tmp_path)
    (tmp_path / "dataset.yaml").write_text(f"images: {names[0]}")
    assert len(open_dataset(tmp_path, labels=False)) == 8


def test_fault_50_masks_among_the_pictures_of_one_folder_are_refused(tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / f"{i}.jpg", i)
        mask(tmp_path / f"{i}_mask.png")
    with pytest.raises(DataError, match=r"4 of 8 picture files look like masks .*, such as 0_mask\.png, named \*_mask"):
        open_dataset(tmp_path, labels=False)
    (tmp_path / "dataset.yaml").write_text("suffixes: {mask: _mask.png}\nclasses: [{name: road, ids: [7]}, {name: sky, ids: [23]}]")
    dataset = open_dataset(tmp_path, label_space=TWO)
    assert dataset.names == ["0", "1", "2", "3"]
    assert dataset.read_label(3)[[0, -1], 0].tolist() == [0, 1]
    assert len(open_dataset(tmp_path, labels=False)) == 4


def test_masks_whose_names_end_otherwise_are_paired(tmp_path: Path) -> None:
    for i in range(3):
        photo(tmp_path / "images" / f"{i}_rgb_anon.jpg", i)
        mask(tmp_path / "masks" / f"{i}_gt_labelIds.png", (0, 1))
    dataset = open_dataset(tmp_path, label_space=TWO)
    assert dataset.names == ["0", "1", "2"]
    assert any("paired by what stands before the endings" in note for note in dataset.notes)
    (tmp_path / "dataset.yaml").write_text(
        "suffixes: {image: _rgb_anon, mask: _gt_labelIds}\nclasses: [{name: road, ids: [0]}, {name: sky, ids: [1]}]"
    )
    assert open_dataset(tmp_path, label_space=TWO).names == ["0", "1", "2"]
    mask(tmp_path / "masks" / "0_gt_labelColor.png", (100, 101))  # left alone: it does not end as the YAML says
    assert len(open_dataset(tmp_path, label_space=TWO)) == 3


def test_drawn_pictures_may_fill_a_folder_named_images_and_no_other(tmp_path: Path) -> None:
    for i in range(4):
        mask(tmp_path / "images" / f"{i}.png")
    assert len(open_dataset(tmp_path, labels=False)) == 4
    with pytest.raises(DataError, match="4 of 4 picture files look like masks"):
        open_dataset(tmp_path / "images", labels=False)


def test_sequences_that_repeat_their_names_are_pictures(tmp_path: Path) -> None:
    for clip in ("one", "two"):
        for i in range(4):
            photo(tmp_path / clip / f"{i:06d}.png", i)
    assert len(open_dataset(tmp_path, labels=False)) == 8


def test_folders_that_mirror_each_other_are_pictures_and_masks(tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / "input" / f"{i}.png", i)
        mask(tmp_path / "target" / f"{i}.png", (0, 1))
    assert mirrored_folders(tmp_path) == (tmp_path / "input", tmp_path / "target")
    dataset = open_dataset(tmp_path, label_space=TWO)
    assert len(dataset) == 4
    assert dataset.read_label(2)[[0, -1], 0].tolist() == [0, 1]
    assert any("input/ holds the pictures and target/ the masks" in note for note in dataset.notes)


def test_a_layout_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="is not laid out as KITTI semantics"):
        open_dataset(tmp_path, "kitti", label_space=CITYSCAPES19)
