"""Colour transfer by moments (Reinhard et al. 2001): the mean and spread of another picture's channels."""

from __future__ import annotations

import torch
from torch import Tensor

from iccld.transforms.draw import Draw


def match_moments(image: Tensor, style: Tensor, draw: Draw, *, probability: float = 1.0) -> Tensor:
    """Give each image its style image's mean and standard deviation per channel: (B, 3, H, W) twice, 0..1 -> (B, 3, H, W), 0..1.

    Where the Fourier exchange of the lowest frequencies moves colour and brightness, this moves contrast too, as haze and dusk do.
    Differs from Reinhard et al., who match in l-alpha-beta: RGB needs no conversion, and the jitter before it varies the hue anyway.
    A row is left untouched with probability 1 - `probability`.
    """
    mean, style_mean = image.mean((2, 3), keepdim=True), style.mean((2, 3), keepdim=True)
    std, style_std = image.std((2, 3), keepdim=True), style.std((2, 3), keepdim=True)
    matched = ((image - mean) * (style_std / std.clamp(min=1e-3)) + style_mean).clamp(0, 1)
    return torch.where(draw.chosen(image.shape[0], probability)[:, None, None, None], matched, image)
