"""Damaged pictures without end: `mutation(number)` is a pure function of its number (and of the installed encoders).

A seed picture of one of six formats goes through one to four edits.  PNGs get their checksums mended most of the time, since a wrong one
hides what lies behind it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

INTERESTING = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    4095,
    8191,
    8192,
    16383,
    32767,
    32768,
    65535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
"""Numbers at which sizes and lengths go wrong."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of an interlaced PNG: first x, first y, step in x, step in y."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@cache
def seeds() -> tuple[bytes, ...]:
    """A picture of every kind that the readers know."""
    rng = np.random.default_rng(0)
    noise = np.kron(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8), np.ones((5, 5, 1), np.uint8)) + rng.integers(
        0, 9, (25, 35, 3), np.uint8
    )
    rgb = Image.fromarray(noise.astype(np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(rgb.convert("L"))
    deep = Image.fromarray((noise[..., 0].astype(np.uint16)) * 257)
    indexed = rgb.quantize(19)
    exif = Image.Exif()
    exif[0x0112] = 6
    found: list[bytes] = []

    def add(image: Image.Image, format: str, **options: object) -> None:
        data = io.BytesIO()
        image.save(data, format, **options)
        found.append(data.getvalue())

    for image in (rgb, rgba, deep, indexed, rgb.convert("L"), rgb.convert("LA"), rgb.convert("1")):
        add(image, "PNG")
    add(indexed, "PNG", transparency=3, exif=exif, bits=8)
    add(rgb, "PNG", exif=exif, dpi=(72, 72), icc_profile=bytes(200))
    add(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)])
    for color_type, samples in ((0, 1), (2, 3), (3, 1), (6, 4)):
        found.append(interlaced(rng, color_type, samples))
        if color_type != 3:
            found.append(deep_png(rng, color_type, samples))
    for image in (rgb, rgb.convert("L"), rgb.convert("CMYK")):
        add(image, "JPEG")
        add(image, "JPEG", progressive=True, exif=exif)
    add(rgb, "JPEG", restart_marker_blocks=2, subsampling=0, icc_profile=bytes(200), comment=b"a comment")
    for options in ({}, {"lossless": True}, {"exif": exif, "icc_profile": bytes(200)}):
        add(rgb, "WEBP", **options)
        add(rgba, "WEBP", **options)
    add(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(180)], duration=100)
    for compression in (None, "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd", "lzma"):
        add(rgb, "TIFF", compression=compression)
    for image in (rgba, deep, indexed, rgb.convert("1"), rgb.convert("L"), rgb.convert("F"), rgb.convert("CMYK"), rgb.convert("YCbCr")):
        add(image, "TIFF", compression="tiff_lzw" if image is deep else None)
    add(rgb, "TIFF", exif=exif, save_all=True, append_images=[rgb])
    add(rgb.convert("1"), "TIFF", compression="group4")
    add(rgb, "TIFF", big_tiff=True)
    for image in (rgb, indexed, rgb.convert("1")):
        add(image, "BMP")
    add(indexed, "GIF", save_all=True, append_images=[indexed.rotate(180)])
    return tuple(found)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def interlaced(rng: np.random.Generator, color_type: int, samples: int) -> bytes:
    """A 9x9 Adam7 PNG, which Pillow cannot write."""
    shapes = [(len(range(x, 9, step_x)), len(range(y, 9, step_y))) for x, y, step_x, step_y in ADAM7]
    pixels = b"".join(b"".join(b"\0" + rng.bytes(columns * samples) for _ in range(rows)) for columns, rows in shapes)
    palette = chunk(b"PLTE", rng.bytes(768)) if color_type == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, color_type, 0, 0, 1))
    return SIGNATURE + header + palette + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def deep_png(rng: np.random.Generator, color_type: int, samples: int) -> bytes:
    pixels = b"".join(b"\1" + rng.bytes(11 * samples * 2) for _ in range(7))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 11, 7, 16, color_type, 0, 0, 0))
    return SIGNATURE + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def mutation(number: int) -> bytes:
    """Damaged picture `number`."""
    rng = np.random.default_rng([number, 25])
    everything = seeds()
    edited = bytearray(everything[int(rng.integers(len(everything)))])
    for _ in range(int(rng.integers(1, 5))):
        edit = EDITS[int(rng.integers(len(EDITS)))]
        edited = edit(edited, rng) if len(edited) > 8 else edited
    if edited.startswith(SIGNATURE[:4]) and rng.random() < 0.8:
        edited = mended(edited)
    return bytes(edited)


Edit = Callable[[bytearray, np.random.Generator], bytearray]


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """Anywhere, with a liking for the front, where the headers are."""
    return int(rng.integers(min(len(data), 64) if rng.random() < 0.4 else len(data)))


def flip(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 9))):
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return data


def truncate(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: _place(data, rng)]


def cut_out(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = _place(data, rng)
    del data[start : start + int(rng.integers(1, 65))]
    return data


def insert(data: bytearray, rng: np.random.Generator) -> bytearray:
    at = _place(data, rng)
    data[at:at] = rng.bytes(int(rng.integers(1, 65))) if rng.random() < 0.5 else data[at : at + 64] * int(rng.integers(1, 20))
    return data


def number(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A 1-, 2- or 4-byte number of either byte order becomes an interesting one."""
    at, width = _place(data, rng), int(rng.choice([1, 2, 4]))
    value = int(rng.choice(INTERESTING)) + int(rng.integers(-1, 2))
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "big" if rng.random() < 0.5 else "little")
    return data


def dimensions(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The header tells of another width or height; most are below the limit, so that decoding starts."""
    side = int(rng.choice(INTERESTING)) if rng.random() < 0.3 else int(2 ** rng.uniform(0, 13.5))
    second = bool(rng.random() < 0.5)
    if data.startswith(SIGNATURE):
        at = 16 + 4 * second
        data[at : at + 4] = (side % (1 << 32)).to_bytes(4, "big")
    elif data[:2] == b"\xff\xd8":
        frames = [data.find(marker) for marker in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2") if marker in data]
        if frames:
            at = frames[0] + 5 + 2 * second
            data[at : at + 2] = (side % (1 << 16)).to_bytes(2, "big")
    elif data[:4] == b"RIFF":
        for kind, offset, width in ((b"VP8X", 12 + 3 * second, 3), (b"VP8 ", 14 + 2 * second, 2), (b"VP8L", 9 + second, 2)):
            if kind in data and rng.random() < 0.7:
                at = data.find(kind) + offset
                data[at : at + width] = (side % (1 << 8 * width)).to_bytes(width, "little")
    elif data[:2] in (b"II", b"MM"):
        entries(data, rng, (256, 257, 258, 273, 277, 278, 279, 322, 323), side)
    elif data[:2] == b"BM":
        data[18 + 4 * second : 22 + 4 * second] = (side % (1 << 32)).to_bytes(4, "little")
    else:
        data[6 + 2 * second : 8 + 2 * second] = (side % (1 << 16)).to_bytes(2, "little")
    return data


def entries(data: bytearray, rng: np.random.Generator, tags: tuple[int, ...], value: int) -> None:
    """One entry of the first directory of a TIFF gets another value, count or type."""
    order = "little" if data[:2] == b"II" else "big"
    tag = int(rng.choice(tags)).to_bytes(2, order)
    at = data.find(tag, int.from_bytes(data[4:8], order) % max(len(data), 1))
    if at >= 0:
        offset, width = ((8, 4), (8, 2), (4, 4), (2, 2))[int(rng.choice(4, p=[0.5, 0.2, 0.2, 0.1]))]
        data[at + offset : at + offset + width] = (value % (1 << 8 * width)).to_bytes(width, order)


def lengths(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The length of a chunk or segment lies."""
    value = int(rng.choice(INTERESTING)) if rng.random() < 0.6 else int(rng.integers(0, 2 * len(data)))
    if data.startswith(SIGNATURE):
        starts, width, order = [at for at, _ in chunks(data)], 4, "big"
    elif data[:2] == b"\xff\xd8":
        starts, width, order = [at + 2 for at in range(len(data) - 4) if data[at] == 0xFF and 0xC0 <= data[at + 1] < 0xFF], 2, "big"
    elif data[:4] == b"RIFF":
        starts = [4, *(at + 4 for at in range(12, len(data) - 8) if data[at : at + 3] in (b"VP8", b"ALP", b"ANI", b"ANM", b"EXI", b"ICC"))]
        width, order = 4, "little"
    else:
        entries(data, rng, tuple(range(254, 345)), value)
        return data
    if starts:
        at = int(rng.choice(starts))
        data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, order)
    return data


def splice(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The front of this picture and the back of another, of the same format more often than not."""
    others = [other for other in seeds() if rng.random() < 0.3 or other[:3] == data[:3]]
    other = others[int(rng.integers(len(others)))] if others else bytes(data)
    return data[: _place(data, rng)] + other[int(rng.integers(len(other))) :]


def repack(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The pixels below a PNG's compression are edited: filters that do not exist, rows too few or too many."""
    if not data.startswith(SIGNATURE):
        return flip(data, rng)
    rebuilt = bytearray(SIGNATURE)
    for at, kind in chunks(data):
        body = bytes(data[at + 8 : at + 8 + int.from_bytes(data[at : at + 4], "big")])
        if kind == b"IDAT":
            try:
                pixels = bytearray(zlib.decompress(body)) or bytearray(1)
            except zlib.error:
                pixels = bytearray(rng.bytes(100))
            edit = (flip, truncate, cut_out, insert, number)[int(rng.integers(5))]
            body = zlib.compress(bytes(edit(pixels, rng)), int(rng.integers(0, 10)))
        rebuilt += chunk(kind, body)
    return rebuilt


def chunks(data: bytearray) -> list[tuple[int, bytes]]:
    """(first byte, kind) of a PNG's chunks, as far as their lengths lead."""
    at, found = len(SIGNATURE), []
    while at + 12 <= len(data):
        found.append((at, bytes(data[at + 4 : at + 8])))
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return found


def mended(data: bytearray) -> bytearray:
    """The checksums of a PNG made right, and its end put back."""
    for at, _ in chunks(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 <= len(data):
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
    return data if b"IEND" in data else data + chunk(b"IEND", b"")


EDITS: tuple[Edit, ...] = (flip, flip, truncate, cut_out, insert, number, number, dimensions, dimensions, lengths, lengths, splice, repack)
