"""Files that are damaged, lie about themselves, or are no files at all: one DataError line each, never a wrong array or a hang."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image

from iccld.data import finding, images, open_dataset
from iccld.data.finding import find_files
from iccld.data.images import read_depth, read_image, read_palette_indices, read_png_u16
from iccld.data.jpeg import count_scans
from iccld.errors import DataError
from iccld.labels import LabelClass, LabelSpace

GOLDEN = Path(__file__).parent / "golden"
ALL = sorted(path.name for path in GOLDEN.iterdir() if path.suffix != ".py" and path.is_file())
TWO = LabelSpace("two", (LabelClass("ground", (1, 1, 1)), LabelClass("sky", (2, 2, 2))))
IS_FULL = os.environ.get("FAULTS") == "full"
DEADLINE = 60
"""Seconds of the clock: enough for a busy machine, and too few for a pipe."""


@pytest.fixture
def deadline() -> Iterator[None]:
    """A reader that waits for a pipe would wait for ever."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still reading after {DEADLINE} s")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(DEADLINE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def refusal(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, pixels: bytes, *, bits: int = 8, color_type: int = 2, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG with any header, pixel data and chunks around it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(pixels)) + after + chunk(b"IEND", b"")


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


# --- fault 25: damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1.png", "l.png", "p.png", "i16.png"])
def test_fault_25_every_flipped_bit_of_a_png_mask_is_seen(tmp_path: Path, name: str) -> None:
    """Every 7th bit, which is each place in a byte by turns; FAULTS=full takes all."""
    whole = (GOLDEN / name).read_bytes()
    path = tmp_path / name
    for position in range(0, 8 * len(whole), 1 if IS_FULL else 7):
        byte, bit = divmod(position, 8)
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1 << bit]) + whole[byte + 1 :])
        refusal(read_palette_indices, path)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("f.tif", "i_negative.tif", "lab.tif")])
def test_fault_25_truncated_pictures_are_refused_or_lack_nothing(tmp_path: Path, name: str) -> None:
    """At 60 lengths; FAULTS=full takes all.  Nothing but a lost tail behind the pixels may go unseen."""
    whole = (GOLDEN / name).read_bytes()
    expected = read_image(GOLDEN / name)
    path = tmp_path / name
    lengths = range(len(whole)) if IS_FULL else np.unique(np.linspace(0, len(whole) - 1, 60).astype(int)).tolist()
    unseen = 0
    for length in lengths:
        path.write_bytes(whole[:length])
        try:
            read = read_image(path)
        except DataError:
            continue
        np.testing.assert_array_equal(read, expected)
        unseen += 1
    # Of three pages or frames the first is read, in the first third of the file.
    allowed = 0 if name.endswith(".png") else 3 / 4 if name.startswith("animated") else 1 / 2
    assert unseen <= allowed * len(lengths)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("f.tif", "i_negative.tif", "lab.tif")])
def test_fault_25_garbage_behind_a_whole_picture_changes_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes((GOLDEN / name).read_bytes() + np.random.default_rng(1).bytes(999))
    np.testing.assert_array_equal(read_image(path), read_image(GOLDEN / name))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_fault_25_jpeg_that_lost_its_lower_half_is_refused(tmp_path: Path, mode: str) -> None:
    """Pillow fills the rest with grey and says nothing when the end mark is there."""
    whole = encoded(Image.fromarray(NOISE).convert(mode), "JPEG")
    path = tmp_path / "half.jpg"
    path.write_bytes(whole[: len(whole) * 2 // 3] + b"\xff\xd9")
    with Image.open(path) as image:
        assert np.asarray(image).shape[:2] == (48, 64)
    assert "coded data is damaged" in refusal(read_image, path)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"subsampling": "4:1:1"}, {"quality": 20}]
)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 8), (17, 33)])
def test_jpeg_pixels_are_those_of_pillow(tmp_path: Path, mode: str, options: dict[str, object], size: tuple[int, int]) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(NOISE).resize(size).convert(mode), "JPEG", **options))
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 1000, b"\xff" * 1000, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6 1 1 255 abc", b"GIF89a"]
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif", "bmp"])
def test_fault_25_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    """Nor is a format that nobody asked for: Pillow starts Ghostscript for PostScript."""
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    refusal(read_image, path)


# --- fault 32: bombs --------------------------------------------------------------------------------------------------------


def with_size(format: str, width: int, height: int) -> bytes:
    """A small picture whose header tells of a large one."""
    whole = bytearray(encoded(Image.fromarray(NOISE), format, **({"lossless": True} if format == "WEBP" else {})))
    if format == "JPEG":
        at = whole.index(b"\xff\xc0") + 5
        whole[at : at + 4] = struct.pack(">HH", height, width)
    elif format == "WEBP":
        at = whole.index(b"VP8L") + 9
        bits = int.from_bytes(whole[at : at + 4], "little") >> 28 << 28 | (height - 1) << 14 | (width - 1)
        whole[at : at + 4] = bits.to_bytes(4, "little")
    elif format == "TIFF":
        for tag, value in ((256, width), (257, height)):
            at = whole.index(struct.pack("<HHI", tag, 4, 1) if struct.pack("<HHI", tag, 4, 1) in whole else struct.pack("<HHI", tag, 3, 1))
            whole[at + 2 : at + 12] = struct.pack("<HII", 4, 1, value)
    elif format == "BMP":
        whole[18:26] = struct.pack("<ii", width, height)
    else:
        whole[6:10] = struct.pack("<HH", width, height)
    return bytes(whole)


@pytest.mark.parametrize(
    ("format", "width", "height"),
    [
        ("JPEG", 8300, 8300),
        ("JPEG", 65500, 65500),
        ("WEBP", 6000, 6000),
        ("WEBP", 16383, 16383),
        ("TIFF", 8300, 8300),
        ("TIFF", 2**31, 2**31),
        ("BMP", 8300, 8300),
        ("BMP", 2**31 - 1, 2**31 - 1),
        ("GIF", 8300, 8300),
        ("GIF", 65535, 65535),
    ],
)
def test_fault_32_headers_of_too_many_pixels_are_refused(tmp_path: Path, format: str, width: int, height: int) -> None:
    path = tmp_path / f"bomb.{format.lower()}"
    path.write_bytes(with_size(format, width, height))
    assert "more than the limit" in refusal(read_image, path) or "limit of" in refusal(read_image, path)


def test_fault_32_deep_colour_has_half_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(png_of(8000, 5000, b"", bits=16))
    assert f"limit of {images.MAX_PIXELS_WIDE}" in refusal(read_image, path)


@pytest.mark.parametrize("lines", [0, 1, 63])
def test_fault_32_header_that_promises_more_than_there_is(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "lie.png"
    for color_type, width in ((2, 3 * 64), (0, 64)):
        path.write_bytes(png_of(64, 64, bytes(width + 1) * lines, color_type=color_type))
        assert "truncated or corrupt" in refusal(read_image, path)
    assert "pixels are missing" in refusal(read_palette_indices, path)


@pytest.mark.parametrize("color_type", [0, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 8), (9, 9), (17, 4)])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_fault_25_interlaced_masks_are_whole_or_refused(tmp_path: Path, color_type: int, size: tuple[int, int], bits: int) -> None:
    """Adam7 has a filter byte for every row of every pass that has columns: one byte less is seen, none less is not."""
    width, height = size
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    shapes = [(len(range(x, width, dx)), len(range(y, height, dy))) for x, y, dx, dy in passes]
    pixels = bytes(sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in shapes if columns))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 1)) + chunk(b"PLTE", bytes(6))
    path = tmp_path / "m.png"
    for lost in (0, 1):
        body = chunk(b"IDAT", zlib.compress(pixels[lost:])) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
        if lost:
            assert "pixels are missing" in refusal(read_palette_indices, path)
        else:
            assert read_palette_indices(path).tolist() == np.zeros((height, width)).tolist()


def test_fault_32_scans_without_end_are_refused(tmp_path: Path) -> None:
    """Each scan is a pass over all pixels: 33 bytes of work for a second."""
    whole = encoded(Image.new("RGB", (4096, 4096)), "JPEG", progressive=True)
    assert count_scans(whole) == 10
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    path = tmp_path / "scans.jpg"
    path.write_bytes(whole[:-2] + scan * 60 + b"\xff\xd9")
    assert "70 scans" in refusal(read_image, path)


def test_scans_of_thumbnails_and_of_what_follows_do_not_count(tmp_path: Path) -> None:
    plain = encoded(Image.fromarray(NOISE), "JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(plain)) + plain
    assert count_scans(plain[:2] + thumbnail + plain[2:] + plain * 3) == 1
    assert count_scans(encoded(Image.fromarray(NOISE), "JPEG", restart_marker_blocks=1)) == 1
    assert [count_scans(data) for data in (b"", b"\xff\xd8", b"\xff\xd8\xff", plain[:200])] == [0, 0, 0, 0]


def test_fault_32_files_of_too_many_bytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    path.write_bytes((GOLDEN / "rgb.png").read_bytes())
    os.truncate(path, images.MAX_FILE_BYTES + 1)  # sparse: no disk is used
    assert "bytes are more than the limit" in refusal(read_image, path)


def test_fault_32_depth_that_promises_terabytes_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "d.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20)})
    refusal(read_depth, path)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (8200, 8200)})
        file.truncate(8200 * 8200 * 4 + 1000)
    assert "more than the limit" in refusal(read_depth, path)


# --- faults 30, 31 and 33: masks --------------------------------------------------------------------------------------------


def test_fault_31_lossy_file_with_a_masks_suffix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(encoded(Image.fromarray(NOISE).convert("L"), "JPEG"))
    assert "this file is JPEG inside" in refusal(read_palette_indices, path)
    tiff = tmp_path / "m.tif"
    Image.fromarray(NOISE).convert("L").save(tiff, compression="jpeg")
    assert "this TIFF is lossy inside" in refusal(read_palette_indices, tiff)


def test_fault_31_tiff_whose_zero_is_white_is_refused(tmp_path: Path) -> None:
    """Pillow would hand out 255 minus the id."""
    path = tmp_path / "m.tif"
    Image.new("L", (4, 2), 3).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    assert data[at] == 1
    data[at] = 0
    path.write_bytes(data)
    with Image.open(path) as image:
        assert np.asarray(image)[0, 0] == 252
    assert "zero is white" in refusal(read_palette_indices, path)


def exif_block(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_fault_33_mask_with_exif_is_refused_wherever_it_stands(tmp_path: Path, place: str, orientation: int) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(png_of(4, 2, bytes(10), color_type=0, **{place: chunk(b"eXIf", exif_block(orientation))}))
    assert "EXIF" in refusal(read_palette_indices, path)


def test_fault_33_exif_behind_the_pixels_turns_the_picture(tmp_path: Path) -> None:
    """PNG allows it there, and Pillow tells of it only once the pixels are decoded."""
    path = tmp_path / "o.png"
    row = bytes([0, *range(9)])
    path.write_bytes(png_of(3, 1, row, after=chunk(b"eXIf", exif_block(8))))
    assert read_image(path).tolist() == [[[6, 7, 8]], [[3, 4, 5]], [[0, 1, 2]]]


def test_fault_33_turned_tiff_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("L", (4, 2)).save(path, exif=exif)
    assert "EXIF" in refusal(read_palette_indices, path)


# --- fault 35: names, links, and what is no file ------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [read_image, read_palette_indices, read_png_u16, read_depth])
@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "endless", "folder", "own link", "broken link"])
def test_fault_35_what_is_no_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader, kind: str) -> None:
    path = tmp_path / ("a.npy" if reader is read_depth else "a.png")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/null", "endless": "/dev/zero", "own link": path, "broken link": tmp_path / "gone"}[kind])
    message = refusal(reader, path)
    expected = {"folder": "a folder", "own link": "symbolic links", "broken link": "no such file"}.get(kind, "a pipe, socket or device")
    assert expected in message


NAMES = [
    "plain",
    "with space",
    "ünïcödé",
    "日本語",
    "emoji 🚗",
    "a.b.c",
    "-dash",
    "quote'\"",
    "new\nline",
    "tab\t",
    "back\\slash",
    "x" * 240,
]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"latin-\xe9")])
@pytest.mark.parametrize("source", ["rgb.png", "rgb.tif", "cmyk.jpg"])
def test_fault_35_any_name_can_be_read(tmp_path: Path, name: str, source: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    path = folder / (name + Path(source).suffix)
    path.write_bytes((GOLDEN / source).read_bytes())
    dataset = open_dataset(tmp_path)
    assert dataset.image_paths == [path]
    np.testing.assert_array_equal(dataset.read_image(0), read_image(GOLDEN / source))


def test_fault_35_folders_named_like_pictures_are_searched(tmp_path: Path) -> None:
    (tmp_path / "images" / "a.png").mkdir(parents=True)
    for name in ("a.png/b.png", "c.png"):
        (tmp_path / "images" / name).write_bytes((GOLDEN / "rgb.png").read_bytes())
    assert open_dataset(tmp_path).names == ["a.png/b", "c"]


@pytest.mark.parametrize("names", [("a.png", "a.jpg", "a.png.tif"), ("caf\u00e9.png", "cafe\u0301.png")])
@pytest.mark.parametrize("layout", ["folder", "cityscapes"])
def test_fault_35_two_files_of_one_name_are_refused_not_merged(tmp_path: Path, names: tuple[str, ...], layout: str) -> None:
    """A name is a key: without the refusal one of the pictures would be lost."""
    folder = tmp_path / ("images" if layout == "folder" else "leftImg8bit/train")
    folder.mkdir(parents=True)
    ending = "" if layout == "folder" else "_leftImg8bit"
    for name in names:
        stem, suffix = name.rsplit(".", 1)
        (folder / f"{stem}{ending}.{suffix}").write_bytes((GOLDEN / "rgb.png").read_bytes())
    if len(os.listdir(folder)) < len(names):
        pytest.fail("this file system merges the names by itself")
    with pytest.raises(DataError, match="shares the name"):
        open_dataset(tmp_path)


def test_fault_35_names_that_differ_in_case_are_two_pictures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("A.png", "a.png", "a.PNG"):
        (tmp_path / "images" / name).write_bytes((GOLDEN / "rgb.png").read_bytes())
    dataset = open_dataset(tmp_path)
    assert len(dataset) == len(os.listdir(tmp_path / "images"))
    assert len(set(dataset.names)) == len(dataset)


def test_fault_35_folder_that_cannot_be_listed_is_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="locked: cannot be listed: Permission denied"):
        find_files(tmp_path, finding.IMAGE_SUFFIXES)
    assert find_files(tmp_path / "missing", finding.IMAGE_SUFFIXES) == []


# --- faults 26 to 29: pairs and ids -------------------------------------------------------------------------------------------


def pair(root: Path, size: tuple[int, int] = (16, 16), ids: int = 0) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16)).save(root / "images" / "a.png")
    Image.new("L", size, ids).save(root / "masks" / "a.png")
    return root


def test_fault_26_picture_and_mask_of_different_size_are_both_named(tmp_path: Path) -> None:
    dataset = open_dataset(pair(tmp_path, size=(20, 16)), label_space=TWO)
    with pytest.raises(DataError) as caught:
        dataset[0]
    assert str(caught.value) == f"{tmp_path}/images/a.png: is 16x16, but {tmp_path}/masks/a.png is 20x16"


@pytest.mark.parametrize("value", [2, 77, 254])
def test_fault_27_id_out_of_range_is_refused_before_any_tensor(tmp_path: Path, value: int) -> None:
    with pytest.raises(DataError, match=rf"a\.png: unknown label value {value} \(256 pixels\)"):
        open_dataset(pair(tmp_path, ids=value), label_space=TWO)[0]


def test_fault_28_counts_expected_and_found_are_told(tmp_path: Path) -> None:
    pair(tmp_path)
    for name in ("b", "c"):
        Image.new("RGB", (16, 16)).save(tmp_path / "images" / f"{name}.png")
    with pytest.raises(DataError, match=r"expected 3 masks for 3 pictures, found 1; no mask .*b\.png \(and 1 more\)"):
        open_dataset(tmp_path, label_space=TWO)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"images: expected pictures .* found 0"):
        open_dataset(tmp_path, label_space=TWO)
