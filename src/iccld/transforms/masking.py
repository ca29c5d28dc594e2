"""Block masks (MIC, Hoyer et al. 2023): hide random squares so that context must answer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from iccld.transforms.draw import Draw


def block_mask(ratio: Tensor, size: tuple[int, int], draw: Draw, *, block: int) -> Tensor:
    """(B,) -> (B, 1, H, W) float32: 0 on hidden blocks of `block` x `block` cells, 1 elsewhere.

    ratio: each sample's probability that a block is hidden.
    """
    rows, columns = -(-size[0] // block), -(-size[1] // block)
    kept = (draw.uniform(len(ratio), (1, rows, columns)) >= ratio[:, None, None, None]).float()
    return F.interpolate(kept, scale_factor=block, mode="nearest")[..., : size[0], : size[1]]
