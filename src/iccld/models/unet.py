"""The UNet of diffusion models (Ho et al. 2020, appendix B), as diffusers' `UNet2DModel` builds it, without diffusers.

Parameters have its names and order, and arithmetic is its arithmetic, bit for bit (tests/models/test_unet.py), but for attention and the
norms of residual blocks where they are trained in bf16 on a CPU: weights and optimiser states of earlier runs fit.  What it is for:
importing diffusers takes seconds, and predicting one picture with step 2 needs none of the rest of it (docs/decisions/0006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.models.blocks import TimedBlock
from iccld.models.group_norm import PlainGroupNorm
from iccld.models.recompute import run_block

EPSILON = 1e-5
"""Of every GroupNorm in diffusers' UNet."""

MAX_PERIOD = 10_000
"""Longest period of a timestep's sines over 2 pi, in timesteps (Vaswani et al. 2017, section 3.5)."""


class UNet(nn.Module):
    """(B, C_in, h, w), (B,) timesteps -> (B, C_out, h, w); h and w divide by 2^(levels - 1).

    widths: channels of the levels, the finest first; each has `layers_per_block` residual blocks on the way down and one more on the way
    up.  attention_levels: how many, from the coarsest, have self-attention, with heads of head_channels channels.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        widths: Sequence[int],
        layers_per_block: int,
        head_channels: int,
        attention_levels: int,
        num_groups: int,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        embedded = 4 * widths[0]
        last = len(widths) - 1

        def heads(level: int, width: int) -> int:
            return width // head_channels if level > last - attention_levels else 0

        self.conv_in = nn.Conv2d(channels_in, widths[0], 3, padding=1)
        self.time_proj = TimestepSines(widths[0])
        self.time_embedding = TimestepEmbedding(widths[0], embedded)
        self.down_blocks = nn.ModuleList()
        up_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise((widths[0], *widths))):
            entering = [before, *[width] * (layers_per_block - 1)]
            self.down_blocks.append(DownBlock(entering, width, embedded, num_groups, heads(level, width), level < last, recompute))
        middle = MiddleBlock(widths[-1], embedded, num_groups, widths[-1] // head_channels, recompute)
        below = widths[-1]
        for level in reversed(range(len(widths))):
            width = widths[level]
            # Each block also reads what a block of the way down gave; the last of a level what the level above it handed down.
            skipped = [*[width] * layers_per_block, widths[max(level - 1, 0)]]
            entering = [own + skip for own, skip in zip([below, *[width] * layers_per_block], skipped, strict=True)]
            up_blocks.append(UpBlock(entering, width, embedded, num_groups, heads(level, width), level > 0, recompute))
            below = width
        # Random weights are drawn on the way; parameters, and with them an optimiser's states, lie in diffusers' order.
        self.up_blocks, self.mid_block = up_blocks, middle
        self.conv_norm_out = PlainGroupNorm(num_groups, widths[0], eps=EPSILON)
        self.conv_out = nn.Conv2d(widths[0], channels_out, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        embedding = self.time_embedding(self.time_proj(timestep).to(self.conv_in.weight.dtype))  # (B, 4 widths[0])
        x = self.conv_in(x)
        skips = [x]
        for down in self.down_blocks:
            x, given = down(x, embedding)
            skips += given
        x = self.mid_block(x, embedding)
        for up in self.up_blocks:
            x = up(x, skips, embedding)
        return cast(Tensor, self.conv_out(F.silu(self.conv_norm_out(x))))


class TimestepSines(nn.Module):
    """(B,) -> (B, C): cosines, then sines, of the timestep at C/2 frequencies from 1 to 1/MAX_PERIOD, the last left out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, timestep: Tensor) -> Tensor:
        half = self.channels // 2
        exponent = -math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half
        angle = timestep[:, None].float() * torch.exp(exponent)[None]  # (B, C/2)
        return F.pad(torch.cat([angle.cos(), angle.sin()], -1), (0, self.channels % 2))


class TimestepEmbedding(nn.Module):
    """Two linear layers with SiLU between them: (B, C) -> (B, E)."""

    def __init__(self, channels: int, embedded: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, embedded)
        self.linear_2 = nn.Linear(embedded, embedded)

    def forward(self, sines: Tensor) -> Tensor:
        return cast(Tensor, self.linear_2(F.silu(self.linear_1(sines))))


class SelfAttention(nn.Module):
    """Attention over all positions, added to the input: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int, num_heads: int, num_groups: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.group_norm = PlainGroupNorm(num_groups, channels, eps=EPSILON)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        cells = self.group_norm(x.view(batch, channels, height * width)).transpose(1, 2)  # (B, h w, C)
        query, key, value = (
            project(cells).view(batch, -1, self.num_heads, channels // self.num_heads).transpose(1, 2)  # (B, heads, h w, C / heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended = attend(query, key, value).transpose(1, 2).reshape(batch, -1, channels)
        attended = self.to_out[0](attended.to(query.dtype))  # (B, h w, C)
        return cast(Tensor, attended.transpose(-1, -2).reshape(batch, channels, height, width) + x)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of every position to all: (B, heads, N, C) thrice -> (B, heads, N, C).

    Where a gradient is wanted of bf16 on a CPU it is computed in float32: in bf16 its gradient takes up to four times as long.
    """
    if query.requires_grad and query.dtype == torch.bfloat16 and query.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value)


class _Level(nn.Module):
    """The residual blocks of one level, each followed by attention where the level has heads."""

    def __init__(self, entering: Sequence[int], width: int, embedded: int, num_groups: int, num_heads: int, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        blocks, attentions = [], []
        for channels in entering:
            blocks.append(TimedBlock(channels, width, (num_groups, num_groups), embedded, EPSILON))
            if num_heads:
                attentions.append(SelfAttention(width, num_heads, num_groups))
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        self.resnets = nn.ModuleList(blocks)

    def run(self, number: int, x: Tensor, embedding: Tensor) -> Tensor:
        """The numbered block and its attention: (B, C_in, h, w), (B, E) -> (B, C, h, w)."""
        x = run_block(self.resnets[number], x, embedding, recompute=self.recompute)
        return cast(Tensor, self.attentions[number](x)) if hasattr(self, "attentions") else x


class DownBlock(_Level):
    """A level on the way down: (B, C_in, h, w), (B, E) -> (B, C, h/2, w/2) and what each of its layers gave, for the way up."""

    def __init__(
        self, entering: Sequence[int], width: int, embedded: int, num_groups: int, num_heads: int, halves: bool, recompute: bool
    ) -> None:
        super().__init__(entering, width, embedded, num_groups, num_heads, recompute)
        self.downsamplers = nn.ModuleList([Downsample(width)]) if halves else None

    def forward(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        given = []
        for number in range(len(self.resnets)):
            x = self.run(number, x, embedding)
            given.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            given.append(x)
        return x, given


class UpBlock(_Level):
    """A level on the way up: (B, C_in, h, w), the way down's tensors, which it takes from the end, (B, E) -> (B, C, 2h, 2w)."""

    def __init__(
        self, entering: Sequence[int], width: int, embedded: int, num_groups: int, num_heads: int, doubles: bool, recompute: bool
    ) -> None:
        super().__init__(entering, width, embedded, num_groups, num_heads, recompute)
        self.upsamplers = nn.ModuleList([Upsample(width)]) if doubles else None

    def forward(self, x: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        for number in range(len(self.resnets)):
            x = self.run(number, torch.cat([x, skips.pop()], 1), embedding)
        return x if self.upsamplers is None else cast(Tensor, self.upsamplers[0](x))


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block at the coarsest level: (B, C, h, w), (B, E) -> (B, C, h, w)."""

    def __init__(self, width: int, embedded: int, num_groups: int, num_heads: int, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        groups = (num_groups, num_groups)
        first = TimedBlock(width, width, groups, embedded, EPSILON)
        self.attentions = nn.ModuleList([SelfAttention(width, num_heads, num_groups)])
        self.resnets = nn.ModuleList([first, TimedBlock(width, width, groups, embedded, EPSILON)])

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, embedding))
        return cast(Tensor, run_block(self.resnets[1], x, embedding, recompute=self.recompute))


class Downsample(nn.Module):
    """(B, C, h, w) -> (B, C, h/2, w/2) by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x))


class Upsample(nn.Module):
    """(B, C, h, w) -> (B, C, 2h, 2w): every cell four times, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))
