"""Pictures of what each row mended and spoiled: green where it is right and the start was wrong, red where it is the other way round."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from iccld.experiments.figures import GAP, WIDTH, Shown, wrapped
from iccld.files import write_atomically
from iccld.labels import IGNORE
from iccld.report.gallery import Mask, marked, palette_image, read_mask
from iccld.report.pictures import class_legend
from iccld.report.run import mapping, read_run

MENDED = np.array((20, 150, 60), dtype=np.float32)
SPOILED = np.array((225, 40, 30), dtype=np.float32)

MARGIN = 170
"""Of the rows' titles, in pixels."""


def mended_map(image: npt.NDArray[np.uint8], truth: Mask, before: Mask, after: Mask) -> npt.NDArray[np.uint8]:
    """Green where a wrong pixel became right, red where a right one became wrong, on pale grey; unscored ones are dark.

    (H, W, 3) uint8, (H, W), (H, W), (H, W) train ids -> (H, W, 3) uint8.
    """
    scored = truth != IGNORE
    was_right, is_right = scored & (before == truth), scored & (after == truth)
    return marked(image, [(is_right & ~was_right, MENDED), (was_right & ~is_right, SPOILED)], scored)


def shares(truth: Mask, before: Mask, after: Mask) -> tuple[float, float]:
    """Percent of scored pixels that were mended and that were spoiled; (0, 0) where none is scored."""
    scored = truth != IGNORE
    if not scored.any():
        return 0.0, 0.0
    was_right, is_right = before[scored] == truth[scored], after[scored] == truth[scored]
    return 100 * float(np.mean(is_right & ~was_right)), 100 * float(np.mean(was_right & ~is_right))


def write_mended(path: Path, start: Shown, rows: Sequence[Shown], count: int = 3, width: int = WIDTH) -> Path | None:
    """Compose a sheet as PNG: a column a picture; image, truth, what the start predicts, then each row's changes; None without pictures.

    Shares of mended and spoiled pixels stand under each row's title, over the pictures that are shown.
    """
    record = read_run(start.run)
    found = [i for i in range(len(record.pictures.get("names") or [])) if (start.run / "pictures" / f"{i}_truth.png").is_file()]
    places = _spread(found, count)
    if not places or not (start.run / "pictures" / f"{places[0]}_{start.stage}.png").is_file():
        return None
    palette = mapping(record.pictures.get("label_space")).get("palette") or []
    columns = [_Column(start, i, palette, width) for i in places]
    lines: list[tuple[str, list[Image.Image | None]]] = [
        ("Image", [column.photo for column in columns]),
        ("Truth", [column.named(column.truth) for column in columns]),
        (start.title, [column.named(column.before) for column in columns]),
    ]
    for row in rows:
        masks = [column.mask(row) for column in columns]
        parts = [(column, mask) for column, mask in zip(columns, masks, strict=True) if mask is not None]
        if parts:
            both = np.mean([shares(column.truth, column.before, mask) for column, mask in parts], axis=0)
            title = f"{row.title}: mended {both[0]:.1f} %, spoiled {both[1]:.1f} %"
            lines.append((title, [None if mask is None else column.changed(mask) for column, mask in zip(columns, masks, strict=True)]))
    font = ImageFont.load_default(14)
    data = io.BytesIO()
    _sheet(lines, class_legend(record, MARGIN + len(columns) * (width + GAP) + GAP, font), width, font).save(data, "PNG", optimize=True)
    write_atomically(path, data.getvalue())
    return path


class _Column:
    """One picture, its truth, and what the start says of it, all at one size."""

    def __init__(self, start: Shown, number: int, palette: Sequence[Sequence[int]], width: int) -> None:
        folder = start.run / "pictures"
        self.name, self.palette = _names(start.run)[number], palette
        with Image.open(folder / f"{number}_image.jpg") as opened:
            photo = opened.convert("RGB")
        self.size = (width, max(1, round(photo.height * width / photo.width)))
        self.photo = photo.resize(self.size, Image.Resampling.LANCZOS)
        truth, before = (read_mask(folder / f"{number}_{name}.png", self.size) for name in ("truth", start.stage))
        ignored = np.full(self.size[::-1], IGNORE, dtype=np.uint8)
        self.truth, self.before = (ignored if mask is None else mask for mask in (truth, before))

    def named(self, mask: Mask) -> Image.Image:
        """A mask in its classes' colours."""
        return palette_image(mask, self.palette).convert("RGB")

    def mask(self, row: Shown) -> Mask | None:
        """What a row predicts; None where it kept no such picture."""
        names = _names(row.run)
        if self.name not in names:
            return None
        return read_mask(row.run / "pictures" / f"{names.index(self.name)}_{row.stage}.png", self.size)

    def changed(self, after: Mask) -> Image.Image:
        """What was mended and spoiled."""
        return Image.fromarray(mended_map(np.asarray(self.photo, dtype=np.uint8), self.truth, self.before, after))


def _sheet(
    lines: Sequence[tuple[str, Sequence[Image.Image | None]]],
    legend: Image.Image,
    width: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> Image.Image:
    """Titles at the left, pictures beside them, the classes' colours below."""
    heights = [max(picture.height for picture in pictures if picture is not None) for _, pictures in lines]
    sheet = Image.new("RGB", (legend.width, GAP + sum(heights) + GAP * len(heights) + legend.height), "white")
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for (title, pictures), height in zip(lines, heights, strict=True):
        for number, words in enumerate(wrapped(title, MARGIN - 2 * GAP, font)):
            draw.text((GAP, top + 2 + 17 * number), words, fill=(40, 40, 40), font=font)
        for i, picture in enumerate(pictures):
            if picture is not None:
                sheet.paste(picture, (MARGIN + i * (width + GAP), top))
        top += height + GAP
    sheet.paste(legend, (0, top))
    return sheet


def _names(run: Path) -> list[str]:
    """Of the pictures that a run kept, in the order of their numbers."""
    return [str(name) for name in read_run(run).pictures.get("names") or []]


def _spread(places: Sequence[int], count: int) -> list[int]:
    """So many of them, evenly."""
    count = min(count, len(places))
    return [places[i * len(places) // count] for i in range(count)]
