"""The denoising UNet, conditioned by concatenation (paper, Fig. 2), and the discriminator: its encoder half plus a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn


@dataclass(frozen=True)
class UNetKind:
    """What denoiser and discriminator share beside their sizes."""

    attention_levels: int = 1
    """Levels with attention, counted from the coarsest."""
    num_groups: int = 8
    """Groups of each GroupNorm; every width is a multiple."""
    gradient_checkpointing: bool = False
    """Whether blocks compute their activations again in the backward pass instead of keeping them."""


def _unet(
    channels_in: int, channels_out: int, widths: tuple[int, ...], layers_per_block: int, head_channels: int, kind: UNetKind
) -> UNet2DModel:
    attended, plain = kind.attention_levels, len(widths) - kind.attention_levels
    unet = UNet2DModel(
        in_channels=channels_in,
        out_channels=channels_out,
        block_out_channels=widths,
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attended,
        up_block_types=("AttnUpBlock2D",) * attended + ("UpBlock2D",) * plain,
        norm_num_groups=kind.num_groups,
        attention_head_dim=head_channels,  # channels per head in UNet2DModel
    )
    if kind.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet


def _pad(x: Tensor, multiple: int) -> Tensor:
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


class Denoiser(nn.Module):
    """epsilon_theta(z_t, t | z_0): (B, C, h, w), (B,) int64, (B, C, h, w) -> (B, C, h, w).

    h, w need not divide by 2^(levels-1): the latent is padded by replication and cropped back.  With `residual` the condition is
    added to the output, whose last layer starts at zero: an untrained denoiser then returns its condition unchanged, so that
    step 2 starts exactly where step 1 ended (for `prediction="sample"`; ours, not the paper's).
    """

    def __init__(
        self,
        latent_channels: int,
        widths: tuple[int, ...] = (64, 96, 128),
        layers_per_block: int = 1,
        head_channels: int = 32,
        residual: bool = False,
        kind: UNetKind | None = None,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.multiple = 2 ** (len(widths) - 1)
        self.unet = _unet(2 * latent_channels, latent_channels, widths, layers_per_block, head_channels, kind or UNetKind())
        if residual:
            nn.init.zeros_(self.unet.conv_out.weight)
            nn.init.zeros_(cast(Tensor, self.unet.conv_out.bias))

    def forward(self, noised: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        height, width = noised.shape[-2:]
        stacked = _pad(torch.cat([noised, condition], 1), self.multiple)  # (B, 2C, h', w')
        output: Tensor = self.unet(stacked, timestep).sample[..., :height, :width]  # (B, C, h, w)
        return condition + output if self.residual else output


class DomainDiscriminator(nn.Module):
    """f_dis: the encoder half of the denoising UNet and a classifier: (B, C, h, w), (B,) int64 -> (B, 3) logits.

    Domains in order: source, mixed, target.  The timestep is fed in, as to the UNet (docs/readings.md, row 6).
    """

    num_domains = 3

    def __init__(
        self,
        latent_channels: int,
        widths: tuple[int, ...] = (64, 96, 128),
        layers_per_block: int = 1,
        head_channels: int = 32,
        kind: UNetKind | None = None,
    ) -> None:
        super().__init__()
        kind = kind or UNetKind()
        unet = _unet(latent_channels, latent_channels, widths, layers_per_block, head_channels, kind)
        self.multiple = 2 ** (len(widths) - 1)
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.conv_in, self.down_blocks, self.mid_block = unet.conv_in, unet.down_blocks, unet.mid_block
        self.norm = nn.GroupNorm(kind.num_groups, widths[-1])
        self.classify = nn.Linear(widths[-1], self.num_domains)

    def forward(self, latent: Tensor, timestep: Tensor) -> Tensor:
        x = self.conv_in(_pad(latent, self.multiple))
        embedding = self.time_embedding(self.time_proj(timestep).to(x.dtype))
        for block in self.down_blocks:
            x, _ = block(hidden_states=x, temb=embedding)
        x = self.mid_block(x, embedding)  # (B, W, h/4, w/4)
        return cast(Tensor, self.classify(F.silu(self.norm(x)).mean((2, 3))))
