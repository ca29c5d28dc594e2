"""Building blocks shared by the networks: the residual block, with and without a timestep, and convolution with norm.

The residual block has the parameters of diffusers' `ResnetBlock2D` by name, in order and in arithmetic, so that weights fit both
(docs/decisions/0006); importing diffusers takes longer than PyTorch itself.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.models.group_norm import GroupNorm, PlainGroupNorm, TrainedNorm
from iccld.models.recompute import run_block


def num_groups(channels: int, wanted: int = 8) -> int:
    """Largest divisor of `channels` not above `wanted`: the group count of a GroupNorm."""
    return next(groups for groups in range(min(wanted, channels), 0, -1) if channels % groups == 0)


class TimedBlock(nn.Module):
    """Norm, SiLU, convolution, twice, and the input added: (B, C_in, h, w), (B, E) or None -> (B, C_out, h, w).

    As in diffusers bit for bit, so its norms compute in what they are given; but where a block with a timestep is trained in bf16 on a CPU
    they compute in float32, which is faster at the sizes that a denoiser has.

    groups: of the two norms.  time_channels: E of the timestep's embedding, which is added between the convolutions (Ho et al. 2020);
    None where there is no timestep.  epsilon: of the norms.
    """

    def __init__(
        self, channels_in: int, channels_out: int, groups: tuple[int, int], time_channels: int | None = None, epsilon: float = 1e-6
    ) -> None:
        super().__init__()
        norm = PlainGroupNorm if time_channels is None else TrainedNorm
        self.norm1 = norm(groups[0], channels_in, eps=epsilon)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_channels, channels_out) if time_channels is not None else None
        self.norm2 = norm(groups[1], channels_out, eps=epsilon)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))  # (B, C_out, h, w)
        if self.time_emb_proj is not None and embedding is not None:
            hidden = hidden + self.time_emb_proj(F.silu(embedding))[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x.contiguous() if self.training else x)  # as diffusers: contiguous gradients where ranks share them
        return cast(Tensor, x + hidden)


class ResidualBlock(nn.Module):
    """A residual block without a timestep: (B, C_in, h, w) -> (B, C_out, h, w)."""

    recompute = False
    """Whether activations are computed again in the backward pass instead of kept; see `recompute_blocks`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = TimedBlock(channels_in, channels_out, (num_groups(channels_in), num_groups(channels_out)))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, run_block(self.block, x, recompute=self.recompute))


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
            GroupNorm(num_groups(channels_out), channels_out),
            nn.SiLU(),
        )


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, h', w') bilinear, at the size of `like`; the same tensor when sizes agree."""
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return x
    answer = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    if answer.requires_grad and answer.device.type == "cpu" and answer.is_contiguous(memory_format=torch.channels_last):
        answer.register_hook(_channels_last)  # type: ignore[no-untyped-call]
    return answer


def _channels_last(gradient: Tensor) -> Tensor:
    """Of a gradient that lies otherwise, say a part of more channels, `interpolate` takes ten times as long."""
    return gradient.contiguous(memory_format=torch.channels_last)
