"""Class prototypes: the mean feature of a class, over a batch or over the last batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iccld.labels import IGNORE


def class_sums(features: Tensor, label: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """(B, C, h, w), (B, h, w) int64 with 255 = ignore -> sums (K, C) and pixel counts (K,), float32; sums carry the gradient.

    Sums and counts of several processes may be added, which means could not.
    """
    channels = features.shape[1]
    rows = features.float().permute(0, 2, 3, 1).reshape(-1, channels)  # (B h w, C)
    wanted = label.flatten()
    bins = torch.where(wanted == IGNORE, num_classes, wanted)  # ignored pixels go into a bin that is dropped
    sums = features.new_zeros(num_classes + 1, channels, dtype=torch.float32).index_add(0, bins, rows)
    return sums[:-1], torch.bincount(bins, minlength=num_classes + 1)[:-1].float()


def class_means(features: Tensor, label: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """As `class_sums` -> means (K, C), 0 for a class without pixels, and which classes have pixels (K,) bool."""
    sums, counts = class_sums(features, label, num_classes)
    return sums / counts.clamp(min=1)[:, None], counts > 0


class PrototypeBank(nn.Module):
    """The prototypes of the last `slots` batches, and for each class the mean of those that showed it."""

    values: Tensor
    filled: Tensor
    position: Tensor

    def __init__(self, slots: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(slots, num_classes, channels))
        self.register_buffer("filled", torch.zeros(slots, num_classes))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def insert(self, means: Tensor, present: Tensor) -> None:
        """Replace the oldest batch by (K, C) means, of which those of `present` classes (K,) count."""
        slot = self.position % len(self.values)
        self.values[slot] = means.detach().to(self.values.dtype) * present[:, None]
        self.filled[slot] = present.to(self.filled.dtype)
        self.position += 1

    def means(self) -> tuple[Tensor, Tensor]:
        """-> (K, C) means, and (K,) bool: the classes that any batch of the bank showed."""
        count = self.filled.sum(0)  # (K,)
        return self.values.sum(0) / count.clamp(min=1)[:, None], count > 0
