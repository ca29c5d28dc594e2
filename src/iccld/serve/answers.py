"""What is sent back of a segmented picture: the mask as a palette PNG, the picture with its classes' colours, or JSON."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from iccld.data import png
from iccld.front import Segmentation

FORMATS = {"png": "image/png", "json": "application/json", "overlay": "image/jpeg"}
"""`?format=` -> the type that the answer has, and that `Accept` may ask for."""
CHOICES = {
    "format": tuple(FORMATS),
    "mask": ("png", "grey", "rle", "none"),
    "confidence": ("none", "png"),
    "picture": ("none", "jpeg"),
}
"""The query's parameters and what each may be, the default first (`format`: by `Accept`)."""
ONLY_JSON = ("mask", "confidence", "picture")


@dataclass(frozen=True)
class Wish:
    """How a client wants its answer."""

    format: str
    mask: str = "png"
    confidence: str = "none"
    picture: str = "none"


@dataclass(frozen=True)
class Answer:
    """A body and its type."""

    body: bytes
    media_type: str


def wish_of(query: QueryParams, accept: str) -> Wish:
    """The request's wish; `?format=` wins over `Accept`.  HTTPException 400 for anything that there is not, 406 for another type."""
    given: dict[str, str] = {}
    for key, value in query.multi_items():
        if key not in CHOICES or key in given:
            raise HTTPException(400, f"unknown or doubled parameter; there are {', '.join(CHOICES)}")
        if value not in CHOICES[key]:
            raise HTTPException(400, f"{key} is one of {', '.join(CHOICES[key])}")
        given[key] = value
    given.setdefault("format", _accepted(accept))
    if given["format"] != "json" and any(key in given for key in ONLY_JSON):
        raise HTTPException(400, f"{', '.join(ONLY_JSON)} go with format=json")
    return Wish(**given)


def _accepted(accept: str) -> str:
    """The format that an Accept header likes best, PNG where it leaves the choice."""
    best, best_weight = "", 0.0
    for part in accept.split(",") if accept.strip() else ["*/*"]:
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        name = next((name for name, media_type in FORMATS.items() if kind in (media_type, media_type.split("/")[0] + "/*", "*/*")), "")
        if name and 1.0 >= weight > best_weight:
            best, best_weight = name, weight
    if not best:
        raise HTTPException(406, f"there are {', '.join(FORMATS.values())}")
    return best


def answer(result: Segmentation, wish: Wish) -> Answer:
    """Encode a picture's labels as wished."""
    if wish.format == "png":
        return Answer(png.encode(result.labels, result.palette), FORMATS["png"])
    if wish.format == "overlay":
        return Answer(_jpeg(result.overlay()), FORMATS["overlay"])
    return Answer(json.dumps(_content(result, wish), separators=(",", ":")).encode(), FORMATS["json"])


def _content(result: Segmentation, wish: Wish) -> dict[str, Any]:
    """Size, classes that occur, and what else is wished; shares and confidences are in 0..1."""
    labels, num = result.labels, len(result.names)
    counts = np.bincount(labels.ravel(), minlength=num)
    sums = np.bincount(labels.ravel(), weights=result.confidence.ravel(), minlength=num)
    classes: list[dict[str, Any]] = [
        {
            "id": index,
            "name": result.names[index],
            "color": result.palette[index].tolist(),
            "share": round(int(counts[index]) / labels.size, 6),
            "confidence": round(float(sums[index] / counts[index]), 4),
        }
        for index in range(num)
        if counts[index]
    ]
    if wish.mask == "rle":
        for entry in classes:
            entry["rle"] = {"size": list(labels.shape), "counts": run_lengths(labels == entry["id"])}
    content: dict[str, Any] = {
        "size": list(labels.shape),
        "confidence": round(float(result.confidence.mean()), 4),
        "classes": sorted(classes, key=lambda entry: -entry["share"]),
    }
    if wish.mask in ("png", "grey"):
        content["mask"] = _base64(png.encode(labels, result.palette if wish.mask == "png" else None))
    if wish.confidence == "png":
        content["confidence_map"] = _base64(_png(Image.fromarray((result.confidence * 255.0).round().astype(np.uint8))))
    if wish.picture == "jpeg":
        content["picture"] = _base64(_jpeg(Image.fromarray(result.image)))
    return content


def run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """(H, W) bool -> COCO's uncompressed run lengths: column by column, the first run is of zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(ends).tolist()
    return [0, *runs] if flat[0] else list(runs)


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="PNG", compress_level=4)
    return data.getvalue()


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=90)
    return data.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
