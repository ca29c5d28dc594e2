"""ClassMix (Olsson et al. 2021) as DACS uses it: half of a source image's classes, pasted on a target image."""

from __future__ import annotations

import torch
from torch import Tensor

from iccld.transforms.draw import Draw

NUM_VALUES = 256
"""Label values, 255 = ignore among them: released DACS counts it as one class, and so may we."""


def choose_classes(label: Tensor, draw: Draw, *, with_ignore: bool = False) -> Tensor:
    """(B, H, W) int64 -> (B, H, W) bool: pixels of ceil(n/2) classes drawn from the n that occur in each label.

    with_ignore: whether 255 counts as a class (it does in the released code of DACS; pasting it teaches nothing).
    """
    batch = label.shape[0]
    present = torch.zeros(batch, NUM_VALUES, dtype=torch.bool, device=label.device)
    present.scatter_(1, label.flatten(1).long(), True)
    if not with_ignore:
        present[:, 255] = False
    wanted = (present.sum(1) + 1) // 2  # (B,) ceil(n / 2)
    score = draw.uniform(batch, (NUM_VALUES,)) + (~present) * 2.0  # absent classes sort last
    rank = score.argsort(1).argsort(1)  # (B, 256)
    chosen = (rank < wanted[:, None]) & present
    return chosen.gather(1, label.flatten(1).long()).view(label.shape)


def classmix(mask: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Source where mask, target elsewhere: (B, H, W) bool and two (B, H, W) or (B, C, H, W) -> the same."""
    return torch.where(mask[:, None] if source.ndim == 4 else mask, source, target)
