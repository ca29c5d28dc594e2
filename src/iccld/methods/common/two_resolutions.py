"""What methods on HRDA's two resolutions share: the network, where its detail lies, and the loss of both resolutions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iccld.batch import DomainBatch
from iccld.evaluation import sliding_window
from iccld.losses import cross_entropy
from iccld.methods.common.daformer_family import SelfTrainingSettings
from iccld.methods.common.mixing import border_mask
from iccld.models import Offsets, Segmenter, TwoResolutionOutput, TwoResolutions, cut
from iccld.transforms import Draw

GRID = 16
"""Details lie at, and measure, multiples of this many pixels: whole cells of every network's context."""


@dataclass(frozen=True)
class TwoResolutionSettings(SelfTrainingSettings):
    """Settings with which HRDA began; equations are its paper's, defaults its released configuration's, pixels shares."""

    detail_weight: float = 0.1
    """Weight of the detail's own loss; the fused prediction has the rest (Eq. 12)."""
    attention_width: int = 32
    """Channels of the scale attention; 256 in the released code."""
    margin_top: float = 30 / 1024
    """Upper share of a target picture whose pseudo-labels weigh 0."""
    margin_bottom: float = 240 / 1024
    """Lower share of a target picture whose pseudo-labels weigh 0 (the bonnet)."""
    margin_side: float = 30 / 2048
    """Left and right share of a target picture whose pseudo-labels weigh 0."""


def two_resolutions(segmenter: Segmenter, crop: tuple[int, int], attention_width: int, enlarge: int = 1) -> TwoResolutions:
    """A segmenter whose details are half of the (enlarged) crop's height and width, as 512 of 1024 in HRDA."""
    height, width = (max(GRID, enlarge * side // 2 // GRID * GRID) for side in crop)
    return TwoResolutions(segmenter, attention_width, (height, width), sliding_window, enlarge)


def draw_offsets(model: TwoResolutions, crop: tuple[int, int], rows: int, draw: Draw) -> Offsets:
    """One place of the detail for the whole batch, as in the released code; the same on every rank."""
    place = draw.numbers(2)
    free = ((model.enlarge * side - detail) // GRID + 1 for side, detail in zip(crop, model.detail, strict=True))
    y, x = (int(u * count) * GRID for u, count in zip(place, free, strict=True))
    return [(y, x)] * rows


@torch.no_grad()
def uncertain_offsets(model: TwoResolutions, images: Tensor) -> Offsets:
    """Where each picture's context has the largest mean entropy, among windows half a detail apart (CLUDA): (B, 3, H, W) -> offsets."""
    log_p = model.context_logits(images).float().log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1, keepdim=True)  # (B, 1, h, w)
    cell = model.enlarge * images.shape[-1] // entropy.shape[-1]  # pixels
    kernel = (model.detail[0] // cell, model.detail[1] // cell)
    stride = (max(1, kernel[0] // 2), max(1, kernel[1] // 2))
    means = torch.nn.functional.avg_pool2d(entropy, kernel, stride)[:, 0]  # (B, windows down, windows across)
    best = means.flatten(1).argmax(1).tolist()
    across = means.shape[-1]
    return [(i // across * stride[0] * cell, i % across * stride[1] * cell) for i in best]


def fused_cross_entropy(
    model: TwoResolutions,
    output: TwoResolutionOutput,
    offsets: Offsets,
    label: Tensor,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    *,
    detail_weight: float = 0.1,
    count_ignored: bool = True,
) -> Tensor:
    """(1 - lambda) CE(fused) + lambda CE(detail), lambda 0.1 (HRDA, Eq. 12); label and weight (B, H, W) of the whole crop -> ()."""
    places = [(y // model.enlarge, x // model.enlarge) for y, x in offsets]
    size = (model.detail[0] // model.enlarge, model.detail[1] // model.enlarge)
    whole = cross_entropy(output.fused, label, weight, class_weight, count_ignored=count_ignored)
    inside = None if weight is None else cut(weight, places, size)
    part = cross_entropy(output.detail, cut(label, places, size), inside, class_weight, count_ignored=count_ignored)
    return (1 - detail_weight) * whole + detail_weight * part


def with_borders(batch: DomainBatch, top: float, bottom: float, side: float) -> DomainBatch:
    """The batch, with the target's borders marked as untrusted before it is cropped: shares of the height, and of the width."""
    height, width = batch.target_image.shape[-2:]
    valid = border_mask((height, width), top, bottom, side, batch.target_image.device).expand(len(batch.target_image), height, width)
    return batch._replace(target_valid=valid if batch.target_valid is None else valid & batch.target_valid)
