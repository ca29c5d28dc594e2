"""The compact encoder: a few million parameters, trained from scratch on two CPU cores.

Nearly all arithmetic is dense 3x3 convolution at stride 4 and coarser, where a CPU reaches its peak; the half-resolution level is
a single convolution, because activations there cost memory traffic, not arithmetic.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from iccld.models.blocks import ConvNormAct, ResidualBlock, num_groups, resize_like
from iccld.models.features import Features
from iccld.models.group_norm import GroupNorm


class CompactEncoder(nn.Module):
    """Residual pyramid to stride 32 with global context, brought back to stride 8: (B, 3, H, W) -> `Features`.

    H and W may be any size; the latent is at 1/8 (rounded up).  widths: channels at strides 2, 4, 8, 16, 32.
    """

    stride = 8

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 160, 224), latent_channels: int = 32) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth, coarse = widths
        self.latent_channels = latent_channels
        self.pyramid_channels = (half, quarter, eighth)
        self.stem = ConvNormAct(3, half, stride=2)
        self.level4 = nn.Sequential(nn.Conv2d(half, quarter, 3, 2, 1), ResidualBlock(quarter, quarter))
        self.level8 = nn.Sequential(nn.Conv2d(quarter, eighth, 3, 2, 1), ResidualBlock(eighth, eighth))
        self.level16 = nn.Sequential(
            nn.Conv2d(eighth, sixteenth, 3, 2, 1), ResidualBlock(sixteenth, sixteenth), ResidualBlock(sixteenth, sixteenth)
        )
        self.level32 = nn.Sequential(nn.Conv2d(sixteenth, coarse, 3, 2, 1), ResidualBlock(coarse, coarse), ResidualBlock(coarse, coarse))
        self.context = nn.Linear(coarse, coarse)
        self.lateral16 = nn.Conv2d(coarse, sixteenth, 1)
        self.merge16 = ResidualBlock(sixteenth, sixteenth)
        self.lateral8 = nn.Conv2d(sixteenth, eighth, 1)
        self.merge8 = ResidualBlock(eighth, eighth)
        self.to_latent = nn.Sequential(GroupNorm(num_groups(eighth), eighth), nn.SiLU(), nn.Conv2d(eighth, latent_channels, 1))

    def forward(self, image: Tensor) -> Features:
        level2 = self.stem(image)  # (B, C2, H/2, W/2)
        level4 = self.level4(level2)  # (B, C4, H/4, W/4)
        level8 = self.level8(level4)  # (B, C8, H/8, W/8)
        level16 = self.level16(level8)  # (B, C16, H/16, W/16)
        level32 = self.level32(level16)  # (B, C32, H/32, W/32)
        level32 = level32 + self.context(F.silu(level32.mean((2, 3))))[:, :, None, None]
        merged16 = self.merge16(level16 + resize_like(self.lateral16(level32), level16))
        merged8 = self.merge8(level8 + resize_like(self.lateral8(merged16), level8))
        return Features(self.to_latent(merged8), (level2, level4, level8))
