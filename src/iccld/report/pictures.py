"""Make a run's pictures from a predictor, and put them on one sheet."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from iccld.batch import Sample
from iccld.errors import CheckpointError
from iccld.files import write_atomically, write_json
from iccld.report.gallery import error_map, palette_image, picture_stages, read_mask
from iccld.report.run import Json, Run, mapping, read_run

if TYPE_CHECKING:
    from torch import Tensor

    from iccld.labels import LabelSpace

MAX_PICTURES = 6
LONG_SIDE = 1024  # pixels; what a page or a sheet can show, so that a run's folder stays small


class Samples(Protocol):
    """What is needed of a dataset: a sample by its position."""

    def __getitem__(self, index: int, /) -> Sample: ...


def save_pictures(
    run: Path,
    stage: str,
    predict_logits: Callable[[Tensor], Tensor],
    dataset: Samples,
    label_space: LabelSpace,
    indices: Sequence[int],
) -> Path:
    """Write image, truth, prediction and confidence of up to six images for one stage into `pictures/`; returns that folder.

    predict_logits: (1, 3, H, W) uint8 -> (1, K, H, W) float logits.  Pictures are stored with a long side of at most 1024 pixels.
    The index is merged with the stages already there; when other images were shown before, those pictures are removed.
    """
    import torch

    from iccld.evaluation.evaluate import device_of

    device = device_of(predict_logits)
    folder = run / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for i, index in enumerate(indices[:MAX_PICTURES]):
        sample = dataset[index]
        names.append(sample.name)
        image = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1)[None].to(device)  # (1, 3, H, W)
        with torch.no_grad():
            probabilities = predict_logits(image).float().softmax(dim=1)  # (1, K, H, W)
        confidence, prediction = (array[0].cpu().numpy() for array in probabilities.max(dim=1))  # (H, W) each
        shown = _limit(Image.fromarray(sample.image), Image.Resampling.LANCZOS)
        _replace(shown, folder / f"{i}_image.jpg", quality=92)
        if sample.label is not None:
            _save_mask(sample.label, label_space.palette, folder / f"{i}_truth.png")
        _save_mask(prediction.astype(np.uint8), label_space.palette, folder / f"{i}_{stage}.png")
        grey = Image.fromarray(np.rint(255 * confidence).clip(0, 255).astype(np.uint8))
        _replace(_limit(grey, Image.Resampling.BOX), folder / f"{i}_{stage}_confidence.png")
    _merge_index(folder, stage, names, label_space)
    return folder


def _merge_index(folder: Path, stage: str, names: list[str], label_space: LabelSpace) -> None:
    path = folder / "index.json"
    try:
        before: Json = mapping(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except ValueError:
        before = {}
    stages = [str(name) for name in before.get("stages") or []]
    if before.get("names") != names:
        for old in stages:
            if old != stage:
                for stale in (*folder.glob(f"*_{old}.png"), *folder.glob(f"*_{old}_confidence.png")):
                    stale.unlink()
        stages = []
    space = {"names": list(label_space.names), "palette": np.asarray(label_space.palette).tolist()}
    index: dict[str, Any] = {"names": names, "stages": list(dict.fromkeys([*stages, stage])), "label_space": space}
    write_json(path, index, indent=1)


def _save_mask(mask: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8], path: Path) -> None:
    small = np.asarray(_limit(Image.fromarray(mask), Image.Resampling.NEAREST), dtype=np.uint8)
    _replace(palette_image(small, palette.tolist()), path)


def _limit(image: Image.Image, resampling: Image.Resampling) -> Image.Image:
    scale = LONG_SIDE / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), resampling)


def _replace(image: Image.Image, path: Path, **options: Any) -> None:
    data = io.BytesIO()
    image.save(data, path.suffix.lstrip(".").replace("jpg", "jpeg"), **options)
    write_atomically(path, data.getvalue())


def contact_sheet(run: Path, *, width: int = 280, num_pictures: int = 4) -> Path:
    """Compose `pictures/sheet.png`: one column per image; rows image, truth, every stage, errors of the last stage; classes below.

    width: of one picture, in pixels.  Raises CheckpointError when the run has no pictures.
    """
    record = read_run(run)
    names = (record.pictures.get("names") or [])[:num_pictures]
    palette = mapping(record.pictures.get("label_space")).get("palette")
    if not names or not palette:
        raise CheckpointError(f"{run} has no pictures: no pictures/index.json; they are made when a stage is evaluated")
    columns = [_column(record, i, palette, width) for i in range(len(names))]
    titles = list(dict.fromkeys(title for column in columns for title in column))
    order = {"Image": 0, "Truth": 1, "Errors": 9}
    titles.sort(key=lambda title: order.get(title, 2))
    heights = [max((column[t].height for column in columns if t in column), default=0) for t in titles]
    font, gap = ImageFont.load_default(15), 6
    margin = 12 + max(round(font.getlength(title)) for title in titles) + 12
    legend = class_legend(record, margin + len(columns) * (width + gap) + gap, font)
    sheet = Image.new("RGB", (legend.width, gap + sum(height + gap for height in heights) + legend.height), "white")
    draw = ImageDraw.Draw(sheet)
    top = gap
    for title, height in zip(titles, heights, strict=True):
        draw.text((12, top + height / 2), title, fill=(40, 40, 40), font=font, anchor="lm")
        for i, column in enumerate(columns):
            if title in column:
                sheet.paste(column[title], (margin + i * (width + gap), top))
        top += height + gap
    sheet.paste(legend, (0, top))
    path = record.path / "pictures" / "sheet.png"
    _replace(sheet, path, optimize=True)
    return path


def _column(run: Run, i: int, palette: list[list[int]], width: int) -> dict[str, Image.Image]:
    """The pictures of one image by row title, all at one size."""
    folder = run.path / "pictures"
    with Image.open(folder / f"{i}_image.jpg") as opened:
        photo = opened.convert("RGB")
    size = (width, max(1, round(photo.height * width / photo.width)))
    photo = photo.resize(size, Image.Resampling.LANCZOS)
    found = {"Image": photo}
    truth = read_mask(folder / f"{i}_truth.png", size)
    if truth is not None:
        found["Truth"] = palette_image(truth, palette).convert("RGB")
    titles = {stage.name: stage.title for stage in run.stages}
    prediction = None
    for stage in picture_stages(run):
        mask = read_mask(folder / f"{i}_{stage}.png", size)
        if mask is not None:
            found[titles.get(stage, stage)] = palette_image(mask, palette).convert("RGB")
            prediction = mask
    if truth is not None and prediction is not None:
        found["Errors"] = Image.fromarray(error_map(np.asarray(photo, dtype=np.uint8), truth, prediction))
    return found


def class_legend(run: Run, width: int, font: Any) -> Image.Image:
    """A strip of class colours and names, wrapped to the width."""
    space = mapping(run.pictures.get("label_space"))
    entries = list(zip(space.get("names") or [], space.get("palette") or [], strict=False))  # what a damaged record has of both
    places, x, y = [], 12, 8
    for name, colour in entries:
        length = 18 + round(font.getlength(str(name))) + 16
        if x + length > width and x > 12:
            x, y = 12, y + 22
        places.append((x, y, str(name), tuple(int(part) for part in colour[:3])))
        x += length
    strip = Image.new("RGB", (width, y + 28), "white")
    draw = ImageDraw.Draw(strip)
    for left, top, name, colour in places:
        draw.rectangle((left, top + 1, left + 12, top + 13), fill=colour, outline=(120, 120, 120))
        draw.text((left + 18, top + 7), name, fill=(40, 40, 40), font=font, anchor="lm")
    return strip
