"""Random scale, crop and flip of an image with its maps, one sampling grid for all of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.labels import IGNORE
from iccld.transforms.draw import Draw
from iccld.transforms.precision import full_precision


class Cropped(NamedTuple):
    """image: (B, 3, h, w) float32 in 0..1.  label: (B, h, w) int64, valid: (B, h, w) bool, depth: (B, h, w) float32 metres, or None."""

    image: Tensor
    label: Tensor | None
    valid: Tensor | None
    depth: Tensor | None = None


@full_precision
def random_crop(
    image: Tensor,
    draw: Draw,
    size: tuple[int, int],
    *,
    label: Tensor | None = None,
    valid: Tensor | None = None,
    depth: Tensor | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
    stretch: float = 0.0,
    flip: float = 0.5,
) -> Cropped:
    """Crop a random window per sample: (B, 3, H, W) uint8 -> (B, 3, h, w) float32 in 0..1, maps alike (nearest).

    scale: the image is enlarged by a factor drawn log-uniformly from this range before cropping; a factor too small for the crop to
    fit is raised until it fits.  stretch: the aspect ratio changes by up to this share.  flip: probability of a mirror image.
    Depth stays the distance to the camera that took the picture: an enlarged picture's metres do not shrink (as released CorDA).
    """
    theta = _window(draw, image.shape, size, scale, stretch, flip)
    return _cut(image, theta, size, label, valid, depth)


@full_precision
def choosy_crop(
    image: Tensor,
    draw: Draw,
    size: tuple[int, int],
    *,
    label: Tensor,
    wanted: Tensor | None = None,
    min_share: float = 0.0,
    max_share: float = 1.0,
    tries: int = 10,
    scale: tuple[float, float] = (1.0, 1.0),
    stretch: float = 0.0,
    flip: float = 0.5,
) -> Cropped:
    """`random_crop` of a labelled picture that tries up to `tries` windows and takes the first that fits, else the last.

    A window fits where more than min_share of its pixels are of the class `wanted` (B,) (None: any will do), and its most frequent
    class covers less than max_share of the labelled pixels (mmsegmentation's `cat_max_ratio`).  Differs from DAFormer, which nests ten
    windows for the first rule around ten for the second.
    """
    theta = _window(draw, image.shape, size, scale, stretch, flip)
    for _ in range(tries - 1):
        fits = _fits(_sample_map(label, _grid(theta, size)), wanted, min_share, max_share)
        another = _window(draw, image.shape, size, scale, stretch, flip)
        theta = torch.where(fits[:, None, None], theta, another)
    return _cut(image, theta, size, label, None, None)


def _fits(label: Tensor | None, wanted: Tensor | None, min_share: float, max_share: float) -> Tensor:
    """(B, h, w) int64 -> (B,) bool."""
    assert label is not None
    label = label.long()
    counts = torch.zeros(len(label), 256, device=label.device)
    counts.scatter_add_(1, label.flatten(1), torch.ones_like(label.flatten(1), dtype=torch.float32))
    labelled = counts[:, :IGNORE]
    is_varied = (labelled.amax(1) < max_share * labelled.sum(1)) | (max_share >= 1)
    if wanted is None:
        return is_varied
    return is_varied & (counts.gather(1, wanted[:, None].long())[:, 0] > min_share * label[0].numel())


def _window(draw: Draw, shape: torch.Size, size: tuple[int, int], scale: tuple[float, float], stretch: float, flip: float) -> Tensor:
    """Random windows in pictures of `shape` (B, 3, H, W) -> (B, 2, 3), the affine maps from the crop to the picture."""
    batch, _, height, width = shape
    low, high = torch.tensor(scale).log().tolist()
    factor = draw.uniform(batch, low=low, high=high).exp()  # (B,)
    aspect = (1 + stretch * draw.uniform(batch, low=-1, high=1)).sqrt()
    extent_y = (size[0] / (height * factor * aspect)).clamp(max=1.0)  # share of the image the crop covers
    extent_x = (size[1] / (width * factor / aspect)).clamp(max=1.0)
    centre_y = (1 - extent_y) * draw.uniform(batch, low=-1, high=1)
    centre_x = (1 - extent_x) * draw.uniform(batch, low=-1, high=1)
    mirror = 1.0 - 2.0 * draw.chosen(batch, flip).float()
    zero = torch.zeros_like(factor)
    return torch.stack([extent_x * mirror, zero, centre_x, zero, extent_y, centre_y], 1).view(batch, 2, 3)


def _grid(theta: Tensor, size: tuple[int, int]) -> Tensor:
    return F.affine_grid(theta, [len(theta), 1, *size], align_corners=False)  # (B, h, w, 2)


def _cut(image: Tensor, theta: Tensor, size: tuple[int, int], label: Tensor | None, valid: Tensor | None, depth: Tensor | None) -> Cropped:
    grid = _grid(theta, size)
    pixels = image.float().div_(255) if image.dtype == torch.uint8 else image
    cropped = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    label, valid, depth = (_sample_map(values, grid) for values in (label, valid, depth))
    return Cropped(cropped, None if label is None else label.long(), None if valid is None else valid.bool(), depth)


def halve(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Half resolution: (B, 3, H, W) by the mean of 2x2 pixels, (B, H, W) by one of them -> (B, 3, H/2, W/2), (B, H/2, W/2)."""
    return F.avg_pool2d(image, 2), label[:, 1::2, 1::2]


def _sample_map(values: Tensor | None, grid: Tensor) -> Tensor | None:
    """(B, H, W) -> (B, h, w) float32, the nearest value; never a mean of two labels or of two objects' depths."""
    if values is None:
        return None
    return F.grid_sample(values[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)[:, 0]
