"""From logits to a class per pixel at any size, a band of rows at a time: a 24-megapixel picture needs megabytes, not gigabytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from iccld.evaluation.views import View, mean_log_probability
from iccld.evaluation.winners import Enlargement, winners
from iccld.geometry import Shape

BAND_VALUES = 2**20
"""Logits held at once while deciding (4 MiB of float32): small enough for a cache-friendly pass, large enough to keep threads busy."""


def resize_rows(logits: Tensor, size: tuple[int, int], start: int, stop: int) -> Tensor:
    """Rows start..stop of the logits resized to size: (B, K, h, w) -> (B, K, stop - start, W), bilinear with half-pixel centres.

    The same values as `interpolate(logits, size, mode="bilinear", align_corners=False)[:, :, start:stop]`, without the rest.
    """
    height, width = size
    if logits.shape[2] == height:
        rows = logits[:, :, start:stop]
    else:
        position = (torch.arange(start, stop, device=logits.device, dtype=torch.float32) + 0.5) * (logits.shape[2] / height) - 0.5
        position = position.clamp(0, logits.shape[2] - 1)
        upper = position.floor().long()
        lower = (upper + 1).clamp(max=logits.shape[2] - 1)
        weight = (position - upper)[:, None]  # (rows, 1)
        rows = logits[:, :, upper] * (1 - weight) + logits[:, :, lower] * weight  # (B, K, rows, w)
    if rows.shape[3] == width:
        return rows
    return functional.interpolate(rows, size=(rows.shape[2], width), mode="bilinear", align_corners=False)


def decide(
    logits: Tensor | View | Sequence[Tensor | View], size: Shape | None = None, *, confidence: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Resize, then argmax: (B, K, h, w) -> (B, H, W) uint8 labels, and with `confidence` the winner's softmax (B, H, W) float32 in 0..1.

    logits: those of several views of the pictures, each of its own h and w, are resized, and the mean of their probabilities decides.
    Of a single view on the CPU the labels are found without resizing all of it (`winners`).
    """
    views = [_whole(view) if isinstance(view, Tensor) else view for view in ([logits] if isinstance(logits, Tensor | View) else logits)]
    size = size or views[0].content
    if len(views) > 1 or views[0].logits.device.type != "cpu":
        return _decide_all(views, size, confidence)
    values = views[0].logits.detach().float().numpy()
    labels = torch.from_numpy(np.stack([winners(each, Enlargement(*views[0][1:], size)) for each in values]))
    return labels, _decide_all(views, size, True)[1] if confidence else None


def are_finite(logits: Tensor) -> bool:
    """Whether no value is infinite or not a number: their sum tells in a thirtieth of the time, and where it overflows each is asked."""
    return math.isfinite(float(logits.sum())) or bool(torch.isfinite(logits).all())


def _whole(logits: Tensor) -> View:
    size = (int(logits.shape[2]), int(logits.shape[3]))
    return View(logits, size, size)


def _decide_all(views: Sequence[View], size: Shape, confidence: bool) -> tuple[Tensor, Tensor | None]:
    """Every class of every pixel, in bands of rows."""
    parts = [view.of_picture().float() for view in views]
    num_images, num_classes = parts[0].shape[:2]
    labels = torch.empty((num_images, *size), dtype=torch.uint8, device=parts[0].device)
    certainty = torch.empty((num_images, *size), dtype=torch.float32, device=parts[0].device) if confidence else None
    step = max(1, BAND_VALUES // (num_images * num_classes * size[1]))
    for start in range(0, size[0], step):
        stop = min(size[0], start + step)
        rows = partial(resize_rows, size=size, start=start, stop=stop)
        band = rows(parts[0]) if len(parts) == 1 else mean_log_probability(parts, rows)  # (B, K, rows, W)
        best, index = band.max(dim=1)  # (B, rows, W)
        labels[:, start:stop] = index.to(torch.uint8)
        if certainty is not None:
            certainty[:, start:stop] = 1.0 / torch.exp(band - best[:, None]).sum(dim=1)
    return labels, certainty
