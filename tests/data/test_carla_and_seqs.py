"""CARLA in both numberings, in red and painted; SYNTHIA's sequences, told apart from RAND-CITYSCAPES by what the files hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from iccld.data import open_dataset
from iccld.data.carla import COLORS, NEW, NEW_COLORS, OLD
from iccld.errors import ConfigError
from iccld.labels import CITYSCAPES19, LabelClass, LabelSpace

SIZE = (24, 40)
STREET = LabelSpace(
    "street",
    (
        LabelClass("road", (1, 1, 1)),
        LabelClass("sky", (2, 2, 2)),
        LabelClass("vehicle", (3, 3, 3), ("car", "truck", "bus", "train", "motorcycle", "bicycle")),
        LabelClass("person", (4, 4, 4), ("rider",)),
    ),
)


def scene(sky: int, road: int, vehicle: int, person: int) -> np.ndarray:
    """(24, 40) tags: sky above road, on which something stands."""
    tags = np.full(SIZE, road, dtype=np.uint8)
    tags[:12] = sky
    tags[16:20, :10] = vehicle
    tags[16:20, 20:24] = person
    return tags


def record(root: Path, tags: np.ndarray, colors: Mapping[tuple[int, int, int], int] | None = None, alpha: bool = False) -> None:
    """A recording of three frames, in red or painted."""
    for folder in ("rgb", "semantic"):
        (root / folder).mkdir(parents=True)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for color, tag in (colors or {}).items():
        palette[tag] = color
    image = palette[tags] if colors else np.stack([tags, np.zeros_like(tags), np.zeros_like(tags)], axis=-1)
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "rgb" / f"{i}.png")
        saved = Image.fromarray(image)
        (saved.convert("RGBA") if alpha else saved).save(root / "semantic" / f"{i}.png")


@pytest.mark.parametrize("painted", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("version", ["0.9.13", "0.9.14"])
def test_carla_is_read_in_both_numberings(tmp_path: Path, version: str, painted: bool, alpha: bool) -> None:
    is_new = version == "0.9.14"
    names, colors = (NEW, NEW_COLORS) if is_new else (OLD, COLORS)
    tags = scene(*(names.index(name) for name in ("sky", "road", "car" if is_new else "vehicle", "person")))
    if painted:
        tags[23, :3] = names.index("fence")  # its colour tells the tables apart
    tags[22, :4] = names.index("road line")
    record(tmp_path, tags, colors if painted else None, alpha)
    dataset = open_dataset(tmp_path, label_space=STREET)
    assert dataset.format == "carla"
    assert f"tags as of CARLA {'0.9.14 and later' if is_new else '0.9.5 to 0.9.13'}" in dataset.notes[0]
    expected = scene(1, 0, 2, 3)
    if painted:
        expected[23, :3] = 255
    assert dataset.read_label(1).tolist() == expected.tolist()  # lane markings are road


def test_carla_new_numbering_fills_cityscapes(tmp_path: Path) -> None:
    tags = scene(11, 1, 14, 12)
    tags[0, :29] = np.arange(29)
    record(tmp_path, tags)
    row = open_dataset(tmp_path, label_space=CITYSCAPES19).read_label(0)[0]
    assert row[:20].tolist() == [255, *range(19)]
    assert row[20:29].tolist() == [255, 255, 255, 255, 0, 255, 255, 255, 255]


def test_carla_tags_that_fit_both_tables_are_refused(tmp_path: Path) -> None:
    record(tmp_path, np.tile(np.array([[3], [5]], dtype=np.uint8), (12, 40)))
    with pytest.raises(ConfigError, match=r"up to 0\.9\.13 and those from 0\.9\.14 on; put a dataset\.yaml"):
        open_dataset(tmp_path, label_space=STREET)


def test_carla_masks_of_two_kinds_are_refused(tmp_path: Path) -> None:
    record(tmp_path, scene(13, 7, 10, 4))
    Image.new("RGB", (SIZE[1], SIZE[0]), (7, 1, 0)).save(tmp_path / "semantic" / "1.png")
    with pytest.raises(ConfigError, match="neither CARLA's tags in red nor the colours of its converter"):
        open_dataset(tmp_path, label_space=STREET)


def write_synthia(root: Path, rows: list[list[int]]) -> Path:
    for number, row in enumerate(rows):
        raw = np.zeros((1, len(row), 3), dtype=np.uint16)
        raw[..., 2] = row
        for name in ("RGB/Stereo_Left", "GT/LABELS/Stereo_Left"):
            (root / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (len(row), 1), (number, 1, 2)).save(root / "RGB/Stereo_Left" / f"{number:06d}.png")
        cv2.imwrite(str(root / "GT/LABELS/Stereo_Left" / f"{number:06d}.png"), raw)
    return root


SEQS = LabelSpace("seqs", tuple(LabelClass(name, (1, 1, 1)) for name in ("road", "car", "person", "traffic light")))


def test_synthia_sequences_have_their_own_numbers(tmp_path: Path) -> None:
    root = write_synthia(tmp_path, [[3, 12, 8, 10, 15, 0]] * 3)
    dataset = open_dataset(root, label_space=SEQS)
    assert dataset.format == "synthia_seqs"
    assert dataset.read_label(0).tolist() == [[0, 0, 1, 2, 3, 255]]  # 12 is lane marking, which is road
    named = open_dataset(root, "synthia", label_space=SEQS)
    assert any("its masks look like SYNTHIA-SEQS'" in note for note in named.notes)


def test_synthia_rand_keeps_its_motorcycles(tmp_path: Path) -> None:
    root = write_synthia(tmp_path, [[3, 12, 8, 10, 15, 22], [3, 2, 16, 1, 4, 6], [3, 12, 21, 1, 4, 6]])
    dataset = open_dataset(root, label_space=CITYSCAPES19)
    assert dataset.format == "synthia"
    assert dataset.read_label(0).tolist() == [[0, 17, 13, 11, 6, 255]]
