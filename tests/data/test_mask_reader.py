"""What a mask's values mean: found where it can be, refused where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.data import MaskReader
from iccld.errors import ConfigError, DataError
from iccld.labels import CAMVID11, CITYSCAPES16, CITYSCAPES19, LabelClass, LabelSpace, raw_ids

CLASSES = np.arange(19, dtype=np.uint8).reshape(1, 19)
SIZE = (1, 19)
OWN = LabelSpace("own", (LabelClass("a", (1, 2, 3)), LabelClass("b", (4, 5, 6))))


def save(path: Path, values: np.ndarray, palette: np.ndarray | None = None) -> Path:
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(path)
    return path


def raw_palette() -> np.ndarray:
    colors = np.zeros((34, 3), np.uint8)
    colors[raw_ids(CITYSCAPES19)[:19]] = CITYSCAPES19.palette
    return colors


KINDS = {
    "train": (CLASSES, None, "train"),
    "train with a palette": (CLASSES, CITYSCAPES19.palette, "train"),
    "train of 16 bits": (CLASSES.astype(np.uint16), None, "train"),
    "raw": (raw_ids(CITYSCAPES19)[CLASSES], None, "raw"),
    "raw with a palette": (raw_ids(CITYSCAPES19)[CLASSES], raw_palette(), "raw"),
    "raw of 16 bits": (raw_ids(CITYSCAPES19)[CLASSES].astype(np.uint16), None, "raw"),
    "color": (CITYSCAPES19.palette[CLASSES], None, "color"),
    "color with alpha": (np.dstack([CITYSCAPES19.palette[CLASSES], np.full(SIZE, 255, np.uint8)]), None, "color"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mask_is_told_apart(tmp_path: Path, kind: str) -> None:
    values, palette, meaning = KINDS[kind]
    path = save(tmp_path / "a.png", values, palette)
    reader = MaskReader(CITYSCAPES19)
    reader.find([path])
    assert reader.ids == meaning
    assert reader.read(path, SIZE).tolist() == CLASSES.tolist()
    assert MaskReader(CITYSCAPES19, reader.ids).read(path, SIZE).tolist() == CLASSES.tolist()


def test_later_masks_decide_where_the_first_do_not(tmp_path: Path) -> None:
    both = save(tmp_path / "a.png", np.array([[0, 7, 8, 17]], np.uint8))
    for name, value, ids in (("b", 26, "raw"), ("c", 1, "train"), ("d", 255, "train")):
        reader = MaskReader(CITYSCAPES19)
        reader.find([both, save(tmp_path / f"{name}.png", np.array([[7, value]], np.uint8))])
        assert reader.ids == ids


def test_masks_that_are_both_are_refused_unless_their_palette_tells(tmp_path: Path) -> None:
    values = np.array([[0, 7, 8, 11, 12, 13, 17]], np.uint8)
    with pytest.raises(ConfigError, match="as well as raw ids; say which with --ids train or --ids raw"):
        MaskReader(CITYSCAPES19).find([save(tmp_path / "a.png", values)])
    for palette, ids in ((CITYSCAPES19.palette, "train"), (raw_palette(), "raw")):
        reader = MaskReader(CITYSCAPES19)
        reader.find([save(tmp_path / "b.png", values, palette)])
        assert reader.ids == ids
    collapsed = MaskReader(CITYSCAPES19)
    collapsed.find([save(tmp_path / "road.png", np.zeros((1, 4), np.uint8), CITYSCAPES19.palette)])
    assert collapsed.ids == "train"
    grey = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None], 3, axis=1)
    with pytest.raises(ConfigError, match="say which"):
        MaskReader(CITYSCAPES19).find([save(tmp_path / "c.png", values, grey)])


def test_a_palette_that_contradicts_its_indices_is_refused(tmp_path: Path) -> None:
    """As an image program writes that packs the colours it finds: road's colour under index 1."""
    path = save(tmp_path / "a.png", np.array([[1, 2, 3]], np.uint8), CITYSCAPES19.palette[[10, 0, 2, 13]])
    with pytest.raises(DataError, match=r"a\.png: its indices and its palette name different classes; say --ids color"):
        MaskReader(CITYSCAPES19).find([path])
    assert MaskReader(CITYSCAPES19, "color").read(path, (1, 3)).tolist() == [[0, 2, 13]]
    assert MaskReader(CITYSCAPES19, "train").read(path, (1, 3)).tolist() == [[1, 2, 3]]


def test_masks_of_several_kinds_in_one_folder_are_refused(tmp_path: Path) -> None:
    train = save(tmp_path / "a.png", CLASSES)
    raw = save(tmp_path / "b.png", raw_ids(CITYSCAPES19)[CLASSES])
    color = save(tmp_path / "c.png", CITYSCAPES19.palette[CLASSES])
    both = save(tmp_path / "d.png", np.array([[7, 8]], np.uint8))
    with pytest.raises(DataError, match=r"c\.png: holds other ids than the masks before it"):
        MaskReader(CITYSCAPES19).find([both, color])
    reader = MaskReader(CITYSCAPES19)
    reader.find([train, raw, color])
    for path in (raw, color):
        with pytest.raises(DataError, match=rf"{path.name}: does not hold train ids, as the masks before it do"):
            reader.read(path, SIZE)
    assert reader.read(both, (1, 2)).tolist() == [[7, 8]]
    with pytest.raises(DataError, match=r"e\.png: holds 1, 26: neither all train ids nor all raw ids"):
        MaskReader(CITYSCAPES19).find([save(tmp_path / "e.png", np.array([[1, 26]], np.uint8))])


def test_meanings_depend_on_the_label_space(tmp_path: Path) -> None:
    for space, values, ids in ((CITYSCAPES16, [[15, 3]], "train"), (CITYSCAPES16, [[22, 7]], "raw"), (CAMVID11, [[10, 255]], "train")):
        reader = MaskReader(space)
        reader.find([save(tmp_path / "a.png", np.array(values, np.uint8))])
        assert reader.ids == ids
    reader = MaskReader(OWN)  # raw ids mean nothing here, so that small values are no puzzle
    reader.find([save(tmp_path / "b.png", np.array([[0, 1]], np.uint8))])
    assert reader.ids == "train"
    with pytest.raises(ConfigError, match="but no class of the data becomes that"):
        MaskReader(OWN, "raw")


def test_colors_of_nothing_and_ambiguous_palettes_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[[128, 64, 128], [0, 0, 0], [129, 64, 128]]], np.uint8))
    with pytest.raises(DataError, match=r"a\.png: colour 129,64,128 is in no class of cityscapes19 \(1 such pixels\)"):
        MaskReader(CITYSCAPES19, "color").read(path, (1, 3))
    void = save(tmp_path / "b.png", np.array([[[128, 64, 128], [0, 0, 0]]], np.uint8))
    assert MaskReader(CITYSCAPES19, "color").read(void, (1, 2)).tolist() == [[0, 255]]
    with pytest.raises(DataError, match=r"c\.png: grey values, not colours"):
        MaskReader(CITYSCAPES19, "color").read(save(tmp_path / "c.png", CLASSES), SIZE)
    twins = LabelSpace("twins", (LabelClass("a", (1, 2, 3)), LabelClass("b", (1, 2, 3))))
    with pytest.raises(ConfigError, match="'a' and 'b' share a colour"):
        MaskReader(twins, "color")
    assert MaskReader(twins, "train").read(save(tmp_path / "d.png", np.array([[0, 1]], np.uint8)), (1, 2)).tolist() == [[0, 1]]


def test_shallow_and_odd_files(tmp_path: Path) -> None:
    """Pillow would stretch grey of 4 bits to 0..255."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 4, 0, 0, 0, 0))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes([0, 0x01, 0x5F]))) + chunk(b"IEND", b""))
    assert MaskReader(CITYSCAPES19).read(path, (1, 4)).tolist() == [[0, 1, 5, 15]]
    bitmap = tmp_path / "b.png"
    Image.fromarray(np.array([[False, True]])).save(bitmap)
    assert MaskReader(OWN, "train").read(bitmap, (1, 2)).tolist() == [[0, 1]]
    with pytest.raises(DataError, match=r"c\.tif: a mask of mode F holds colours, not ids"):
        MaskReader(OWN, "train").read(save(tmp_path / "c.tif", np.zeros((1, 2), np.float32)), (1, 2))
    wide = save(tmp_path / "d.png", np.array([[1, 300]], np.uint16))
    assert MaskReader(OWN, "train").read(wide, (1, 2)).tolist() == [[1, 255]]
