"""Eq. 5: pixel-wise cross-entropy, weighted for pseudo-labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from iccld.labels import IGNORE


def label_at(label: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) -> (B, h, w): the label under the centre of each output cell; for H, W whole multiples this is a strided view."""
    height, width = label.shape[-2:]
    if (height, width) == size:
        return label
    step_y, step_x = height // size[0], width // size[1]
    if step_y * size[0] == height and step_x * size[1] == width:
        return label[:, step_y // 2 :: step_y, step_x // 2 :: step_x]
    return F.interpolate(label[:, None].float(), size=size, mode="nearest-exact")[:, 0].to(label.dtype)


def cross_entropy(
    logits: Tensor, label: Tensor, pixel_weight: Tensor | None = None, class_weight: Tensor | None = None, *, count_ignored: bool = True
) -> Tensor:
    """L_seg of Eq. 5: (B, K, h, w), (B, H, W) int64 with 255 = ignore, (B, H, W) in 0..1 -> () in nats.

    The label is read at the logits' resolution.  Divides by the number of *all* pixels, ignored ones included, as released code
    of DACS and DAFormer does: the loss is then linear in the images, and the mean over processes is the mean over the batch.
    count_ignored=False divides by the number of labelled pixels instead.
    """
    size = (int(logits.shape[-2]), int(logits.shape[-1]))
    label = label_at(label, size).long()
    loss = F.cross_entropy(
        logits.float(),
        label,
        weight=None if class_weight is None else class_weight.to(logits.device),
        ignore_index=IGNORE,
        reduction="none",
    )  # (B, h, w)
    if pixel_weight is not None:
        loss = loss * label_at(pixel_weight, size)
    return loss.mean() if count_ignored else loss.sum() / (label != IGNORE).sum().clamp(min=1)
