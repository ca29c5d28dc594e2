"""AdaptSegNet's discriminator of class maps: five strided convolutions."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """(B, K, H, W) class probabilities -> (B, 1, about H/32, about W/32) logits of the domain.  Sides of at least 32.

    Kernels of 4, stride 2, padding 1, width 64-128-256-512-1 at the published `width` of 64, LeakyReLU 0.2 in between.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = num_classes
        for doubling in range(4):
            layers += [nn.Conv2d(channels, width << doubling, 4, 2, 1), nn.LeakyReLU(0.2)]
            channels = width << doubling
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 2, 1))

    def forward(self, probability: Tensor) -> Tensor:
        return cast(Tensor, self.layers(probability))
