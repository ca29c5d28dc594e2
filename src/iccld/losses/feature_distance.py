"""DAFormer's feature distance (Hoyer et al. 2022, Eq. 6-9): stay close to a frozen encoder where there are things."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.labels import IGNORE


def majority_label(label: Tensor, size: tuple[int, int], num_classes: int, min_ratio: float = 0.75) -> Tensor:
    """(B, H, W) int64 -> (B, h, w) int64: the class that covers at least `min_ratio` of a cell, 255 where none does (Eq. 8)."""
    one_hot = F.one_hot(torch.where(label == IGNORE, num_classes, label).long(), num_classes + 1)  # (B, H, W, K+1)
    share = F.adaptive_avg_pool2d(one_hot.permute(0, 3, 1, 2).float(), size)  # (B, K+1, h, w)
    largest, majority = share.max(1)
    return torch.where((largest >= min_ratio) & (majority < num_classes), majority, IGNORE)


def feature_distance(features: Tensor, reference: Tensor, cells: Tensor) -> Tensor:
    """Mean Euclidean distance of (B, C, h, w) features over the chosen cells (B, h, w) bool -> (); 0 where none is chosen (Eq. 9).

    Differs from the released code, whose mean over no cell is not a number.
    """
    distance = (features - reference).float().norm(dim=1)  # (B, h, w)
    total: Tensor = (distance * cells).sum()
    return total / cells.sum().clamp(min=1)
