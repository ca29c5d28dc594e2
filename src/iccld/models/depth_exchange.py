"""CorDA's network: segmentation and depth side by side, their features exchanged through attention (Wang et al., ICCV 2021).

The exchange is PAD-Net's (Xu et al., CVPR 2018): each task adds the other's features, gated by a sigmoid that the other computes.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from iccld.models.blocks import ResidualBlock, resize_like
from iccld.models.segmenter import Segmenter

TENS = 10.0
"""Depth heads answer in tens: disparities reach 200, and a layer that starts near 0 would take long to get there."""


class TaskPredictions(NamedTuple):
    """logits, first_logits: (B, K, h, w) after and before the exchange.  depth, first_depth: (B, 2, h', w'), by the source's and the
    target's head."""

    logits: Tensor
    first_logits: Tensor
    depth: Tensor
    first_depth: Tensor


class Gate(nn.Module):
    """(B, C, h, w) -> the same: features to hand over, each weighed by a sigmoid of its surroundings."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.features = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.features(x) * self.attention(x).sigmoid())


class DepthSegmenter(nn.Module):
    """A segmenter with a depth branch: (B, 3, H, W) normalised -> (B, K, h, w) logits, or all four `predictions`.

    Differs from the released code, whose second classifier replaces the first one's answer: here it adds to it and starts at zero, so that
    a segmenter trained on the source is not thrown away.
    """

    def __init__(self, segmenter: Segmenter, num_classes: int, width: int = 256) -> None:
        super().__init__()
        channels = segmenter.decoder.feature_channels
        self.segmenter = segmenter
        self.to_semantic = nn.Sequential(nn.Conv2d(channels, width, 1), ResidualBlock(width, width))
        self.to_depth = nn.Sequential(nn.Conv2d(channels, width, 1), ResidualBlock(width, width))
        self.first_depth = nn.Conv2d(width, 2, 1)
        self.from_depth, self.from_semantic = Gate(width), Gate(width)
        self.refine = nn.Conv2d(width, num_classes, 3, padding=1)
        self.depth = nn.Conv2d(width, 2, 3, padding=1)
        nn.init.zeros_(self.refine.weight)
        nn.init.zeros_(cast(Tensor, self.refine.bias))

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.predictions(image).logits

    def predictions(self, image: Tensor) -> TaskPredictions:
        features = self.segmenter.features(image)  # (B, C, h', w')
        first_logits = self.segmenter.decoder.logits(features)  # (B, K, h, w)
        semantic, depth = self.to_semantic(features), self.to_depth(features)  # (B, width, h', w')
        refined = self.refine(semantic + self.from_depth(depth))  # (B, K, h', w')
        return TaskPredictions(
            first_logits + resize_like(refined, first_logits),
            first_logits,
            TENS * self.depth(depth + self.from_semantic(semantic)),
            TENS * self.first_depth(depth),
        )


def disparity(depth: Tensor, scale: float = 100.0) -> Tensor:
    """Metres -> 1 + scale / metres, the kind of map that CorDA trains on: 1 is infinitely far, or not known (0 m)."""
    return torch.where(depth > 0, 1 + scale / depth.clamp(min=0.5), torch.ones_like(depth))
