"""Files as the data sets ship them, put together byte by byte: GTA5's palettes, SYNTHIA's 16 bits, Cityscapes' labelIds, at their sizes.

No library writes these fixtures, so that none can hide what another one reads.  Rows are filtered as real encoders filter them, and the
pixels are split over several IDAT chunks.  The palette and the ids are those of cityscapesScripts' helpers/labels.py.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.data import images, open_dataset
from iccld.data.check import check_dataset
from iccld.errors import DataError

GREY, RGB, PALETTE = 0, 2, 3
GTA5_PALETTE = {
    5: (111, 74, 0), 6: (81, 0, 81), 7: (128, 64, 128), 8: (244, 35, 232), 9: (250, 170, 160), 10: (230, 150, 140), 11: (70, 70, 70),
    12: (102, 102, 156), 13: (190, 153, 153), 14: (180, 165, 180), 15: (150, 100, 100), 16: (150, 120, 90), 17: (153, 153, 153),
    18: (153, 153, 153), 19: (250, 170, 30), 20: (220, 220, 0), 21: (107, 142, 35), 22: (152, 251, 152), 23: (70, 130, 180),
    24: (220, 20, 60), 25: (255, 0, 0), 26: (0, 0, 142), 27: (0, 0, 70), 28: (0, 60, 100), 29: (0, 0, 90), 30: (0, 0, 110),
    31: (0, 80, 100), 32: (0, 0, 230), 33: (119, 11, 32), 34: (0, 0, 142),
}  # fmt: skip
"""Index -> colour; 0 to 4 are black.  17 and 18, and 26 and 34, share a colour: only the index tells them apart."""
TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16,
    32: 17, 33: 18,
}  # fmt: skip
SYNTHIA_TRAIN_IDS = {
    3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12, 8: 13, 18: 14, 19: 15, 20: 16, 12: 17, 11: 18,
}  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(rows: np.ndarray, stride: int) -> bytes:
    """(H, bytes a row) uint8 -> rows behind their filter byte: none, sub, up and average in turn (PNG specification, section 9)."""
    zero = np.zeros_like(rows[0])
    out = bytearray()
    for y, row in enumerate(rows):
        left = np.concatenate([np.zeros(stride, np.uint8), row[:-stride]]) if row.size > stride else zero
        above = rows[y - 1] if y else zero
        average = ((left.astype(np.uint16) + above) // 2).astype(np.uint8)
        out.append(y % 4)
        out += (row - (zero, left, above, average)[y % 4]).tobytes()
    return bytes(out)


def write_png(path: Path, values: np.ndarray, color_type: int, palette: bytes = b"") -> Path:
    """(H, W) or (H, W, 3) uint8 or uint16 -> a PNG of that depth and colour type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape[:2]
    bits = 8 * values.itemsize
    rows = np.ascontiguousarray(values.astype(f">u{values.itemsize}")).reshape(height, -1).view(np.uint8)
    data = zlib.compress(filtered(rows, rows.shape[1] // width), 1)
    parts = [data[start : start + 8192] for start in range(0, len(data), 8192)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))
    body = header + (chunk(b"PLTE", palette) if palette else b"") + b"".join(chunk(b"IDAT", part) for part in parts) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def palette_bytes(num: int = 256) -> bytes:
    return b"".join(bytes(GTA5_PALETTE.get(index, (0, 0, 0))) for index in range(num))


def columns(ids: list[int], height: int, width: int) -> np.ndarray:
    """(H, W) of the ids in columns, shifted by one every row."""
    y, x = np.indices((height, width))
    return np.array(ids)[(x + y) % len(ids)]


def expected(values: np.ndarray, table: dict[int, int]) -> np.ndarray:
    lookup = np.full(256, 255, np.uint8)
    lookup[list(table)] = list(table.values())
    return lookup[values]


def write_gta5(root: Path, number: int, ids: np.ndarray, num_colors: int = 256) -> None:
    write_png(root / "images" / f"{number:05d}.png", np.zeros((*ids.shape, 3), np.uint8), RGB)
    write_png(root / "labels" / f"{number:05d}.png", ids.astype(np.uint8), PALETTE, palette_bytes(num_colors))


def test_gta5_palette_png_gives_every_index(tmp_path: Path) -> None:
    """All 35 ids, among them black ones, doubled colours and the licence plate (34), which has a car's."""
    ids = columns(list(range(35)), 40, 70)
    write_gta5(tmp_path, 1, ids)
    dataset = open_dataset(tmp_path, "gta5")
    np.testing.assert_array_equal(images.read_palette_indices(tmp_path / "labels/00001.png"), ids)
    np.testing.assert_array_equal(dataset.read_label(0), expected(ids, TRAIN_IDS))
    assert dataset.read_label(0)[ids == 34].tolist() == [255] * int((ids == 34).sum())
    with Image.open(tmp_path / "labels/00001.png") as picture:  # the fixture is what it claims to be
        assert picture.mode == "P"
        assert picture.convert("RGB").getpixel((26, 0)) == (0, 0, 142) == picture.convert("RGB").getpixel((34, 0))


def test_gta5_short_palette_png_is_read_alike(tmp_path: Path) -> None:
    ids = columns(list(range(35)), 8, 36)
    write_gta5(tmp_path, 1, ids, num_colors=35)
    np.testing.assert_array_equal(open_dataset(tmp_path, "gta5").read_label(0), expected(ids, TRAIN_IDS))


def test_gta5_heights_of_1052_and_1046_lie_side_by_side(tmp_path: Path) -> None:
    for number, height in ((1, 1052), (2, 1052), (3, 1046)):
        write_gta5(tmp_path, number, columns([7, 26, 34, 0], height, 1914))
    dataset = open_dataset(tmp_path, "gta5")
    assert dataset.read_label(2).shape == (1046, 1914)
    report = check_dataset(dataset, workers=1)
    assert report.problems == []
    assert report.sizes == {(1052, 1914): 2, (1046, 1914): 1}


def write_synthia(root: Path, number: int, classes: np.ndarray) -> None:
    """Class in red, instance in green, nothing in blue, 16 bits each; GT/COLOR beside it, whose colours name no class."""
    name = f"{number:07d}.png"
    instances = np.arange(classes.size).reshape(classes.shape) % 65536
    labels = np.stack([classes, instances, np.zeros_like(classes)], axis=2).astype(np.uint16)
    write_png(root / "RGB" / name, np.zeros((*classes.shape, 3), np.uint8), RGB)
    write_png(root / "GT/LABELS" / name, labels, RGB)
    write_png(root / "GT/COLOR" / name, np.full((*classes.shape, 3), 200, np.uint8), RGB)


def test_synthia_16_bit_rgb_png_gives_red_exactly(tmp_path: Path) -> None:
    classes = columns(list(range(23)), 30, 50)
    write_synthia(tmp_path, 0, classes)
    np.testing.assert_array_equal(open_dataset(tmp_path, "synthia").read_label(0), expected(classes, SYNTHIA_TRAIN_IDS))
    raw = images.read_png_u16(tmp_path / "GT/LABELS/0000000.png")
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal(raw[..., 1], np.arange(classes.size).reshape(classes.shape))  # above 255 too
    with Image.open(tmp_path / "GT/LABELS/0000000.png") as picture:
        assert np.array(picture).dtype == np.uint8  # why Pillow must not read it
        assert np.array(picture).max() < 23


def test_synthia_never_opens_its_colors(tmp_path: Path) -> None:
    """Files that cannot be decoded lie in GT/COLOR, one of them without a picture: nobody notices."""
    classes = columns([3, 8], 8, 16)
    write_synthia(tmp_path, 0, classes)
    for name in ("0000000.png", "0000001.png"):
        (tmp_path / "GT/COLOR" / name).write_bytes(b"no picture")
    dataset = open_dataset(tmp_path)
    assert check_dataset(dataset, workers=1).problems == []
    np.testing.assert_array_equal(dataset.read_label(0), expected(classes, SYNTHIA_TRAIN_IDS))


def write_cityscapes(root: Path, ids: np.ndarray, dtype: type = np.uint8) -> Path:
    """All that gtFine holds of a frame; only labelIds may be read."""
    stem = "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine"
    write_png(root / "leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png", np.zeros((*ids.shape, 3), np.uint8), RGB)
    write_png(root / f"{stem}_color.png", np.full((*ids.shape, 3), 99, np.uint8), RGB)
    write_png(root / f"{stem}_instanceIds.png", np.full(ids.shape, 26001, np.uint16), GREY)
    write_png(root / f"{stem}_labelTrainIds.png", np.full(ids.shape, 3, np.uint8), GREY)
    (root / f"{stem}_polygons.json").write_text("{}")
    return write_png(root / f"{stem}_labelIds.png", ids.astype(dtype), GREY)


def test_cityscapes_label_ids_are_8_bit_grey(tmp_path: Path) -> None:
    """All ids that cityscapesScripts' json2labelImg draws (it draws no polygon of a negative id, so that no licence plate is there)."""
    ids = columns(list(range(34)), 30, 68)
    write_cityscapes(tmp_path, ids)
    dataset = open_dataset(tmp_path, "cityscapes", "val")
    assert dataset.names == ["frankfurt/frankfurt_000000_000294"]
    np.testing.assert_array_equal(dataset.read_label(0), expected(ids, TRAIN_IDS))


def test_cityscapes_at_its_real_size(tmp_path: Path) -> None:
    ids = columns([7, 26, 23], 1024, 2048)
    write_cityscapes(tmp_path, ids)
    sample = open_dataset(tmp_path, "cityscapes", "val")[0]
    assert sample.image.shape == (1024, 2048, 3)
    assert sample.label is not None
    np.testing.assert_array_equal(sample.label, expected(ids, TRAIN_IDS))


def gta5_of(value: int) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        write_gta5(root, 1, columns([7, value], 2, 4))
        return root / "labels/00001.png"

    return write


def synthia_of(value: int) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        write_synthia(root, 0, columns([3, value], 2, 4))
        return root / "GT/LABELS/0000000.png"

    return write


def cityscapes_of(value: int) -> Callable[[Path], Path]:
    return lambda root: write_cityscapes(root, columns([7, value], 2, 4), np.uint16 if value > 255 else np.uint8)


@pytest.mark.parametrize(
    ("write", "value", "known"),
    [
        (gta5_of(35), 35, "-1, 0-34"),
        (gta5_of(255), 255, "-1, 0-34"),
        (synthia_of(23), 23, "0-22"),
        (synthia_of(259), 259, "0-22"),  # 3 in its low byte
        (synthia_of(65535), 65535, "0-22"),
        (cityscapes_of(35), 35, "-1, 0-34"),
        (cityscapes_of(255), 255, "-1, 0-34"),  # as in train ids, which labelIds are not
        (cityscapes_of(26001), 26001, "-1, 0-34"),  # as in instance ids
    ],
)
def test_ids_outside_the_table_name_file_and_value(tmp_path: Path, write: Callable[[Path], Path], value: int, known: str) -> None:
    path = write(tmp_path)
    dataset = open_dataset(tmp_path, split="val")
    with pytest.raises(DataError, match=f"unknown label value {value} ") as caught:
        dataset.read_label(0)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(f"the ids known here are {known}")
