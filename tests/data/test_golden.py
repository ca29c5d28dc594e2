"""Stored pictures of every mode against arrays known by arithmetic.  `golden/make.py` wrote them, from these patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.data.images import read_image, read_palette_indices
from iccld.errors import DataError

GOLDEN = Path(__file__).parent / "golden"
Y, X = np.mgrid[0:3, 0:5]
GREY = 50 * X + 3 * Y
RGB = np.stack([40 * X, 60 * Y, 10 * (X + Y)], axis=2)
WIDE = 13000 * X + 500 * Y
IDS = X + 5 * Y
PALETTE = np.stack([np.arange(256), 255 - np.arange(256), 7 * np.arange(256) % 256], axis=1)
DEEP = np.stack([WIDE, 65535 - WIDE, WIDE // 2], axis=2)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def scaled(values: np.ndarray) -> np.ndarray:
    return np.rint(values / 257)


def from_inks(cyan: float, magenta: float, yellow: float, black: float) -> np.ndarray:
    """The conversion without a colour profile: what the black leaves, less its share of each ink."""
    left = 255 - black
    return np.broadcast_to([round(left - left * ink / 255) for ink in (cyan, magenta, yellow)], (3, 5, 3))


# What YCCK says when the stored values of CMYK (30, 80, 130, 40), inverted, are taken for Y, Cb, Cr, K (JFIF's equations).
LUMA, CB, CR = 225, 175 - 128, 125 - 128
FROM_YCCK = [min(LUMA + 1.402 * CR, 255), LUMA - 0.344136 * CB - 0.714136 * CR, min(LUMA + 1.772 * CB, 255)]

PICTURES = {
    "1.png": 255 * grey(X % 2),
    "l.png": grey(GREY),
    "la.png": grey(GREY),
    "la16.png": grey(WIDE >> 8),
    "p.png": PALETTE[IDS],
    "p_transparent.png": PALETTE[IDS],
    "p.gif": PALETTE[IDS],
    "p.bmp": PALETTE[IDS],
    "pa.tif": PALETTE[IDS],
    "i16.png": grey(scaled(WIDE)),
    "i16.tif": grey(scaled(WIDE)),
    "i16b.tif": grey(scaled(WIDE)),
    "i.tif": grey(scaled(WIDE)),
    "rgb.png": RGB,
    "rgb_transparent.png": RGB,
    "rgb.bmp": RGB,
    "rgb.webp": RGB,
    "rgb.tif": RGB,
    "rgba.png": RGB,
    "rgba.tif": RGB,
    "rgba.webp": RGB,
    "rgb16.png": scaled(DEEP),
    "rgba16.png": scaled(DEEP),
    "cmyk.tif": from_inks(30, 80, 130, 40),
    "cmyk.jpg": from_inks(30, 80, 130, 40),
    "cmyk_unmarked.jpg": from_inks(30, 80, 130, 40),
    "ycck.jpg": from_inks(*FROM_YCCK, 40),
    "animated.png": RGB,
    "animated_cover.png": RGB,
    "animated.webp": RGB,
    "animated.tif": RGB,
    "animated.gif": PALETTE[IDS],
    "1x1.png": RGB[1:2, 3:4],
}
REFUSED_PICTURES = {
    "f.tif": "no defined brightness",
    "i_negative.tif": "no defined brightness",
    "lab.tif": "mode LAB has no defined conversion",
}
MASKS = {
    "1.png": X % 2,
    "l.png": GREY,
    "p.png": IDS,
    "p_transparent.png": IDS,
    "p.bmp": IDS,
    "i16.png": WIDE,
    "i16.tif": WIDE,
    "i16b.tif": WIDE,
    "i.tif": WIDE,
    "i_negative.tif": WIDE - 1,
}
INEXACT = {"p.gif", "animated.gif", "rgb.webp", "rgba.webp", "animated.webp", "cmyk.jpg", "cmyk_unmarked.jpg", "ycck.jpg"}
ALL = sorted(path.name for path in GOLDEN.iterdir() if path.suffix != ".py" and path.is_file())


def test_fault_34_every_golden_picture_is_converted_or_refused_as_documented() -> None:
    documented = {*PICTURES, *REFUSED_PICTURES, "ycbcr.tif"}
    assert set(ALL) == documented
    modes = set()
    for name in ALL:
        with Image.open(GOLDEN / name) as image:
            modes.add(image.mode)
    assert modes == {"1", "L", "LA", "P", "PA", "I", "I;16", "I;16B", "F", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"}


@pytest.mark.parametrize("name", PICTURES)
def test_fault_34_golden_picture_has_its_pixels(name: str) -> None:
    read = read_image(GOLDEN / name)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    assert read.flags.writeable
    np.testing.assert_array_equal(read, PICTURES[name])


def test_fault_34_ycbcr_is_converted_within_its_rounding() -> None:
    # Both directions cut off: less than 1 of Y, 1.772 of the chroma and 1 of the result are lost.
    assert np.abs(read_image(GOLDEN / "ycbcr.tif").astype(int) - RGB).max() <= 3


@pytest.mark.parametrize("name", REFUSED_PICTURES)
def test_fault_34_golden_picture_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=REFUSED_PICTURES[name]):
        read_image(GOLDEN / name)


@pytest.mark.parametrize("name", [name for name in MASKS if not name.startswith("i")])
def test_fault_31_golden_mask_has_its_ids(name: str) -> None:
    np.testing.assert_array_equal(read_palette_indices(GOLDEN / name), MASKS[name])


@pytest.mark.parametrize("name", [name for name in MASKS if name.startswith("i")])
def test_fault_30_golden_wide_mask_is_exact(name: str) -> None:
    ids = read_palette_indices(GOLDEN / name)
    assert ids.dtype == (np.int32 if name == "i_negative.tif" else np.uint16)
    np.testing.assert_array_equal(ids, MASKS[name])


@pytest.mark.parametrize("name", [name for name in ALL if name not in MASKS])
def test_fault_31_golden_picture_is_no_mask(name: str) -> None:
    with pytest.raises(DataError, match="exact" if name in INEXACT else "holds colours, not ids"):
        read_palette_indices(GOLDEN / name)


# EXIF 2.3, tag 0x0112: the side of the scene that the stored row 0 and the stored column 0 show.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored_as(scene: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera held that way stores the scene, pixel by pixel."""
    row_side, column_side = SIDES[orientation]
    height, width = scene.shape[:2]
    stored = np.zeros((height, width, 3) if row_side in ("top", "bottom") else (width, height, 3), np.uint8)
    for row, column in np.ndindex(stored.shape[:2]):
        place = {row_side: row, column_side: column}
        y = place["top"] if "top" in place else height - 1 - place["bottom"]
        x = place["left"] if "left" in place else width - 1 - place["right"]
        stored[row, column] = scene[y, x]
    return stored


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_fault_33_every_orientation_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    scene = np.kron(RGB, np.ones((16, 16, 1))).astype(np.uint8)  # whole blocks, which JPEG keeps
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(stored_as(scene, orientation)).save(tmp_path / f"o.{suffix}", exif=exif, **options)
    read = read_image(tmp_path / f"o.{suffix}")
    assert read.shape == scene.shape
    assert np.abs(read.astype(int) - scene).max() <= (4 if suffix == "jpg" else 0)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_fault_33_orientation_of_no_meaning_turns_nothing(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(RGB.astype(np.uint8)).save(tmp_path / "o.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "o.png"), RGB)
