"""Pixels from files: pictures as 8-bit RGB, masks as the ids that were stored, 16-bit PNGs without loss.

Every failure is one DataError line that names the file.  Nothing is decoded before its header says that it is of a sane size.
"""

from __future__ import annotations

import os
import struct
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from iccld.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
"""Pictures, by lower-case suffix."""
MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp"})
"""Formats that keep ids exact."""
MAX_PIXELS = 178_956_970
"""Largest picture decoded: Pillow's own limit for refusing (twice its warning threshold), 512 MiB of RGB."""

# Pictures between Pillow's warning and the limit above are legitimate panoramas.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

UInt8Array = npt.NDArray[np.uint8]


def read_image(path: Path | str) -> UInt8Array:
    """Any common picture -> (H, W, 3) uint8 RGB, upright.

    Grey is repeated, palettes and CMYK are converted, 16-bit grey is scaled by 1/257, the first frame of an animation is taken.
    Alpha is dropped: a transparent pixel keeps its stored colour.  EXIF orientation is applied.
    DataError: missing, truncated, corrupt, no picture, more than MAX_PIXELS, or 32-bit values outside 0..65535.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        if image.format == "PNG" and image.mode == "RGB" and orientation == 1 and _png_header(path) == (8, 2):
            return _decode_png(path, bits=8)
        if orientation != 1:
            # Bitmaps cannot be rotated in these modes without losing their range, so that they are widened first.
            image = ImageOps.exif_transpose(image)
        if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
            return np.repeat(_scaled_to_8_bit(np.asarray(image), path)[..., None], 3, axis=2)
        if image.mode in {"RGBa", "La"}:
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"))


def read_palette_indices(path: Path | str) -> npt.NDArray[Any]:
    """A mask -> (H, W) ids exactly as stored: palette indices, grey levels (8-bit uint8, 16-bit uint16), or 0/1 of a bitmap.

    Never converted: through RGB, ids 0, 1, 2 would become colours.  DataError: unreadable, colours instead of ids, EXIF orientation
    (a rotated mask no longer fits its picture).
    """
    with _opened(path) as image:
        if _orientation(image) != 1:
            raise DataError(f"{path}: a mask with an EXIF orientation; save it upright and without EXIF")
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        if image.mode == "P":
            return np.array(image)
        if image.mode == "L":
            ids = np.array(image)
            bits = _png_header(path)[0] if image.format == "PNG" else 8
            # Pillow stretches 2- and 4-bit grey to 0..255.
            return ids // {2: 85, 4: 17}.get(bits, 1)
        if image.mode.startswith("I"):
            wide = np.asarray(image)
            if wide.min() >= 0 and wide.max() <= 65535:
                return wide.astype(np.uint16)
            return wide.astype(np.int32)
        raise DataError(f"{path}: a mask of mode {image.mode} holds colours, not ids; expected a palette or single-channel file")


def read_png_u16(path: Path | str) -> npt.NDArray[np.uint16]:
    """A 16-bit PNG -> (H, W, 3) uint16 RGB (grey is repeated).  Pillow would return 8 bits without a word.

    DataError: unreadable, not a PNG, or not 16 bits deep.
    """
    with _opened(path):
        pass  # the header was read, and a picture of more than MAX_PIXELS refused
    bits, color_type = _png_header(path)
    if bits != 16:
        raise DataError(f"{path}: expected a 16-bit PNG, found {f'{bits} bits a channel' if bits else 'another format'}")
    channels = {0: "mono", 2: "rgb", 6: "rgba"}.get(color_type)
    if channels is None:
        raise DataError(f"{path}: expected a 16-bit RGB or grey PNG, found PNG colour type {color_type}")
    pixels = _decode_png(path, bits=16, channels=channels)
    return np.repeat(pixels, 3, axis=2) if channels == "mono" else np.ascontiguousarray(pixels[..., :3])


def read_depth(path: Path | str) -> npt.NDArray[np.float32]:
    """Depth -> (H, W) float32 metres.  `.npy` holds metres; a 16-bit PNG (first channel) holds centimetres, as SYNTHIA's does."""
    if Path(path).suffix.lower() != ".npy":
        return read_png_u16(path)[..., 0].astype(np.float32) / np.float32(100)
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as a NumPy array: {_one_line(error)}") from None
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected a (H, W) array of metres, found shape {depth.shape} of {depth.dtype}")
    return np.asarray(depth, dtype=np.float32)


def find_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below `folder` with one of the lower-case `suffixes`, sorted by their relative path.

    Links are followed, loops of links are not; hidden files and folders are left out.
    """
    found: list[Path] = []
    visited: set[str] = set()
    for directory, subfolders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(directory)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [Path(directory, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in suffixes]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def relative_name(path: Path, folder: Path) -> str:
    """The path below `folder` without its suffix, '/'-separated and in Unicode's composed form, so that names compare across systems."""
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())


@contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    """Pillow's image with its header read; whatever goes wrong inside becomes one DataError line."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{path}: {width}x{height} pixels are more than the limit of {MAX_PIXELS}; make it smaller")
            yield image
    except (DataError, MemoryError):
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture, or its header is damaged") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more pixels than the limit of {MAX_PIXELS}; make it smaller") from None
    except Exception as error:  # Pillow's decoders answer damage with OSError, SyntaxError, struct.error, IndexError and more
        raise DataError(f"{path}: truncated or corrupt: {_one_line(error)}") from None


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8, 1 when there is none or the EXIF block itself is damaged (the pixels may still be fine)."""
    if "exif" not in image.info and not any(str(key).startswith("Raw profile type") for key in image.info) and image.format != "TIFF":
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, EOFError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_header(path: Path | str) -> tuple[int, int]:
    """(bits a channel, colour type) from a PNG's first chunk; (0, 0) for other formats."""
    with open(path, "rb") as file:
        head = file.read(26)
    if len(head) < 26 or not head.startswith(b"\x89PNG\r\n\x1a\n"):
        return 0, 0
    return head[24], head[25]


def _decode_png(path: Path | str, bits: int, channels: str = "rgb") -> npt.NDArray[Any]:
    import kornia_rs.io  # three times Pillow's speed; it checks every chunk's CRC, where OpenCV only prints a warning

    read = kornia_rs.io.read_image_png_u8 if bits == 8 else kornia_rs.io.read_image_png_u16
    try:
        return np.asarray(read(str(path), channels))
    except Exception as error:  # kornia_rs raises bare Exception
        raise DataError(f"{path}: truncated or corrupt: {_one_line(error)}") from None


def _scaled_to_8_bit(grey: npt.NDArray[Any], path: Path | str) -> UInt8Array:
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 65535:
        raise DataError(f"{path}: 32-bit values have no defined brightness; save the picture with 8 or 16 bits")
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
