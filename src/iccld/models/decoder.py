"""The decoder D with inter-coder connections (paper, section 3.3): latent and encoder pyramid -> logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.models.blocks import ConvNormAct, ResidualBlock, resize_like


class Decoder(nn.Module, ABC):
    """Latent and encoder pyramid -> logits, in two parts: a last hidden layer, and the classes named from it."""

    feature_channels: int
    """Channels of the last hidden layer."""
    num_classes: int
    is_pretrained = False
    """Whether everything but the layer that names classes, `classify`, came with weights."""

    def forward(self, latent: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
        return self.logits(self.features(latent, pyramid))

    @abstractmethod
    def features(self, latent: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
        """The last hidden layer: (B, feature_channels, h, w)."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """(B, feature_channels, h, w) -> (B, K, h', w')."""


class InterCoderDecoder(Decoder):
    """(B, C, H/8, W/8) latent, pyramid at strides 2, 4, 8 -> (B, K, H/2, W/2) logits.

    Each encoder level is concatenated to the decoder level of its stride ("per level", docs/readings.md row 16).  With
    `inter_coder=False` the pyramid is ignored and the concatenated widths go with it, so that the decoder is narrower (row 17).
    The stride-2 level enters folded to stride 4 (`pixel_unshuffle`) and the logits leave the same way: arithmetic at half
    resolution without its memory traffic.
    """

    output_stride = 2

    def __init__(
        self, latent_channels: int, pyramid_channels: tuple[int, int, int], num_classes: int, width: int = 64, inter_coder: bool = True
    ) -> None:
        super().__init__()
        half, quarter, eighth = pyramid_channels
        self.inter_coder = inter_coder
        self.num_classes = num_classes
        skip = (half, quarter, eighth) if inter_coder else (0, 0, 0)
        self.connect8 = nn.Conv2d(eighth, width, 1) if inter_coder else None
        self.connect4 = nn.Conv2d(quarter, width - width // 2, 1) if inter_coder else None
        self.connect2 = nn.Conv2d(4 * half, width // 2, 1) if inter_coder else None
        self.level8 = ResidualBlock(latent_channels + (width if skip[2] else 0), width)
        self.level4 = ConvNormAct(width + (width if skip[1] else 0), width)
        self.refine4 = ConvNormAct(width, width)
        self.classify = nn.Conv2d(width, 4 * num_classes, 1)

        self.feature_channels = width

    def features(self, latent: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
        """The last hidden layer: (B, feature_channels, H/4, W/4)."""
        level2, level4, level8 = pyramid
        x = latent
        if self.connect8 is not None:
            x = torch.cat([x, resize_like(self.connect8(level8), x)], 1)
        x = self.level8(x)  # (B, width, H/8, W/8)
        x = resize_like(x, level4)  # (B, width, H/4, W/4)
        if self.connect4 is not None and self.connect2 is not None:
            folded = _fold_and_convolve(pad_to_even(level2), self.connect2)  # (B, width // 2, H/4, W/4)
            x = torch.cat([x, self.connect4(level4), resize_like(folded, level4)], 1)
        return cast(Tensor, self.refine4(self.level4(x)))

    def logits(self, features: Tensor) -> Tensor:
        """(B, feature_channels, H/4, W/4) -> (B, K, H/2, W/2)."""
        return F.pixel_shuffle(self.classify(features), 2)

    def classifier_weight(self) -> Tensor:
        """The last layer's weight, (4K, width, 1, 1): what a test freezes or compares."""
        return self.classify.weight


def _fold_and_convolve(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 1x1 convolution of `pixel_unshuffle(x, 2)`, which nobody has to lay out: it is one of 2x2 cells at stride 2."""
    weight = convolution.weight.view(len(convolution.weight), x.shape[1], 2, 2)
    return F.conv2d(x, weight, convolution.bias, stride=2)


def pad_to_even(x: Tensor) -> Tensor:
    """(B, C, h, w) -> sides rounded up to even by repeating the last row and column."""
    height, width = x.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        return x
    return F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
