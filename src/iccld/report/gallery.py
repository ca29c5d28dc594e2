"""The pictures of a run as data URIs: image, truth, each stage's prediction, where the last one is wrong, how certain it is."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from iccld.labels import IGNORE
from iccld.report.run import Run, mapping

BUDGET = 4_500_000  # bytes of base64; the rest of the page is far smaller, so it stays under 6 MB
WIDTHS = (640, 512, 384, 256, 160)
WRONG = np.array((230, 60, 20), dtype=np.float32)
FIXED = np.array((30, 110, 200), dtype=np.float32)

Mask = npt.NDArray[np.uint8]
Where = npt.NDArray[np.bool_]
Shades = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """One inlined picture.  kind: `image`, `truth`, `prediction`, `change`, `error` or `confidence`."""

    kind: str
    title: str
    alt: str
    uri: str
    caption: str = ""


@dataclass(frozen=True)
class Row:
    """Everything shown of one evaluation image."""

    name: str
    pictures: list[Picture]


def gallery(run: Run, budget: int = BUDGET) -> list[Row]:
    """All rows, at the largest width whose pictures fit the budget in bytes; [] where the run has no pictures."""
    rows: list[Row] = []
    for width in WIDTHS:
        rows = _rows(run, width)
        if sum(len(picture.uri) for row in rows for picture in row.pictures) <= budget:
            return rows
    while rows and sum(len(picture.uri) for row in rows for picture in row.pictures) > budget:
        rows.pop()
    return rows


def share_wrong(truth: Mask, prediction: Mask) -> float | None:
    """Percent of scored pixels that are wrong, (H, W) and (H, W) train ids; None where no pixel is scored."""
    scored = truth != IGNORE
    return 100 * float(np.mean(prediction[scored] != truth[scored])) if scored.any() else None


def error_map(image: npt.NDArray[np.uint8], truth: Mask, prediction: Mask) -> npt.NDArray[np.uint8]:
    """Wrong pixels in red on the pale grey image, unscored ones darkened.  (H, W, 3) uint8, (H, W), (H, W) -> (H, W, 3) uint8."""
    scored = truth != IGNORE
    return marked(image, [(scored & (prediction != truth), WRONG)], scored)


def change_map(image: npt.NDArray[np.uint8], truth: Mask | None, before: Mask, after: Mask) -> npt.NDArray[np.uint8]:
    """What a stage changed: blue where a wrong pixel became right, red where a right one became wrong, violet where wrong stayed wrong.

    Without a truth every change is violet.  (H, W, 3) uint8, (H, W), (H, W), (H, W) -> (H, W, 3) uint8.
    """
    changed = before != after
    violet = 0.5 * (WRONG + FIXED)
    if truth is None:
        return marked(image, [(changed, violet)], np.ones_like(changed))
    scored = truth != IGNORE
    marks = [(changed & scored, violet), (changed & scored & (after == truth), FIXED), (changed & scored & (before == truth), WRONG)]
    return marked(image, marks, scored)


def marked(image: npt.NDArray[np.uint8], marks: Sequence[tuple[Where, Shades]], scored: Where) -> npt.NDArray[np.uint8]:
    """The image in pale grey with areas (H, W) in their colours; what is not scored is dark."""
    grey = image.astype(np.float32).mean(axis=2, keepdims=True).repeat(3, axis=2)
    shown: Shades = 150 + grey * np.float32(95 / 255)
    for where, colour in marks:
        shown[where] = 0.12 * grey[where] + 0.88 * colour
    shown[~scored] = grey[~scored] * 0.35
    clipped: npt.NDArray[np.uint8] = shown.clip(0, 255).astype(np.uint8)
    return clipped


def read_mask(path: Path, size: tuple[int, int] | None = None) -> Mask | None:
    """Indices (H, W) of a palette PNG, at size (width, height) by nearest neighbour; None where the file is missing or damaged."""
    try:
        with Image.open(path) as opened:
            if opened.mode not in ("P", "L"):
                return None
            raw = np.asarray(opened, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError):
        return None
    mask = Image.fromarray(raw)
    if size is not None and mask.size != size:
        mask = mask.resize(size, Image.Resampling.NEAREST)
    return np.asarray(mask, dtype=np.uint8)


def palette_image(mask: Mask, palette: Sequence[Sequence[int]]) -> Image.Image:
    """A palette PNG of train ids; ignored pixels are near black."""
    table = np.full((256, 3), 24, dtype=np.uint8)
    colours = np.asarray(palette, dtype=np.uint8).reshape(-1, 3)
    table[: len(colours)] = colours
    coloured = Image.fromarray(mask)
    coloured.putpalette(table.tobytes())
    return coloured


def picture_stages(run: Run) -> list[str]:
    """Stages that have pictures, in the run's order; without the control, which is no part of the story."""
    listed = [str(name) for name in run.pictures.get("stages") or [] if "control" not in str(name)]
    order = [stage.name for stage in run.stages]
    return sorted(listed, key=lambda name: order.index(name) if name in order else len(order))


def _rows(run: Run, width: int) -> list[Row]:
    names = run.pictures.get("names")
    palette = mapping(run.pictures.get("label_space")).get("palette")
    if not isinstance(names, list) or not isinstance(palette, list):
        return []
    found = [_row(run, i, str(name), palette, width) for i, name in enumerate(names)]
    return [row for row in found if row.pictures]


def _row(run: Run, i: int, name: str, palette: list[list[int]], width: int) -> Row:
    folder = run.path / "pictures"
    image = _read_photo(folder / f"{i}_image.jpg", width)
    if image is None:
        return Row(name, [])
    size = image.size
    pixels = np.asarray(image, dtype=np.uint8)
    pictures = [Picture("image", "Image", f"Image {name}", _uri(image, "JPEG"))]
    truth = read_mask(folder / f"{i}_truth.png", size)
    if truth is not None:
        pictures.append(Picture("truth", "Truth", f"True classes of {name}", _uri(palette_image(truth, palette), "PNG")))
    titles = {stage.name: stage.title for stage in run.stages}
    predictions: dict[str, Mask] = {}
    for stage in picture_stages(run):
        prediction = read_mask(folder / f"{i}_{stage}.png", size)
        if prediction is None:
            continue
        title = titles.get(stage, stage)
        wrong = share_wrong(truth, prediction) if truth is not None else None
        caption = f"{wrong:.1f} % wrong" if wrong is not None else ""
        alt = f"Classes predicted for {name} after {title.lower()}"
        pictures.append(Picture("prediction", title, alt, _uri(palette_image(prediction, palette), "PNG"), caption))
        predictions[stage] = prediction
    if not predictions:
        return Row(name, pictures)
    stage, prediction = list(predictions.items())[-1]
    title = titles.get(stage, stage)
    if len(predictions) > 1:
        pictures.append(_change(name, title, pixels, truth, list(predictions.values())[-2], prediction))
    if truth is not None:
        shown = Image.fromarray(error_map(pixels, truth, prediction))
        alt = f"Pixels of {name} that {title.lower()} gets wrong, in red"
        pictures.append(Picture("error", "Errors", alt, _uri(shown, "JPEG"), title))
    confidence = read_mask(folder / f"{i}_{stage}_confidence.png", size)
    if confidence is not None:
        alt = f"Confidence of {title.lower()} on {name}, white is certain"
        caption = f"{title}, mean {confidence.mean() / 2.55:.0f} %"
        pictures.append(Picture("confidence", "Confidence", alt, _uri(Image.fromarray(confidence), "JPEG"), caption))
    return Row(name, pictures)


def _change(name: str, title: str, pixels: npt.NDArray[np.uint8], truth: Mask | None, before: Mask, after: Mask) -> Picture:
    """The picture of what the last stage changed, and how much of it for the better."""
    shown = Image.fromarray(change_map(pixels, truth, before, after))
    alt = f"Pixels of {name} that {title.lower()} changed"
    caption = f"{100 * float(np.mean(before != after)):.1f} % of pixels"
    if truth is not None and (truth != IGNORE).any():
        scored = truth != IGNORE
        fixed = 100 * float(np.mean(((before != truth) & (after == truth))[scored]))
        broken = 100 * float(np.mean(((before == truth) & (after != truth))[scored]))
        caption = f"{fixed:.1f} % mended, {broken:.1f} % spoilt"
        alt += ": mended ones in blue, spoilt ones in red"
    return Picture("change", f"Changed by {title.lower()}", alt, _uri(shown, "JPEG"), caption)


def _read_photo(path: Path, width: int) -> Image.Image | None:
    try:
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None
    if photo.width > width:
        photo = photo.resize((width, max(1, round(photo.height * width / photo.width))), Image.Resampling.LANCZOS)
    return photo


def _uri(image: Image.Image, form: str) -> str:
    buffer = io.BytesIO()
    if form == "JPEG":
        image.save(buffer, "JPEG", quality=82, optimize=True)
    else:
        image.save(buffer, "PNG", optimize=True)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
