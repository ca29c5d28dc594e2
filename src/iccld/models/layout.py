"""In which order a tensor's values lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(values: Tensor) -> bool:
    """Whether (N, C, H, W) lies as (N, H, W, C); False where it lies in both orders."""
    return values.ndim == 4 and not values.is_contiguous() and values.is_contiguous(memory_format=torch.channels_last)


def flattened(values: Tensor, channels_last: bool) -> Tensor:
    """The values in one row: in order of (N, H, W, C) where `channels_last`, else of their shape; no copy where they lie so."""
    return (values.permute(0, 2, 3, 1) if channels_last else values).reshape(-1)


def shaped(row: Tensor, shape: torch.Size, channels_last: bool) -> Tensor:
    """`flattened` undone: a view of the row in this shape."""
    if not channels_last:
        return row.view(shape)
    batch, channels, height, width = shape
    return row.view(batch, height, width, channels).permute(0, 3, 1, 2)
