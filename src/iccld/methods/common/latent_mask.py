"""Hiding places of a picture from the decoder: blocks of latent cells, and the same places of every level of the pyramid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.transforms import Draw, block_mask


def draw_visible(latent: Tensor, ratio: float, block: int, draw: Draw) -> Tensor:
    """A mask a picture: (N, C, h, w) -> (N, 1, h, w) float32, 0 on hidden blocks of `block` x `block` cells, 1 elsewhere.

    ratio: the probability that a block is hidden; 0 hides nothing and draws nothing.
    """
    size = (int(latent.shape[-2]), int(latent.shape[-1]))
    if ratio == 0:
        return torch.ones((len(latent), 1, *size), device=latent.device)
    return block_mask(torch.full((len(latent),), ratio, device=latent.device), size, draw, block=block)


def at_level(visible: Tensor, level: Tensor) -> Tensor:
    """The mask at a level's resolution, nearest: (N, 1, h, w), (N, C, H, W) -> (N, 1, H, W)."""
    size = (int(level.shape[-2]), int(level.shape[-1]))
    return visible if tuple(visible.shape[-2:]) == size else F.interpolate(visible, size=size, mode="nearest")


def filled_by_mean(values: Tensor, visible: Tensor) -> Tensor:
    """Hidden cells read the mean of the visible ones of their picture and channel: (N, C, h, w), (N, 1, h, w) -> (N, C, h, w).

    Differs from the mean over all cells: what is hidden then leaves no trace in what is read.
    """
    # The sum as a product of two matrices, whichever way the cells lie: a product of cell and mask would be written out first.
    cells = visible.flatten(1).to(values.dtype)  # (N, h w)
    if values.is_contiguous():
        total = torch.bmm(values.flatten(2), cells[:, :, None])  # (N, C, 1)
    else:
        total = torch.bmm(cells[:, None], values.permute(0, 2, 3, 1).flatten(1, 2)).transpose(1, 2)
    mean = total[..., None].float() / visible.sum((2, 3), keepdim=True).clamp(min=1)  # (N, C, 1, 1)
    return torch.where(visible.bool(), values, mean.to(values.dtype))


def hidden_levels(pyramid: tuple[Tensor, ...], visible: Tensor) -> tuple[Tensor, ...]:
    """Every level with the mask's places filled by its mean."""
    return tuple(filled_by_mean(level, at_level(visible, level)) for level in pyramid)
