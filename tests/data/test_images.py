"""Every mode of picture and mask has a defined reading or a refusal; every kind of damage is one DataError line."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from iccld.data import finding
from iccld.data.finding import find_files, relative_name
from iccld.data.images import read_depth, read_image, read_palette_indices, read_png_u16
from iccld.errors import DataError

tmp_path_is_shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)


def png(path: Path, width: int, height: int, bits: int, color_type: int, rows: list[bytes], palette: bytes = b"") -> Path:
    """A PNG put together byte by byte, so that no library's writer can hide a library's reader."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = chunk(b"IHDR", header) + (chunk(b"PLTE", palette) if palette else b"") + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def with_orientation(image: Image.Image, path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


PALETTE = bytes([0, 0, 0, 13, 13, 13, 26, 26, 26, 39, 39, 39])


def test_fault_31_palette_png_gives_indices_not_colors(tmp_path: Path) -> None:
    path = png(tmp_path / "p.png", 4, 1, 8, 3, [bytes([0, 1, 2, 3])], PALETTE)
    assert read_palette_indices(path).tolist() == [[0, 1, 2, 3]]
    assert read_image(path)[0, :, 0].tolist() == [0, 13, 26, 39]


@pytest.mark.parametrize(("bits", "row", "ids"), [(2, 0b00011011, [0, 1, 2, 3]), (4, 0x0F, [0, 15]), (1, 0b01000000, [0, 1])])
@pytest.mark.parametrize("color_type", [0, 3])
def test_fault_31_shallow_masks_keep_their_ids(tmp_path: Path, bits: int, row: int, ids: list[int], color_type: int) -> None:
    palette = bytes(48) if color_type == 3 else b""
    path = png(tmp_path / "m.png", len(ids), 1, bits, color_type, [bytes([row])], palette)
    assert read_palette_indices(path).tolist() == [ids]


def test_fault_30_16_bit_rgb_png_is_exact(tmp_path: Path) -> None:
    path = png(tmp_path / "u.png", 2, 1, 16, 2, [struct.pack(">6H", 7, 300, 65535, 22, 1, 0)])
    values = read_png_u16(path)
    assert values.dtype == np.uint16
    assert values.tolist() == [[[7, 300, 65535], [22, 1, 0]]]


def test_fault_30_16_bit_grey_and_rgba_png(tmp_path: Path) -> None:
    grey = png(tmp_path / "g.png", 2, 1, 16, 0, [struct.pack(">2H", 258, 65535)])
    assert read_png_u16(grey)[0, :, 2].tolist() == [258, 65535]
    assert read_palette_indices(grey).tolist() == [[258, 65535]]
    rgba = png(tmp_path / "a.png", 1, 1, 16, 6, [struct.pack(">4H", 1, 2, 3, 4)])
    assert read_png_u16(rgba).tolist() == [[[1, 2, 3]]]


def test_fault_30_8_bit_png_is_refused_as_16_bit(tmp_path: Path) -> None:
    path = png(tmp_path / "e.png", 1, 1, 8, 2, [bytes([1, 2, 3])])
    with pytest.raises(DataError, match="expected a 16-bit PNG, found 8 bits"):
        read_png_u16(path)
    Image.new("RGB", (2, 2)).save(tmp_path / "e.jpg")
    with pytest.raises(DataError, match="another format"):
        read_png_u16(tmp_path / "e.jpg")


@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
@tmp_path_is_shared
def test_rgb_round_trip(tmp_path: Path, pixels: np.ndarray) -> None:
    for suffix in ("png", "bmp", "tiff"):
        path = tmp_path / f"r.{suffix}"
        Image.fromarray(pixels).save(path)
        np.testing.assert_array_equal(read_image(path), pixels)


@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@tmp_path_is_shared
def test_mask_round_trip(tmp_path: Path, ids: np.ndarray) -> None:
    for mode in ("L", "P"):
        image = Image.fromarray(ids)
        if mode == "P":
            image.putpalette(bytes(range(256)) * 3)
        image.save(tmp_path / "m.png")
        np.testing.assert_array_equal(read_palette_indices(tmp_path / "m.png"), ids)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 77 * 257, (77, 77, 77)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
    ],
)
def test_fault_34_read_image_modes(tmp_path: Path, mode: str, value: int | tuple[int, ...], expected: tuple[int, ...]) -> None:
    path = tmp_path / "i.png"
    Image.new(mode, (3, 2), value).save(path)
    read = read_image(path)
    assert read.shape == (2, 3, 3)
    assert read.dtype == np.uint8
    assert read[0, 0].tolist() == list(expected)


def test_read_image_cmyk_jpeg_and_webp(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    red = read_image(tmp_path / "c.jpg")[8, 8]
    assert red[0] > 200
    assert red[1] < 60
    Image.new("RGB", (16, 16), (0, 200, 0)).save(tmp_path / "w.webp", lossless=True)
    assert read_image(tmp_path / "w.webp")[3, 3].tolist() == [0, 200, 0]


def test_fault_34_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = png(tmp_path / "g.png", 4, 1, 16, 0, [struct.pack(">4H", 0, 257, 32896, 65535)])
    assert read_image(path)[0, :, 1].tolist() == [0, 1, 128, 255]


def test_fault_34_float_pictures_are_refused(tmp_path: Path) -> None:
    Image.new("F", (2, 2), 0.5).save(tmp_path / "f.tiff")
    with pytest.raises(DataError, match="no defined brightness"):
        read_image(tmp_path / "f.tiff")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_fault_33_exif_orientation_is_applied_to_pictures(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8] = 255  # bright on the left; orientation 6 shows it turned by 90 degrees clockwise: bright on top
    path = with_orientation(Image.fromarray(pixels), tmp_path / f"o.{suffix}", 6)
    upright = read_image(path)
    assert upright.shape == (16, 8, 3)
    assert upright[1].mean() > 200
    assert upright[-2].mean() < 50


def test_fault_33_mask_with_exif_orientation_is_refused(tmp_path: Path) -> None:
    path = with_orientation(Image.new("L", (4, 2)), tmp_path / "m.png", 6)
    with pytest.raises(DataError, match="EXIF orientation"):
        read_palette_indices(path)


def test_fault_31_colour_mask_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="holds colours, not ids"):
        read_palette_indices(tmp_path / "m.png")


READERS = [read_image, read_palette_indices, read_png_u16]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", ["noise", "empty", "text", "missing", "truncated", "flipped", "folder"])
def test_fault_25_damage_is_one_line_that_names_the_file(tmp_path: Path, reader, damage: str) -> None:
    path = tmp_path / "damaged.png"
    rng = np.random.default_rng(0)
    bits, color = {"read_image": (8, 2), "read_palette_indices": (8, 0), "read_png_u16": (16, 2)}[reader.__name__]
    row_bytes = 64 * bits // 8 * (3 if color == 2 else 1)
    whole = png(path, 64, 64, bits, color, [rng.bytes(row_bytes) for _ in range(64)]).read_bytes()
    reader(path)
    if damage in {"missing", "folder"}:
        path.unlink()
    if damage == "folder":
        path.mkdir()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    contents = {"noise": rng.bytes(500), "empty": b"", "text": b"hello", "truncated": whole[: len(whole) // 2], "flipped": bytes(flipped)}
    if damage in contents:
        path.write_bytes(contents[damage])
    with pytest.raises(DataError) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fault_25_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("side", [8_200, 60_000])
@pytest.mark.parametrize("reader", READERS)
def test_fault_32_decompression_bomb_is_refused_before_decoding(tmp_path: Path, reader, side: int) -> None:
    path = png(tmp_path / "bomb.png", side, side, 16, 2, [b""])
    with pytest.raises(DataError, match=r"limit of \d+"):
        reader(path)


def test_panorama_below_the_limit_gives_no_warning(tmp_path: Path) -> None:
    path = png(tmp_path / "wide.png", 16_000, 4_000, 1, 0, [b""])  # no pixels behind the header: it need not be decoded here
    # In a process of its own: pytest replaces the filters under test.
    code = f"import iccld.data.images as i\nwith i._opened({str(path)!r}) as opened: print(opened.size)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(4000, 16000)\n", "")


def test_read_depth_in_metres(tmp_path: Path) -> None:
    path = png(tmp_path / "d.png", 2, 1, 16, 2, [struct.pack(">6H", 1234, 0, 0, 50, 0, 0)])
    np.testing.assert_allclose(read_depth(path), [[12.34, 0.5]], rtol=1e-6)
    np.save(tmp_path / "d.npy", np.array([[1.5, 2.0]]))
    assert read_depth(tmp_path / "d.npy").tolist() == [[1.5, 2.0]]
    np.save(tmp_path / "bad.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"expected a \(H, W\) array"):
        read_depth(tmp_path / "bad.npy")
    (tmp_path / "noise.npy").write_bytes(b"noise")
    with pytest.raises(DataError, match=r"noise\.npy"):
        read_depth(tmp_path / "noise.npy")


def test_fault_35_find_files_follows_links_but_no_loops(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    for name in ("a b/x.PNG", "y.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "a b" / "loop").symlink_to(tmp_path)
    found = find_files(tmp_path, finding.IMAGE_SUFFIXES)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a b/x.PNG", "y.jpg"]


def test_fault_35_relative_name_is_composed_unicode() -> None:
    folder = Path("/data")
    assert relative_name(folder / "cafe\u0301.v2.png", folder) == "caf\u00e9.v2"
