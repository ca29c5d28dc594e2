"""ClassMix (Olsson et al. 2021) as DACS uses it: half of a source image's classes, pasted on a target image."""

from __future__ import annotations

import torch
from torch import Tensor

from iccld.transforms.draw import Draw

NUM_VALUES = 256
"""Label values, 255 = ignore among them: released DACS counts it as one class, and so may we."""


def classes_present(label: Tensor) -> Tensor:
    """(B, H, W) int64 -> (B, 256) bool: which values occur in each label."""
    present = torch.zeros(label.shape[0], NUM_VALUES, dtype=torch.bool, device=label.device)
    return present.scatter_(1, label.flatten(1).long(), True)


def choose_classes(label: Tensor, draw: Draw, *, with_ignore: bool = False, present: Tensor | None = None) -> Tensor:
    """(B, H, W) int64 -> (B, H, W) bool: pixels of ceil(n/2) classes drawn from the n that occur in each label.

    with_ignore: whether 255 counts as a class (it does in the released code of DACS; pasting it teaches nothing).
    present: (256,) bool, the n classes to draw from instead (the released code of DAFormer draws from the whole batch's).
    """
    batch = label.shape[0]
    present = classes_present(label) if present is None else present.repeat(batch, 1)
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
