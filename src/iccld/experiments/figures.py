"""Grids of pictures as in the paper's Figures 4 and 5: one row a picture; columns image, truth, and what each run predicts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from iccld.files import write_atomically
from iccld.report.gallery import palette_image, read_mask
from iccld.report.pictures import class_legend
from iccld.report.run import mapping, read_run

WIDTH = 240
"""Of one picture, in pixels."""

GAP = 6


@dataclass(frozen=True)
class Shown:
    """One column of predictions: what it is called, and the run and stage whose masks it shows."""

    title: str
    run: Path
    stage: str


def write_grid(path: Path, columns: Sequence[Shown], width: int = WIDTH) -> Path | None:
    """Compose the grid as PNG from the pictures that the runs kept; None when no run kept any.

    Image and truth are the first run's; a column without a mask of a picture stays empty there.
    """
    columns = [column for column in columns if (column.run / "pictures" / f"0_{column.stage}.png").is_file()]
    if not columns:
        return None
    first = read_run(columns[0].run)
    palette = mapping(first.pictures.get("label_space")).get("palette") or []
    rows = [_row(i, columns, palette, width) for i in range(len(first.pictures.get("names") or []))]
    titles = ["Image", "Truth", *(column.title for column in columns)]
    font = ImageFont.load_default(14)
    head = 8 + 17 * max(len(wrapped(title, width, font)) for title in titles)
    full = GAP + len(titles) * (width + GAP)
    legend = class_legend(first, full, font)
    height = head + sum(max(cell.height for cell in row if cell is not None) + GAP for row in rows) + legend.height
    sheet = Image.new("RGB", (max(full, legend.width), height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, title in enumerate(titles):
        for line, words in enumerate(wrapped(title, width, font)):
            draw.text((GAP + i * (width + GAP), 4 + 17 * line), words, fill=(40, 40, 40), font=font)
    top = head
    for row in rows:
        for i, cell in enumerate(row):
            if cell is not None:
                sheet.paste(cell, (GAP + i * (width + GAP), top))
        top += max(cell.height for cell in row if cell is not None) + GAP
    sheet.paste(legend, (0, top))
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    write_atomically(path, data.getvalue())
    return path


def _row(i: int, columns: Sequence[Shown], palette: Sequence[Sequence[int]], width: int) -> list[Image.Image | None]:
    folder = columns[0].run / "pictures"
    with Image.open(folder / f"{i}_image.jpg") as opened:
        photo = opened.convert("RGB")
    size = (width, max(1, round(photo.height * width / photo.width)))
    masks = [folder / f"{i}_truth.png", *(column.run / "pictures" / f"{i}_{column.stage}.png" for column in columns)]
    found: list[Image.Image | None] = [photo.resize(size, Image.Resampling.LANCZOS)]
    for mask in (read_mask(path, size) for path in masks):
        found.append(None if mask is None else palette_image(mask, palette).convert("RGB"))
    return found


def wrapped(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Words in lines no wider than the width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
