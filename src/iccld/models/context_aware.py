"""DAFormer's network (Hoyer, Dai and Van Gool, CVPR 2022, section 3.1): a transformer pyramid and a head that sees it all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.models.backbone import COARSEST, Backbone, crop_level
from iccld.models.blocks import resize_like
from iccld.models.decoder import Decoder
from iccld.models.features import Features

RATES = (1, 6, 12, 18)
"""Dilations of the head's parallel convolutions; the first is a 1x1 convolution."""


class PyramidEncoder(nn.Module):
    """A backbone's levels as they are: the coarsest is the latent, the others the pyramid; (B, 3, H, W) normalised -> `Features`."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.stride = backbone.strides[-1]
        self.pyramid_channels = tuple(backbone.channels[:-1])
        self.latent_channels = backbone.channels[-1]

    def forward(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % COARSEST, 0, -height % COARSEST), mode="replicate")
        levels = zip(self.backbone(padded), self.backbone.strides, strict=True)
        *pyramid, latent = (crop_level(level, height, width, stride) for level, stride in levels)
        return Features(latent, tuple(pyramid))

    def new_layers(self) -> list[nn.Module]:
        """What does not come with a backbone's weights: the pyramid of a plain ViT."""
        return self.backbone.new_layers()

    def layers(self) -> list[nn.Module]:
        """The backbone's, for rates that fall with depth."""
        return self.backbone.layers()


class ContextAwareDecoder(Decoder):
    """Every level embedded to one width and size, side by side, then depth-wise separable dilated convolutions: -> (B, K, H/4, W/4)."""

    def __init__(self, channels: Sequence[int], num_classes: int, width: int = 256, rates: Sequence[int] = RATES) -> None:
        """channels: of the levels, finest first, the latent last."""
        super().__init__()
        self.num_classes = num_classes
        self.feature_channels = width
        self.embed = nn.ModuleList(nn.Conv2d(level, width, 1) for level in channels)
        stacked = len(channels) * width
        self.branches = nn.ModuleList(_branch(stacked, width, rate) for rate in rates)
        self.bottleneck = _conv(len(rates) * width, width, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def features(self, latent: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
        levels = [embed(level) for embed, level in zip(self.embed, (*pyramid, latent), strict=True)]
        stacked = torch.cat([resize_like(level, levels[0]) for level in levels], 1)  # (B, 4 width, H/4, W/4)
        return cast(Tensor, self.bottleneck(torch.cat([branch(stacked) for branch in self.branches], 1)))

    def logits(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.classify(self.dropout(features)))


def _conv(channels_in: int, channels_out: int, kernel: int, rate: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=rate * (kernel // 2), dilation=rate, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


def _branch(channels: int, width: int, rate: int) -> nn.Sequential:
    if rate == 1:
        return _conv(channels, width, 1)
    return nn.Sequential(_conv(channels, channels, 3, rate, channels), _conv(channels, width, 1))
