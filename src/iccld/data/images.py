"""Pixels from files: pictures as 8-bit RGB, masks as the ids that were stored, 16-bit PNGs without loss.

Every failure is one DataError line that names the file.  Nothing is decoded before its header says that it is of a sane size.
docs/data.md has the table of what becomes of each mode.
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError, features

from iccld.data import jpeg, png
from iccld.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""What a file may be, whatever its suffix says.  Pillow knows forty more; some start other programs, and few are tested against damage."""
MAX_PIXELS = 1 << 26
"""Largest picture decoded, 8192x8192: with the decoder's own buffers, less than 1 GiB."""
MAX_PIXELS_WIDE = 1 << 25
"""The same for WebP, HEIC, AVIF and 16-bit colour, whose decoders need 16-20 bytes a pixel."""
MAX_FILE_BYTES = 1 << 29
MAX_SCANNED_PIXELS = 1 << 30
"""Pixels times scans of a progressive JPEG: about 4 s.  33 bytes a scan are enough to keep a decoder busy for hours."""
FULL_RANGE = (0, 65535)
"""What 16 bits can hold."""
BAND_PIXELS = 1 << 20
"""Pixels converted at a time, so that a large picture is not held three times."""

HEIF_FORMATS = ("HEIF", "AVIF")

# MAX_PIXELS decides, not Pillow's warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# They name no file; what matters in a damaged block of metadata ends as a DataError.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Opened:
    """A file whose header was read and found sane."""

    path: Path | str
    image: Image.Image
    data: bytes
    """The whole file, for PNG and JPEG; empty otherwise."""
    png: png.PngHeader | None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)"""
        return self.image.size[1], self.image.size[0]


def read_image(path: Path | str, wide: tuple[int, int] = FULL_RANGE) -> UInt8Array:
    """Any common picture -> (H, W, 3) uint8 RGB, upright.

    Grey is repeated, palettes and CMYK are converted, the first frame of an animation is taken.  wide: the values of 16-bit pictures that
    become 0 and 255 (what lies outside is cut off); the full range divides by 257.
    Alpha is dropped: a transparent pixel keeps its stored colour.  EXIF orientation is applied.
    DataError: missing, no regular file, truncated, corrupt, no picture, too many pixels, or 32-bit values outside 0..65535.
    """
    with _opened(path) as opened:
        if opened.image.format == "TIFF":
            opened.image.load()  # Pillow turns TIFFs itself, and then forgets the orientation
        orientation = _orientation(opened)
        return _upright(_rgb(opened, wide), orientation)


def decode_image(content: bytes, name: str, wide: tuple[int, int] = FULL_RANGE, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """A picture file's content -> (H, W, 3) uint8 RGB, upright, as `read_image` reads the file.  Nothing touches the disk.

    name: what messages call it.  max_pixels: a limit below MAX_PIXELS.  DataError as for `read_image`, and for animations.
    """
    with _opened(name, content) as opened:
        height, width = opened.size
        if height * width > max_pixels:
            raise DataError(f"{name}: {width}x{height} pixels are more than the limit of {max_pixels}; make it smaller")
        # A JPEG of several pictures is a phone's picture with a preview or a map of brightness beside it.
        if opened.image.format not in {"JPEG", "MPO"} and getattr(opened.image, "is_animated", False):
            raise DataError(f"{name}: holds several frames; send one picture")
        if opened.image.format == "TIFF":
            opened.image.load()  # as in `read_image`
        orientation = _orientation(opened)
        return _upright(_rgb(opened, wide), orientation)


def read_wide(path: Path | str) -> npt.NDArray[np.uint16] | None:
    """A 16-bit picture's values as stored, (H, W) or (H, W, C); None for any other.  DataError as for `read_image`."""
    with _opened(path) as opened:
        image, header = opened.image, opened.png
        if header is not None and header.bits == 16 and header.color_type in (2, 6):
            return np.asarray(png.decode(opened.data, header)[..., :3])
        if image.mode in _WIDE_GREY or (image.mode == "I" and (header is None or header.bits == 16)):
            return np.asarray(image).clip(0, 65535).astype(np.uint16)
        return None


def image_pixels(image: Image.Image, wide: tuple[int, int] = FULL_RANGE) -> UInt8Array:
    """A picture that Pillow has opened or made -> (H, W, 3) uint8 RGB, upright, with the conversions of `read_image`.

    Pillow itself reads 16 bits a channel of a coloured PNG as 8.  DataError as for a file.
    """
    name = str(getattr(image, "filename", "") or "a picture in memory")
    opened = _Opened(name, image, b"", None)
    try:
        _refuse_bombs(opened)
        if image.width == 0 or image.height == 0:
            raise DataError(f"{name}: has no pixels, being {image.width}x{image.height}")
        if image.format == "TIFF":
            image.load()  # as in `read_image`
        orientation = _orientation(opened)
        return _upright(_rgb(opened, wide), orientation)
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{name}: not enough memory to decode it; free some, or make the picture smaller") from None
    except Exception as error:  # as in `_opened`: Pillow's decoders answer damage with many kinds of errors
        raise DataError(f"{name}: truncated or corrupt: {_one_line(error)}") from None


def read_palette_indices(path: Path | str) -> npt.NDArray[Any]:
    """A mask -> (H, W) ids exactly as stored: palette indices, grey levels (8-bit uint8, 16-bit uint16), or 0/1 of a bitmap.

    Never converted: through RGB, ids 0, 1, 2 would become colours.  DataError: unreadable, colours instead of ids, a format or compression
    that changes ids, EXIF (a mask that is shown turned no longer fits its picture).
    """
    with _opened(path) as opened:
        return _ids(opened)


class StoredMask(NamedTuple):
    """values: (H, W) ids, or (H, W, 3) uint8 RGB.  palette: (256, 3) uint8 RGB of the ids, where the file has one."""

    values: npt.NDArray[Any]
    palette: UInt8Array | None


def read_mask(path: Path | str, size: tuple[int, int] | None = None) -> StoredMask:
    """Ids or colours exactly as stored, whatever they mean.  DataError as for `read_palette_indices`, and for another size than (H, W)."""
    with _opened(path) as opened:
        if size is not None and opened.size != size:
            sizes = f"mask is {opened.size[0]}x{opened.size[1]}, its ground truth {size[0]}x{size[1]}"
            raise DataError(f"{path}: {sizes}; write masks at the ground truth's size")
        if opened.image.mode in {"RGB", "RGBA"}:
            _refuse_inexact(opened)
            if opened.png is not None and opened.png.bits == 16:
                raise DataError(f"{path}: colours of 16 bits; masks in colours have 8 bits a channel")
            return StoredMask(_rgb(opened, FULL_RANGE), None)
        colors = opened.image.getpalette("RGB") if opened.image.mode == "P" else None
        palette = None if colors is None else np.zeros((256, 3), dtype=np.uint8)
        if palette is not None and colors is not None:
            palette.reshape(-1)[: len(colors)] = colors  # a short palette's missing entries are black
        return StoredMask(_ids(opened), palette)


def read_png_u16(path: Path | str) -> npt.NDArray[np.uint16]:
    """A 16-bit PNG -> (H, W, 3) uint16 RGB (grey is repeated).  Pillow would return 8 bits without a word.

    DataError: unreadable, not a PNG, or not 16 bits deep.
    """
    with _opened(path) as opened:
        header = opened.png
        if header is None or header.bits != 16:
            raise DataError(f"{path}: expected a 16-bit PNG, found {f'{header.bits} bits a channel' if header else 'another format'}")
        if header.color_type not in png.CHANNELS:
            raise DataError(f"{path}: expected a 16-bit RGB or grey PNG, found PNG colour type {header.color_type}")
        pixels = png.decode(opened.data, header)
        return np.repeat(pixels, 3, axis=2) if header.color_type == 0 else np.ascontiguousarray(pixels[..., :3])


def read_depth(path: Path | str) -> npt.NDArray[np.float32]:
    """Depth -> (H, W) float32 metres.  `.npy` holds metres; a 16-bit PNG (first channel) holds centimetres, as SYNTHIA's does."""
    if Path(path).suffix.lower() != ".npy":
        return read_png_u16(path)[..., 0].astype(np.float32) / np.float32(100)
    try:
        _refuse_irregular(path)
        depth = np.lib.format.open_memmap(path, mode="r")  # mapped: a header that promises more than the file has allocates nothing
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as a NumPy array: {_one_line(error)}") from None
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected a (H, W) array of metres, found shape {depth.shape} of {depth.dtype}")
    if depth.size > MAX_PIXELS:
        raise DataError(f"{path}: {depth.shape[1]}x{depth.shape[0]} pixels are more than the limit of {MAX_PIXELS}; make it smaller")
    return np.array(depth, dtype=np.float32)


@contextmanager
def opened_header(path: Path | str) -> Iterator[Image.Image]:
    """A picture with its header read and found sane, not decoded.  DataError as for `read_image`."""
    with _opened(path) as opened:
        yield opened.image


def upright_size(path: Path | str) -> tuple[int, int]:
    """(H, W) of a picture once upright, from its header alone.  DataError as for `read_image`."""
    with _opened(path) as opened:
        height, width = opened.size
        return (width, height) if _orientation(opened) >= 5 else (height, width)


@contextmanager
def _opened(path: Path | str, content: bytes | None = None) -> Iterator[_Opened]:
    """The file, or its content under a name for messages, with its header read; whatever goes wrong inside becomes one DataError line."""
    try:
        if content is None:
            _refuse_irregular(path)
        with open(path, "rb") if content is None else BytesIO(content) as file:
            # One reading serves the checksums and two decoders; the other formats are read piece by piece.
            data = file.read() if file.read(2) in (png.SIGNATURE[:2], b"\xff\xd8") and file.seek(0) == 0 else b""
            header = png.read_header(data) if data.startswith(png.SIGNATURE[:2]) else None
            file.seek(4)
            formats = _with_heif(path) if file.read(4) == b"ftyp" else FORMATS
            file.seek(0)
            with Image.open(BytesIO(data) if data else file, formats=formats) as image:
                opened = _Opened(path, image, data, header)
                _refuse_bombs(opened)
                yield opened
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path}: not enough memory to decode it; free some, or make the picture smaller") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture ({', '.join(FORMATS)}), or its header is damaged") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more pixels than the limit of {MAX_PIXELS}; make it smaller") from None
    except Exception as error:  # Pillow's decoders answer damage with OSError, SyntaxError, struct.error, IndexError and more
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        raise DataError(f"{path}: truncated or corrupt: {_one_line(error)}") from None


def _with_heif(path: Path | str) -> tuple[str, ...]:
    """The formats of HEIC and AVIF files, whose readers are imported here and nowhere else."""
    try:
        import pillow_heif
    except ImportError:
        raise DataError(f"{path}: HEIC and AVIF pictures need pillow-heif; pip install 'iccld[heif]', or save it as JPEG or PNG") from None
    pillow_heif.register_heif_opener()
    if not features.check("avif") and hasattr(pillow_heif, "register_avif_opener"):
        pillow_heif.register_avif_opener()
    return HEIF_FORMATS


def _refuse_irregular(path: Path | str) -> None:
    """Opening a pipe waits for a writer, and a device may never end: neither is opened."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise DataError(f"{path}: is {kind}, not a picture file")
    if status.st_size > MAX_FILE_BYTES:
        raise DataError(f"{path}: {status.st_size} bytes are more than the limit of {MAX_FILE_BYTES}; make it smaller")


def _refuse_bombs(opened: _Opened) -> None:
    """Few bytes may ask for much memory or time: what the header asks for is looked at before it is given."""
    width, height = opened.image.size
    is_wide_png = opened.png is not None and opened.png.bits == 16 and opened.png.color_type > 0
    wide = is_wide_png or opened.image.format in {"WEBP", *HEIF_FORMATS}
    limit = MAX_PIXELS_WIDE if wide else MAX_PIXELS
    if width * height > limit:
        raise DataError(f"{opened.path}: {width}x{height} pixels are more than the limit of {limit}; make it smaller")
    if opened.data and opened.png is None:
        scans = jpeg.count_scans(opened.data)
        if scans * width * height > MAX_SCANNED_PIXELS:
            raise DataError(f"{opened.path}: {scans} scans of {width}x{height} pixels would take too long; save it anew")


def _refuse_inexact(opened: _Opened) -> None:
    """Masks whose ids are not what was meant, though they decode: lossy, inverted, or turned."""
    image, path = opened.image, opened.path
    if image.format not in {"PNG", "TIFF", "BMP"}:
        raise DataError(f"{path}: a mask must keep its ids exact, but this file is {image.format} inside; save it as PNG")
    if image.format == "TIFF":
        if str(image.info.get("compression", "")).endswith("jpeg") or image.info.get("compression") == "webp":
            raise DataError(f"{path}: a mask must keep its ids exact, but this TIFF is lossy inside; save it as PNG")
        if image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0:  # type: ignore[attr-defined]
            raise DataError(f"{path}: a TIFF whose zero is white: which ids are meant is not defined; save it as PNG")
        has_exif = _orientation(opened) != 1
    else:
        has_exif = _has_exif(opened)
    if has_exif:
        raise DataError(f"{path}: a mask with an EXIF orientation; save it upright and without EXIF")


def _ids(opened: _Opened) -> npt.NDArray[Any]:
    """(H, W) as stored."""
    _refuse_inexact(opened)
    image = opened.image
    if opened.png is not None:
        png.refuse_missing_pixels(opened.data, opened.png)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode == "P":
        return np.array(image)
    if image.mode == "L":
        # Pillow stretches 2- and 4-bit grey to 0..255.
        return np.array(image) // {2: 85, 4: 17}.get(opened.png.bits if opened.png else 8, 1)
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if wide.min() >= 0 and wide.max() <= 65535:
            return wide.astype(np.uint16)
        return wide.astype(np.int32)
    remedy = ", or a dataset.yaml that gives each class its colors" if image.mode in {"RGB", "RGBA"} else ""
    raise DataError(f"{opened.path}: a mask of mode {image.mode} holds colours, not ids; expected a palette or single-channel file{remedy}")


def _rgb(opened: _Opened, wide: tuple[int, int]) -> UInt8Array:
    """(H, W, 3) as stored, not turned yet."""
    image, header, (height, width) = opened.image, opened.png, opened.size
    if header is not None and header.color_type in (2, 6) and header.bits == 16:
        return _scaled_to_8_bit(png.decode(opened.data, header)[..., :3], opened.path, wide)
    if header is not None and header.color_type == 2 and "transparency" not in image.info:
        return png.decode(opened.data, header)
    if opened.data and header is None and image.mode in {"RGB", "L"}:
        pixels = jpeg.decode(opened.data, opened.size, "rgb" if image.mode == "RGB" else "mono")
        return pixels if image.mode == "RGB" else np.repeat(pixels.reshape(height, width, 1), 3, axis=2)
    if header is not None:
        png.refuse_missing_pixels(opened.data, header)
    image.load()
    if image.mode not in {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I", "F"} | _WIDE_GREY:
        raise DataError(f"{opened.path}: mode {image.mode} has no defined conversion; save the picture as RGB")
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        if image.mode in {"I", "F"} | _WIDE_GREY:
            pixels[top : top + rows] = _scaled_to_8_bit(np.asarray(band), opened.path, wide)[..., None]
        else:
            # Premultiplied colours are divided by their alpha first.
            band = band.convert({"RGBa": "RGBA", "La": "LA"}.get(band.mode, band.mode))
            pixels[top : top + rows] = np.asarray(band.convert("RGB"))
    return pixels


_WIDE_GREY = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's 16-bit greys."""


def _upright(pixels: UInt8Array, orientation: int) -> UInt8Array:
    """(H, W, 3) as stored -> as it is meant to be seen, by EXIF orientation 1..8."""
    if orientation >= 5:  # rows and columns change places
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _has_exif(opened: _Opened) -> bool:
    """Whether there is an EXIF block, wherever the format keeps it."""
    image, header = opened.image, opened.png
    late = header is not None and b"eXIf" in header.kinds  # Pillow sees one behind the pixels only after decoding
    return late or "exif" in image.info or any(str(key).startswith("Raw profile type") for key in image.info)


def _orientation(opened: _Opened) -> int:
    """EXIF orientation 1..8, 1 when there is none or the EXIF block itself is damaged (the pixels may still be fine)."""
    if opened.image.format != "TIFF" and not _has_exif(opened):
        return 1
    try:
        value = opened.image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, EOFError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _scaled_to_8_bit(values: npt.NDArray[Any], path: Path | str, wide: tuple[int, int]) -> UInt8Array:
    """16 bits to 8, rounded: `wide` to 0..255.  DataError for floats and for integers outside 0..65535."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise DataError(f"{path}: 32-bit values have no defined brightness; save the picture with 8 or 16 bits")
    low, high = wide
    scaled = np.empty(values.shape, dtype=np.uint8)
    for row, line in enumerate(values):  # row by row: the sum needs 32 bits
        if wide == FULL_RANGE:
            scaled[row] = (line.astype(np.uint32) + 128) // 257
        else:
            scaled[row] = ((line.clip(low, high).astype(np.uint32) - low) * 510 + (high - low)) // (2 * (high - low))
    return scaled


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
