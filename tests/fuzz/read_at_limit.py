"""The second child of test_fuzzed_images.py: pictures as large as the readers allow, and small files that promise as much.

Each is one line on stdout: its name and outcome, under the limits of read_mutations.py.  Usage: read_at_limit.py FOLDER quick|full
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from mutations import ADAM7, SIGNATURE, chunk, seeds
from PIL import Image
from read_mutations import limit_memory, outcome

from iccld.data.images import MAX_PIXELS, MAX_PIXELS_WIDE

SIDE = int(MAX_PIXELS**0.5)
Save = Callable[[Path], None]


def png_of(
    width: int, height: int, bits: int, color_type: int, rows: Iterator[int], extra: bytes = b"", is_interlaced: bool = False
) -> bytes:
    """A PNG of zeros with rows of so many bytes."""
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(bytes(1 + row)) for row in rows) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, int(is_interlaced)))
    return SIGNATURE + header + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def promises(num_bytes: int) -> dict[str, bytes]:
    """Small files whose headers, or whose compressed blocks, tell of much (num_bytes)."""
    block = zlib.compress(bytes(num_bytes), 1)
    none: Iterator[int] = iter(())
    found = {
        f"promise {bits} {kind}": png_of(SIDE, SIDE, bits, kind, none) for bits, kind in ((8, 0), (8, 2), (8, 3), (8, 6), (16, 0), (1, 0))
    }
    found["deep promise"] = png_of(SIDE, MAX_PIXELS_WIDE // SIDE, 16, 6, none)
    found["text"] = png_of(1, 1, 8, 2, iter([3]), chunk(b"zTXt", b"x\0\0" + block))
    found["profile"] = png_of(1, 1, 8, 2, iter([3]), chunk(b"iCCP", b"x\0\0" + block))
    for kind in (0, 2, 3, 6):
        start = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, kind, 0, 0, 0)) + chunk(b"PLTE", bytes(3))
        found[f"pixels without end {kind}"] = SIGNATURE + start + chunk(b"IDAT", block) + chunk(b"IEND", b"")
    return found


def whole() -> dict[str, Save]:
    """As large as can be, and with data for each pixel."""
    half = (SIDE, MAX_PIXELS_WIDE // SIDE)

    def save(mode: str, size: tuple[int, int], format: str, **options: object) -> Save:
        return lambda path: Image.new(mode, size).save(path, format, **options)

    def passes() -> Iterator[int]:
        for left, top, step_x, step_y in ADAM7:
            yield from [4 * len(range(left, SIDE, step_x))] * len(range(top, SIDE, step_y))

    found = {f"{mode} png": save(mode, (SIDE, SIDE), "PNG", compress_level=1) for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")}
    found["deep png"] = lambda path: _write(path, png_of(*half, 16, 6, iter([8 * half[0]] * half[1])))
    found["interlaced png"] = lambda path: _write(path, png_of(SIDE, SIDE, 8, 6, passes(), is_interlaced=True))
    found |= {f"{mode} jpeg": save(mode, (SIDE, SIDE), "JPEG") for mode in ("L", "RGB", "CMYK")}
    found["progressive jpeg"] = save("RGB", (SIDE, SIDE), "JPEG", progressive=True, subsampling=0)
    found |= {f"{mode} webp": save(mode, half, "WEBP", method=0) for mode in ("RGB", "RGBA")}
    found["lossless webp"] = save("RGBA", half, "WEBP", lossless=True, method=0)
    one_strip = {278: SIDE}
    for mode, compression in (("RGBA", "tiff_adobe_deflate"), ("I", "tiff_lzw"), ("CMYK", "tiff_lzw"), ("RGB", "jpeg"), ("1", "group4")):
        found[f"{mode} tiff"] = save(mode, (SIDE, SIDE), "TIFF", compression=compression, tiffinfo=one_strip)
    return found | {"gif": save("P", (SIDE, SIDE), "GIF"), "bmp": save("RGB", (SIDE, SIDE), "BMP")}


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def main() -> int:
    folder, is_full = Path(sys.argv[1]), sys.argv[2] == "full"
    path = folder / "large.png"
    for data in seeds():
        path.write_bytes(data)
        outcome(path)
    made: dict[str, Save] = {
        name: (lambda path, data=data: _write(path, data)) for name, data in promises(1 << (30 if is_full else 26)).items()
    }  # type: ignore[misc]
    for name, save in (made | (whole() if is_full else {})).items():
        save(path)
        # In a child, so that what the encoder took does not count, and one that is killed does not end the rest.
        child = os.fork()
        if child == 0:
            limit_memory()
            print(f"{name}: {outcome(path)}", flush=True)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            print(f"{name}: ended by {status}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
