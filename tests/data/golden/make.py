"""Writes the pictures of this folder anew: `python tests/data/golden/make.py`.

They are stored, so that a later encoder cannot change what the readers are tested with.  The patterns are those of test_golden.py.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
Y, X = np.mgrid[0:3, 0:5]
GREY = (50 * X + 3 * Y).astype(np.uint8)
RGB = np.stack([40 * X, 60 * Y, 10 * (X + Y)], axis=2).astype(np.uint8)
ALPHA = (60 * X + 15).astype(np.uint8)
WIDE = (13000 * X + 500 * Y).astype(np.uint16)
IDS = (X + 5 * Y).astype(np.uint8)
PALETTE = np.stack([np.arange(256), 255 - np.arange(256), 7 * np.arange(256) % 256], axis=1).astype(np.uint8)
CMYK = (30, 80, 130, 40)


def png(name: str, bits: int, color_type: int, samples: np.ndarray) -> None:
    """Deep PNGs, byte by byte: (H, W, C) samples of 16 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    whole = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (FOLDER / name).write_bytes(b"\x89PNG\r\n\x1a\n" + whole)


def save(name: str, image: Image.Image, **options: object) -> None:
    image.save(FOLDER / name, **options)


def indexed() -> Image.Image:
    image = Image.fromarray(IDS)
    image.putpalette(PALETTE.tobytes())
    return image


def greys_and_palettes() -> None:
    save("1.png", Image.fromarray(X % 2 == 1))
    save("l.png", Image.fromarray(GREY))
    save("la.png", Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]))
    save("p.png", indexed())
    save("p_transparent.png", indexed(), transparency=2)
    save("p.gif", indexed())
    save("p.bmp", indexed())
    with_alpha = Image.merge("LA", [Image.fromarray(IDS), Image.fromarray(ALPHA)])
    with_alpha.putpalette(PALETTE.tobytes())
    save("pa.tif", with_alpha)
    save("i16.png", Image.fromarray(WIDE))
    save("i16.tif", Image.fromarray(WIDE))
    big = Image.frombytes("I;16B", (5, 3), WIDE.astype(">u2").tobytes())
    save("i16b.tif", big)
    save("i.tif", Image.fromarray(WIDE.astype(np.int32)))
    save("i_negative.tif", Image.fromarray(WIDE.astype(np.int32) - 1))
    save("f.tif", Image.fromarray(WIDE.astype(np.float32)))
    png("la16.png", 16, 4, np.stack([WIDE, WIDE], axis=2))


def colours() -> None:
    save("rgb.png", Image.fromarray(RGB))
    save("rgb_transparent.png", Image.fromarray(RGB), transparency=(0, 0, 0))
    save("rgb.bmp", Image.fromarray(RGB))
    save("rgb.webp", Image.fromarray(RGB), lossless=True)
    save("rgb.tif", Image.fromarray(RGB), compression="tiff_lzw")
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    save("rgba.png", rgba)
    save("rgba.tif", rgba)
    save("rgba.webp", rgba, lossless=True, exact=True)
    save("lab.tif", Image.frombytes("LAB", (5, 3), RGB.tobytes()))
    save("ycbcr.tif", Image.fromarray(RGB).convert("YCbCr"))
    deep = np.stack([WIDE, 65535 - WIDE, WIDE // 2], axis=2)
    png("rgb16.png", 16, 2, deep)
    png("rgba16.png", 16, 6, np.dstack([deep, WIDE]))
    save("1x1.png", Image.fromarray(RGB[1:2, 3:4]))


def inks() -> None:
    """A flat CMYK JPEG as Adobe writes it (inverted), the same with channels named YCCK, and without Adobe's mark."""
    save("cmyk.tif", Image.new("CMYK", (5, 3), CMYK))
    data = io.BytesIO()
    Image.new("CMYK", (5, 3), CMYK).save(data, "JPEG", quality=100)
    adobe = data.getvalue()
    (FOLDER / "cmyk.jpg").write_bytes(adobe)
    mark = adobe.index(b"\xff\xee")
    length = 2 + int.from_bytes(adobe[mark + 2 : mark + 4], "big")
    (FOLDER / "cmyk_unmarked.jpg").write_bytes(adobe[:mark] + adobe[mark + length :])
    ycck = bytearray(adobe)
    ycck[mark + length - 1] = 2  # the transform byte: 0 CMYK, 2 YCCK
    (FOLDER / "ycck.jpg").write_bytes(ycck)


def animations() -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB), Image.fromarray(RGB // 2)]
    save("animated.png", frames[0], save_all=True, append_images=frames[1:])
    # The default image is no frame: it is what a reader that knows no animations shows.
    save("animated_cover.png", frames[0], save_all=True, append_images=frames[1:], default_image=True)
    save("animated.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    save("animated.tif", frames[0], save_all=True, append_images=frames[1:])
    shown = indexed()
    other = Image.fromarray(IDS[::-1].copy())
    other.putpalette(PALETTE.tobytes())
    save("animated.gif", shown, save_all=True, append_images=[other], duration=100)


if __name__ == "__main__":
    for write in (greys_and_palettes, colours, inks, animations):
        write()
