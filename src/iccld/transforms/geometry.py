"""Random scale, crop and flip of an image with its maps, one sampling grid for all of them.

A crop may reach beyond its picture: where the picture is shown smaller than the crop, or its aspect leaves a side too short.  There the
image repeats its border, which gives its colours no edge, and nothing is taught: labels are 255, valid is False, depth 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.labels import IGNORE
from iccld.transforms.draw import Draw
from iccld.transforms.precision import full_precision


class Crop(NamedTuple):
    """image: (B, 3, h, w) float32 in 0..1.  valid: (B, h, w) bool, the pixels that may teach.  depth: (B, h, w) float32 metres, or None.
    label: (B, h, w) int64, 255 = ignore and beyond the picture, or None."""

    image: Tensor
    valid: Tensor
    depth: Tensor | None = None
    label: Tensor | None = None


class LabelledCrop(NamedTuple):
    """image: (B, 3, h, w) float32 in 0..1.  label: (B, h, w) int64, 255 = ignore.  depth: (B, h, w) float32 metres, or None."""

    image: Tensor
    label: Tensor
    depth: Tensor | None = None


class WindowRule(NamedTuple):
    """When `choosy_crop` takes a window; else it tries another one."""

    min_share: float = 0.0
    """Share of the window that the wanted class must exceed."""
    max_share: float = 1.0
    """Share of the window's labelled pixels that no class may reach (mmsegmentation's `cat_max_ratio`); 1 allows all."""
    tries: int = 10
    """Windows tried before the last one is taken as it is."""


@full_precision
def random_crop(
    image: Tensor,
    draw: Draw,
    size: tuple[int, int],
    *,
    valid: Tensor | None = None,
    depth: Tensor | None = None,
    label: Tensor | None = None,
    true_size: Tensor | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
    stretch: float = 0.0,
    flip: float = 0.5,
) -> Crop:
    """Crop a random window per sample: (B, 3, H, W) uint8 -> (B, 3, h, w) float32 in 0..1, maps alike (nearest).

    valid: (B, H, W) bool, the pixels that may teach; None: all of the picture.  label: (B, H, W) train ids that somebody gave the picture.
    scale: the image is shown larger by a factor drawn log-uniformly from this range before cropping, smaller below 1; where it does not
    fill the crop, it lies at a random place in it and `valid` tells where.  stretch: the aspect ratio changes by up to this share, as far
    as the picture reaches.  flip: probability of a mirror image.  true_size: (B, 2), the upper left part of each row that is picture.
    Depth stays the distance to the camera that took the picture: an enlarged picture's metres do not shrink (as released CorDA).
    """
    sizes = _sizes(image, true_size)
    theta = _window(draw, sizes, size, scale, stretch, flip)
    grid = _grid(theta, size)
    if valid is None:
        valid = torch.ones((len(image), *image.shape[2:]), dtype=torch.bool, device=image.device)
    seen = _sample_map(valid, grid, sizes, beyond=0).bool()
    depths = None if depth is None else _sample_map(depth, grid, sizes, beyond=0)
    labels = None if label is None else _sample_map(label, grid, sizes, beyond=IGNORE).long()
    return Crop(_sample_image(image, grid, sizes), seen, depths, labels)


@full_precision
def labelled_crop(
    image: Tensor,
    draw: Draw,
    size: tuple[int, int],
    *,
    label: Tensor,
    depth: Tensor | None = None,
    true_size: Tensor | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
    stretch: float = 0.0,
    flip: float = 0.5,
) -> LabelledCrop:
    """`random_crop` of a labelled picture: (B, 3, H, W) uint8, (B, H, W) -> (B, 3, h, w) float32 in 0..1, (B, h, w) int64."""
    sizes = _sizes(image, true_size)
    return _labelled(image, _window(draw, sizes, size, scale, stretch, flip), size, sizes, label, depth)


@full_precision
def choosy_crop(
    image: Tensor,
    draw: Draw,
    size: tuple[int, int],
    *,
    label: Tensor,
    wanted: Tensor | None = None,
    rule: WindowRule,
    true_size: Tensor | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
    stretch: float = 0.0,
    flip: float = 0.5,
) -> LabelledCrop:
    """`labelled_crop` that tries up to `rule.tries` windows and takes the first that fits, else the last.

    A window fits where more than min_share of its pixels are of the class `wanted` (B,) (None: any will do), and its most frequent
    class covers less than max_share of the labelled pixels.  Differs from DAFormer, which nests ten windows for the first rule around ten
    for the second.
    """
    sizes = _sizes(image, true_size)
    theta = _window(draw, sizes, size, scale, stretch, flip)
    for _ in range(rule.tries - 1):
        fits = _fits(_sample_map(label, _grid(theta, size), sizes, beyond=IGNORE), wanted, rule)
        another = _window(draw, sizes, size, scale, stretch, flip)
        theta = torch.where(fits[:, None, None], theta, another)
    return _labelled(image, theta, size, sizes, label, None)


def _fits(label: Tensor, wanted: Tensor | None, rule: WindowRule) -> Tensor:
    """(B, h, w) int64 -> (B,) bool."""
    label = label.long()
    counts = torch.zeros(len(label), 256, device=label.device)
    counts.scatter_add_(1, label.flatten(1), torch.ones_like(label.flatten(1), dtype=torch.float32))
    labelled = counts[:, :IGNORE]
    is_varied = (labelled.amax(1) < rule.max_share * labelled.sum(1)) | (rule.max_share >= 1)
    if wanted is None:
        return is_varied
    return is_varied & (counts.gather(1, wanted[:, None].long())[:, 0] > rule.min_share * label[0].numel())


class _Sizes(NamedTuple):
    """Height and width of each of `batch` rows' picture, one for all, or (batch,) with `rows` saying the same where they are told."""

    batch: int
    height: int | Tensor
    width: int | Tensor
    rows: list[tuple[int, int]] | None


def _sizes(image: Tensor, true_size: Tensor | None) -> _Sizes:
    if true_size is None:
        return _Sizes(len(image), image.shape[2], image.shape[3], None)
    height, width = true_size.to(image.device, torch.float32).unbind(1)  # (B,) each
    return _Sizes(len(image), height, width, [(int(height), int(width)) for height, width in true_size.tolist()])


def _window(draw: Draw, sizes: _Sizes, size: tuple[int, int], scale: tuple[float, float], stretch: float, flip: float) -> Tensor:
    """Random windows -> (B, 2, 3), the affine maps from the crop to the picture, both in -1..1.

    An extent above 1 shows the whole side, and beyond it as much as the scale asks for; a stretch alone never leaves the picture.
    """
    batch = sizes.batch
    low, high = torch.tensor(scale).log().tolist()
    factor = draw.uniform(batch, low=low, high=high).exp()  # (B,)
    aspect = (1 + stretch * draw.uniform(batch, low=-1, high=1)).sqrt()
    extent_y = _extent(size[0] / (sizes.height * factor * aspect), size[0] / (sizes.height * factor))
    extent_x = _extent(size[1] / (sizes.width * factor / aspect), size[1] / (sizes.width * factor))
    centre_y = (1 - extent_y) * draw.uniform(batch, low=-1, high=1)
    centre_x = (1 - extent_x) * draw.uniform(batch, low=-1, high=1)
    mirror = 1.0 - 2.0 * draw.chosen(batch, flip).float()
    zero = torch.zeros_like(factor)
    return torch.stack([extent_x * mirror, zero, centre_x, zero, extent_y, centre_y], 1).view(batch, 2, 3)


def _extent(asked: Tensor, without_stretch: Tensor) -> Tensor:
    """Share of the picture's side that the crop covers: (B,) twice -> (B,)."""
    return torch.minimum(asked, without_stretch.clamp(min=1.0))


def _grid(theta: Tensor, size: tuple[int, int]) -> Tensor:
    return F.affine_grid(theta, [len(theta), 1, *size], align_corners=False)  # (B, h, w, 2)


def _labelled(image: Tensor, theta: Tensor, size: tuple[int, int], sizes: _Sizes, label: Tensor, depth: Tensor | None) -> LabelledCrop:
    grid = _grid(theta, size)
    labels = _sample_map(label, grid, sizes, beyond=IGNORE).long()
    return LabelledCrop(_sample_image(image, grid, sizes), labels, None if depth is None else _sample_map(depth, grid, sizes, beyond=0))


def _sample_image(image: Tensor, grid: Tensor, sizes: _Sizes) -> Tensor:
    """(B, 3, H, W) uint8, or float32 in 0..1 -> (B, 3, h, w) float32 in 0..1, bilinear."""
    return _sample(in_unit(image), grid, sizes, "bilinear")


def in_unit(image: Tensor) -> Tensor:
    """(B, 3, H, W) uint8, or float32 in 0..1 -> float32 in 0..1."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image


def halve(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Half resolution: (B, 3, H, W) by the mean of 2x2 pixels, (B, H, W) by one of them -> (B, 3, H/2, W/2), (B, H/2, W/2)."""
    return F.avg_pool2d(image, 2), label[:, 1::2, 1::2]


def _sample_map(values: Tensor, grid: Tensor, sizes: _Sizes, *, beyond: float) -> Tensor:
    """(B, H, W) -> (B, h, w) float32, the nearest value; never a mean of two labels or of two objects' depths; `beyond` off the picture."""
    sampled = _sample(values[:, None].float(), grid, sizes, "nearest")[:, 0]
    # Windows do not turn: which rows lie in the picture, (B, h, 1), and which columns, (B, 1, w), says it of every pixel.
    inside = (grid[:, :, :1, 1].abs() <= 1) & (grid[:, :1, :, 0].abs() <= 1)
    return torch.where(inside, sampled, beyond)


def _sample(values: Tensor, grid: Tensor, sizes: _Sizes, mode: str) -> Tensor:
    """(B, C, H, W), (B, h, w, 2) -> (B, C, h, w); rows of different sizes one by one, so that none sees what fills the batch up."""
    if sizes.rows is None:
        return F.grid_sample(values, grid, mode=mode, padding_mode="border", align_corners=False)
    parts = [
        F.grid_sample(row[None, :, :height, :width], place[None], mode=mode, padding_mode="border", align_corners=False)
        for row, place, (height, width) in zip(values, grid, sizes.rows, strict=True)
    ]
    return torch.cat(parts)
