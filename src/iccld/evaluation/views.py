"""Several views of one picture, smaller, larger and mirrored: their probabilities are averaged where the answer is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from iccld.geometry import Shape, padded, scaled


class View(NamedTuple):
    """What a network says of pictures, before it is resized."""

    logits: Tensor
    """(B, K, h, w) float32 of the padded pictures."""
    shown: Shape
    """(H, W) of these."""
    content: Shape
    """The upper left part of `shown` that is picture."""

    def of_picture(self) -> Tensor:
        """The logits of that part alone: (B, K, h', w')."""
        return without_padding(self.logits, self.content, self.shown)


def views_of(scales: Sequence[float], flip: bool) -> list[tuple[float, bool]]:
    """(scale, whether mirrored) of each view, in the order in which they are predicted."""
    return [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]


def show_at(images: Tensor, content: Shape, size: Shape) -> Tensor:
    """Resize to `content` (antialiased), then pad to `size` at the lower right by replication: (B, 3, H, W) float32 -> (B, 3, H', W')."""
    if content != tuple(images.shape[2:]):
        images = functional.interpolate(images, size=content, mode="bilinear", align_corners=False, antialias=True)
    if size != content:
        images = functional.pad(images, (0, size[1] - content[1], 0, size[0] - content[0]), mode="replicate")
    return images


def without_padding(logits: Tensor, content: Shape, size: Shape) -> Tensor:
    """What `show_at` padded is cut off again: (B, K, h, w) of the padded picture -> of the picture, at its size if there is any."""
    if content == size:
        return logits
    if tuple(logits.shape[2:]) != size:
        logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return logits[:, :, : content[0], : content[1]]


def mean_log_probability(views: Sequence[Tensor], resize: Callable[[Tensor], Tensor]) -> Tensor:
    """Each view's logits (B, K, h, w), resized to one size, as probabilities; the logarithm of their mean: (B, K, H, W) float32.

    The logarithm takes the place of logits: its largest class is the mean's, its softmax is the mean.
    """
    total = resize(views[0].float()).softmax(1)
    for view in views[1:]:
        total += resize(view.float()).softmax(1)
    return (total / len(views)).clamp_min(torch.finfo(torch.float32).tiny).log()


def teacher_logits(network: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float], flip: bool, multiple: int) -> Tensor:
    """What a network says of pictures in several views, at its own resolution of the pictures: (B, 3, H, W) normalised -> (B, K, h, w).

    One plain view gives the network's logits, several the logarithm of their mean probability.  multiple: of the sides a network takes.
    """
    if list(scales) == [1.0] and not flip:
        return network(images)
    whole = (int(images.shape[2]), int(images.shape[3]))
    views, cells = [], whole
    for scale, mirrored in views_of(scales, flip):
        content = scaled(whole, scale)
        size = padded(content, multiple)
        shown = show_at(images, content, size)
        logits = network(shown.flip(3) if mirrored else shown)
        cells = (round(whole[0] * logits.shape[2] / size[0]), round(whole[1] * logits.shape[3] / size[1]))
        views.append(without_padding(logits.flip(3) if mirrored else logits, content, size))

    def resize(logits: Tensor) -> Tensor:
        if tuple(logits.shape[2:]) == cells:
            return logits
        return functional.interpolate(logits, size=cells, mode="bilinear", align_corners=False)

    return mean_log_probability(views, resize)
