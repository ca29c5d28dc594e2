"""Building blocks shared by the compact networks, on diffusers' residual block."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from iccld.models.recompute import run_block


def num_groups(channels: int, wanted: int = 8) -> int:
    """Largest divisor of `channels` not above `wanted`: the group count of a GroupNorm."""
    return next(groups for groups in range(min(wanted, channels), 0, -1) if channels % groups == 0)


class ResidualBlock(nn.Module):
    """diffusers' pre-activation residual block without a timestep: (B, C_in, h, w) -> (B, C_out, h, w)."""

    recompute = False
    """Whether activations are computed again in the backward pass instead of kept; see `recompute_blocks`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = ResnetBlock2D(
            in_channels=channels_in,
            out_channels=channels_out,
            temb_channels=None,
            groups=num_groups(channels_in),
            groups_out=num_groups(channels_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, run_block(self.block, x, None, recompute=self.recompute))


def recompute_blocks(network: nn.Module) -> None:
    """Switch gradient checkpointing on in every `ResidualBlock` of a network."""
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            module.recompute = True


class ConvNormAct(nn.Sequential):
    """Convolution, GroupNorm, SiLU: (B, C_in, h, w) -> (B, C_out, h/stride, w/stride)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.GroupNorm(num_groups(channels_out), channels_out),
            nn.SiLU(),
        )


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, h', w') bilinear, at the size of `like`; the same tensor when sizes agree."""
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
