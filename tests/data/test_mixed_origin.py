"""A folder of pictures of mixed origin, some of them broken in known ways: `data check` finds those, all of those, and nothing else.

500 pictures by default; FAULTS=full makes it 100,000.
"""

from __future__ import annotations

import io
import os
import random
import re
import resource
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld import progress
from iccld.data import open_dataset
from iccld.data.check import check_dataset
from iccld.labels import LabelClass, LabelSpace

NUM = 100_000 if os.environ.get("FAULTS") == "full" else 500
BROKEN = 0.1
"""Share of the pictures that have a fault."""
SPACE = LabelSpace("four", tuple(LabelClass(name, (i, i, i)) for i, name in enumerate(("road", "sky", "car", "tree"))))
SIZES = ((16, 24), (24, 16), (19, 23), (31, 9))
"""(H, W); none has the majority, so that none is odd."""
MEMORY = 400 << 20
"""Bytes that the check of any number of tiny pictures may add."""


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def pictures(size: tuple[int, int], rng: np.random.Generator) -> list[tuple[str, bytes]]:
    """(suffix, file) of every mode and format, (H, W)."""
    pixels = np.kron(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))[: size[0], : size[1]]
    rgb, grey = Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    rgba = rgb.copy()
    rgba.putalpha(grey)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 3
    made: list[tuple[str, Image.Image, str, dict[str, object]]] = [
        *((".png", image, "PNG", {}) for image in (rgb, rgba, grey, deep, rgb.quantize(9), rgb.convert("LA"), rgb.convert("1"))),
        (".png", rgb.quantize(9), "PNG", {"transparency": 1}),
        *(
            (".jpg", image, "JPEG", options)
            for image in (rgb, grey, rgb.convert("CMYK"))
            for options in ({}, {"progressive": True, "exif": exif})
        ),
        *((".webp", image, "WEBP", options) for image in (rgb, rgba) for options in ({}, {"lossless": True})),
        *((".tif", image, "TIFF", {"compression": "tiff_lzw"}) for image in (rgb, rgba, grey, deep, rgb.quantize(9))),
        (".TIFF", rgb, "TIFF", {"exif": exif}),
        (".bmp", rgb, "BMP", {}),
        (".gif", rgb.quantize(9), "GIF", {"save_all": True, "append_images": [rgb.rotate(180).quantize(9)]}),
        # A suffix does not bind: many JPEGs are called .png.
        (".png", rgb, "JPEG", {}),
        (".JPG", rgb, "PNG", {}),
    ]
    return [(suffix, encoded(image, format, **options)) for suffix, image, format, options in made]


def masks(size: tuple[int, int], rng: np.random.Generator) -> list[tuple[str, bytes, list[int], int]]:
    """(suffix, file, pixels of each class, ignored pixels)."""
    found = []
    for _ in range(4):
        ids = rng.choice(np.array([0, 1, 2, 3, 255], dtype=np.uint8), size)
        counts = [int((ids == c).sum()) for c in range(4)]
        indexed = Image.fromarray(ids)
        indexed.putpalette(bytes(range(256)) * 3)
        for suffix, data in (
            (".png", encoded(Image.fromarray(ids), "PNG")),
            (".png", encoded(indexed, "PNG")),
            (".png", encoded(Image.fromarray(ids.astype(np.uint16)), "PNG")),
            (".tif", encoded(Image.fromarray(ids), "TIFF", compression="tiff_adobe_deflate")),
            (".bmp", encoded(indexed, "BMP")),
        ):
            found.append((suffix, data, counts, int((ids == 255).sum())))
    return found


def bomb(picture: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + end)


def pipe(picture: Path) -> None:
    picture.unlink()
    os.mkfifo(picture)


def cut(path: Path) -> None:
    """A third is left: half an animation may hold all of its first frame, which is what is read."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])


def becomes(mode: str, format: str, value: int = 0, size: tuple[int, int] = (24, 16), **options: object) -> Callable[[Path], None]:
    data = encoded(Image.new(mode, size, value), format, **options)
    return lambda path: (path.write_bytes(data), None)[1]


def wrong_checksum(mask: Path) -> None:
    mask.write_bytes(encoded(Image.new("L", (24, 16)), "PNG")[:-14] + b"?" + encoded(Image.new("L", (24, 16)), "PNG")[-13:])


def very_long(picture: Path) -> None:
    """The mask as well: nothing but the shape is wrong."""
    becomes("RGB", "PNG", size=LONG[::-1])(picture)
    mask = next(Path(str(picture.parent).replace("images", "masks")).glob(f"{picture.stem}.*"))
    becomes("L", "PNG", size=LONG[::-1])(mask)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


LONG = (9, 90)
PICTURE_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a third of a picture": (cut, ""),
    "nothing": (lambda path: path.write_bytes(b"") and None, "not a picture"),
    "noise": (lambda path: path.write_bytes(random.Random(path.name).randbytes(200)) and None, "not a picture"),
    "bomb": (bomb, "limit"),
    "pipe": (pipe, "pipe"),
    "floats": (becomes("F", "TIFF"), "no defined brightness"),
    "very long": (very_long, "odd size"),
}
"""What is broken -> how, and words of the message."""
MASK_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a third of a mask": (cut, ""),
    "wrong checksum": (wrong_checksum, "checksum"),
    "unknown id": (becomes("L", "PNG", 77), "unknown label value 77"),
    "mask of another size": (becomes("L", "PNG", 2, (12, 12)), "but"),
    "lossy mask": (becomes("L", "JPEG"), "JPEG inside"),
    "colours": (becomes("RGB", "PNG"), "holds colours"),
    "turned mask": (becomes("L", "PNG", exif=turned()), "EXIF"),
}
LONELY = {"no mask": "no mask", "no picture": "no picture"}
WORDS = {**LONELY, **{kind: words for kind, (_, words) in (PICTURE_FAULTS | MASK_FAULTS).items()}}


class Planted:
    """What the check should find, counted while the folder is made."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        """The file that the problem names -> what is broken."""
        self.counts = np.zeros(4, dtype=np.int64)
        self.num_ignored = self.num_images = 0
        self.sizes: Counter[tuple[int, int]] = Counter()

    def break_pair(self, kind: str, picture: Path, mask: Path) -> None:
        if kind in PICTURE_FAULTS:
            PICTURE_FAULTS[kind][0](picture)
        elif kind in MASK_FAULTS:
            MASK_FAULTS[kind][0](mask)
        else:
            (mask if kind == "no mask" else picture).unlink()
        self.problems[str(mask if kind in MASK_FAULTS or kind == "no picture" else picture)] = kind

    def count(self, kind: str, size: tuple[int, int], counts: list[int], ignored: int) -> None:
        self.num_images += kind != "no picture"
        if not kind or kind in MASK_FAULTS or kind == "no mask":
            self.sizes[size] += 1
        if kind == "very long":
            self.sizes[LONG] += 1
            self.counts[0] += LONG[0] * LONG[1]
        elif kind == "mask of another size":
            self.counts[2] += 12 * 12
        elif not kind or kind in PICTURE_FAULTS:
            self.counts += counts
            self.num_ignored += ignored


def plant(root: Path) -> Planted:
    """NUM pictures with masks below `root`."""
    rng, dice, planted = np.random.default_rng(0), random.Random(0), Planted()
    pool = [(pictures(size, rng), masks(size, rng), size) for size in SIZES]
    for number in range(NUM):
        some_pictures, some_masks, size = dice.choice(pool)
        picture_suffix, picture_data = dice.choice(some_pictures)
        mask_suffix, mask_data, counts, ignored = dice.choice(some_masks)
        folder = f"{number // 1000:03}"
        picture, mask = root / "images" / folder / f"{number}{picture_suffix}", root / "masks" / folder / f"{number}{mask_suffix}"
        for path, data in ((picture, picture_data), (mask, mask_data)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        kind = dice.choice(list(WORDS)) if dice.random() < BROKEN else ""
        if kind:
            planted.break_pair(kind, picture, mask)
        planted.count(kind, size, counts, ignored)
    return planted


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes lie among the pictures")
def test_fault_28_mixed_origin_is_counted_as_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "cache"))
    planted = plant(tmp_path / "data")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    progress.set_quiet(True)
    try:
        report = check_dataset(open_dataset(tmp_path / "data", label_space=SPACE, strict=False))  # as `data check` opens it
    finally:
        progress.set_quiet(False)
    seconds = time.process_time() - start
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    told: Counter[str] = Counter()
    for problem in report.problems:
        named = [path for path in re.split(r"[ :;,]+", problem) if path in planted.problems]
        assert len(named) == 1, problem
        assert WORDS[planted.problems[named[0]]] in problem
        assert "\n" not in problem
        told[named[0]] += 1
    assert told == Counter(dict.fromkeys(planted.problems, 1))
    assert report.num_images == planted.num_images
    assert report.sizes == planted.sizes
    assert report.counts.sum(axis=0).tolist() == planted.counts.tolist()
    assert report.num_ignored_pixels == planted.num_ignored
    kinds = len(set(planted.problems.values()))
    print(f"{NUM} pictures, {len(told)} broken in {kinds} ways, all found; {seconds:.0f} s of CPU, {added >> 20} MiB added")
    assert added < MEMORY
