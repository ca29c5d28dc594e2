"""The denoising UNet, told its condition by concatenation (paper, Fig. 2) or by attention (section 3.3), and its domain discriminator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.models.group_norm import PlainGroupNorm
from iccld.models.unet import UNet

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

POSITION_CHANNELS = 16
"""Channels that tell a cell of the noised latent its place, where the condition comes by attention."""


@dataclass(frozen=True)
class UNetKind:
    """What denoiser and discriminator share beside their sizes."""

    attention_levels: int = 1
    """Levels with attention, counted from the coarsest."""
    num_groups: int = 8
    """Groups of each GroupNorm; every width is a multiple."""
    gradient_checkpointing: bool = False
    """Whether blocks compute their activations again in the backward pass instead of keeping them."""
    conditioning: str = "concat"
    """How the condition reaches the denoiser: concat, as channels beside the noised latent; attention, as tokens (row 12)."""
    patch: int = 1
    """Side of the squares of latent cells that are one position of the UNet, their channels beside one another (Peebles and Xie 2023)."""


def _unet(
    channels_in: int, channels_out: int, widths: tuple[int, ...], layers_per_block: int, head_channels: int, kind: UNetKind
) -> UNet | UNet2DConditionModel:
    """The UNet with self-attention at `attention_levels`, or diffusers' with LDM's transformer blocks there, which also see tokens."""
    attended, plain = kind.attention_levels, len(widths) - kind.attention_levels
    if kind.conditioning == "concat":
        return UNet(
            channels_in, channels_out, widths, layers_per_block, head_channels, attended, kind.num_groups, kind.gradient_checkpointing
        )
    from diffusers import UNet2DConditionModel  # takes seconds to import, and the usual conditioning does without

    unet = UNet2DConditionModel(
        in_channels=channels_in,
        out_channels=channels_out,
        block_out_channels=widths,
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",) * attended,
        up_block_types=("CrossAttnUpBlock2D",) * attended + ("UpBlock2D",) * plain,
        norm_num_groups=kind.num_groups,
        cross_attention_dim=widths[-1],
        attention_head_dim=tuple(max(width // head_channels, 1) for width in widths),  # heads, in UNet2DConditionModel
    )
    if kind.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet


def padded(x: Tensor, multiple: int) -> Tensor:
    """(B, C, h, w) -> sides rounded up to the multiple by repeating the last row and column."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def in_squares(x: Tensor, side: int, pad: Callable[[Tensor, int], Tensor] = padded) -> Tensor:
    """(B, C, h, w) -> (B, side^2 C, h/side, w/side), sides rounded up by `pad`: the cells of a square beside one another."""
    return F.pixel_unshuffle(pad(x, side), side) if side > 1 else x


def positions(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Sines and cosines of a cell's column and row, in cells (Vaswani et al. 2017, section 3.5, in two dimensions): (channels, h, w)."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed_from_grid

    row, column = torch.meshgrid(*(torch.arange(side, device=device).double() for side in (height, width)), indexing="ij")
    encoded = get_2d_sincos_pos_embed_from_grid(channels, torch.stack([column, row]), output_type="pt")  # (h w, channels)
    return cast(Tensor, encoded).float().T.reshape(channels, height, width)


class ConditionTokens(nn.Module):
    """The condition's cells as tokens with their places: (B, C, h, w) -> (B, h w, W)."""

    def __init__(self, latent_channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Linear(latent_channels, width)

    def forward(self, condition: Tensor) -> Tensor:
        height, width = condition.shape[-2:]
        cells = self.project(condition.flatten(2).transpose(1, 2))  # (B, h w, W)
        return cast(Tensor, cells + positions(height, width, self.width, condition.device).flatten(1).T)


class Denoiser(nn.Module):
    """epsilon_theta(z_t, t | z_0): (B, C, h, w), (B,) int64, (B, C, h, w) -> (B, C, h, w).

    h, w need not divide by 2^(levels-1): the latent is padded by replication and cropped back.  With `residual` the condition is
    added to the output, whose last layer starts at zero: an untrained denoiser then returns its condition unchanged, so that
    step 2 starts exactly where step 1 ended (for `prediction="sample"`; ours, not the paper's).

    With `kind.conditioning="attention"` the UNet reads the condition through cross-attention alone, as tokens (Rombach et al. 2022,
    section 3.3).  Differs from LDM, whose tokens are words: the noised latent's cells are told their places too, without which pure
    noise could not find the token of its own cell (docs/readings.md, 12).

    With `kind.patch` above 1 the UNet sees the latent in squares of that side: as many operations in its first and last layer, and a
    fraction of 1 / patch^2 of them in between.
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
        kind = kind or UNetKind()
        self.residual = residual
        self.middle_channels = widths[-1]
        self.multiple = 2 ** (len(widths) - 1)
        self.patch = kind.patch
        self.pad = padded
        """What rounds sides up to a multiple; an export puts its own in the place."""
        channels = latent_channels * kind.patch**2
        self.tokens = ConditionTokens(channels, widths[-1]) if kind.conditioning == "attention" else None
        beside = channels if self.tokens is None else POSITION_CHANNELS
        self.unet = _unet(channels + beside, channels, widths, layers_per_block, head_channels, kind)
        if residual:
            nn.init.zeros_(self.unet.conv_out.weight)
            nn.init.zeros_(cast(Tensor, self.unet.conv_out.bias))

    def forward(self, noised: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        seen, told = (in_squares(x, self.patch, self.pad) for x in (noised, condition))
        output = self._of_squares(seen, timestep, told)
        output = F.pixel_shuffle(output, self.patch) if self.patch > 1 else output
        output = output[..., : noised.shape[-2], : noised.shape[-1]]  # (B, C, h, w)
        return condition + output if self.residual else output

    def _of_squares(self, noised: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """(B, p^2 C, h/p, w/p), (B,), (B, p^2 C, h/p, w/p) -> (B, p^2 C, h/p, w/p), as `forward`."""
        height, width = noised.shape[-2:]
        if self.tokens is None:
            output: Tensor = self.unet(self.pad(torch.cat([noised, condition], 1), self.multiple), timestep)  # (B, p^2 C, h', w')
        else:
            beside = positions(height, width, POSITION_CHANNELS, noised.device).to(noised.dtype).expand(len(noised), -1, -1, -1)
            stacked = self.pad(torch.cat([noised, beside], 1), self.multiple)  # (B, p^2 C + P, h', w')
            output = self.unet(stacked, timestep, encoder_hidden_states=self.tokens(condition)).sample  # tokens: (B, h w / p^2, W)
        return output[..., :height, :width]


class DomainDiscriminator(nn.Module):
    """f_dis: the encoder half of the denoising UNet and a classifier: (B, C, h, w), (B,) int64 -> (B, 3) logits.

    Domains in order: source, mixed, target.  The timestep is fed in, as to the UNet (docs/readings.md, row 6).  It sees no condition:
    what reads the condition in the UNet, its input channels or its cross-attention, is not there.
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
        self.patch = kind.patch
        channels = latent_channels * kind.patch**2
        unet = _unet(channels, channels, widths, layers_per_block, head_channels, kind)
        if kind.conditioning == "attention":
            _without_tokens(unet)
        self.multiple = 2 ** (len(widths) - 1)
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.conv_in, self.down_blocks, self.mid_block = unet.conv_in, unet.down_blocks, unet.mid_block
        self.norm = PlainGroupNorm(kind.num_groups, widths[-1])
        self.classify = nn.Linear(widths[-1], self.num_domains)

    def forward(self, latent: Tensor, timestep: Tensor) -> Tensor:
        x = self.conv_in(padded(in_squares(latent, self.patch), self.multiple))
        embedding = self.time_embedding(self.time_proj(timestep).to(x.dtype))
        for block in self.down_blocks:
            x, _ = block(x, embedding)
        x = self.mid_block(x, embedding)  # (B, W, h/4, w/4)
        return cast(Tensor, self.classify(F.silu(self.norm(x)).mean((2, 3))))


def _without_tokens(unet: nn.Module) -> None:
    """Take the cross-attention out of LDM's transformer blocks, as diffusers leaves them where there are no tokens."""
    from diffusers.models.attention import BasicTransformerBlock

    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.norm2 = module.attn2 = None
