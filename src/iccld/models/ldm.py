"""Encoder and decoder in the geometry of latent diffusion's autoencoders (Rombach et al. 2022), on diffusers' blocks.

kl-f8: 128 channels, times 1, 2, 4, 4, two residual blocks a level in the encoder and three in the decoder.  kl-f4 has the levels
1, 2, 4 and kl-f16 the levels 1, 1, 2, 2, 4 with attention in the coarsest.  Parameters have the names of diffusers' `AutoencoderKL`,
so that its weights load (`iccld.models.autoencoder`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Encoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from iccld.models.decoder import Decoder
from iccld.models.features import Features
from iccld.models.group_norm import PlainGroupNorm
from iccld.models.recompute import run_block

NUM_GROUPS = 32
EPSILON = 1e-6
"""Of every GroupNorm in LDM's autoencoders."""


class LdmEncoder(nn.Module):
    """LDM's encoder without its variance half: (B, 3, H, W) normalised -> `Features` with the latent's mean and every level.

    widths: channels at strides 1, 2, 4, ...; the latent lies at the last one, 2^(levels-1).  H and W may be any size: pictures are
    padded by replication, levels are cropped to the picture (rounded up).  mean, std: the normalisation that pictures come in; LDM's
    own is -1..1.  With `per_block` a level of the pyramid stacks, channel over channel, what each of its layers gives: the convolution
    that enters the level, then its residual blocks; `pyramid_layers` are their channels.
    """

    def __init__(
        self,
        widths: Sequence[int],
        latent_channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        num_blocks: int = 2,
        mid_attention: bool = True,
        coarse_attention: bool = False,
        gradient_checkpointing: bool = False,
        per_block: bool = False,
    ) -> None:
        super().__init__()
        entering = (widths[0], *widths[:-1])
        self.per_block = per_block
        self.pyramid_layers = [
            (before, *[width] * num_blocks) if per_block else (width,) for before, width in zip(entering, widths, strict=True)
        ]
        self.pyramid_channels = tuple(map(sum, self.pyramid_layers))
        self.latent_channels = latent_channels
        self.stride = 2 ** (len(widths) - 1)
        self.gradient_checkpointing = gradient_checkpointing
        last = "AttnDownEncoderBlock2D" if coarse_attention else "DownEncoderBlock2D"
        self.body = Encoder(
            out_channels=latent_channels,
            down_block_types=("DownEncoderBlock2D",) * (len(widths) - 1) + (last,),
            block_out_channels=tuple(widths),
            layers_per_block=num_blocks,
            norm_num_groups=NUM_GROUPS,
            double_z=False,
            mid_block_add_attention=mid_attention,
        )
        # From (x - mean) / std to 2 x - 1.
        self.register_buffer("gain", 2 * torch.tensor(std)[:, None, None], persistent=False)
        self.register_buffer("offset", 2 * torch.tensor(mean)[:, None, None] - 1, persistent=False)

    def forward(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        x = image * cast(Tensor, self.gain) + cast(Tensor, self.offset)
        x = self.body.conv_in(F.pad(x, (0, -width % self.stride, 0, -height % self.stride), mode="replicate"))
        pyramid = []
        for level, block in enumerate(self.body.down_blocks):
            layers = [x]
            for number in range(len(block.resnets)):
                x = _run_block(block, number, x, self.gradient_checkpointing)  # (B, widths[level], H / 2^level, W / 2^level)
                layers = [*layers, x] if self.per_block else [x]
            told = torch.cat(layers, 1) if self.per_block else x
            pyramid.append(told[..., : -(-height >> level), : -(-width >> level)])
            for downsample in block.downsamplers or ():
                x = downsample(x)
        x = run_block(self.body.mid_block, x, recompute=self.gradient_checkpointing)
        latent = self.body.conv_out(self.body.conv_act(self.body.conv_norm_out(x)))  # (B, C, H/stride, W/stride)
        return Features(latent, tuple(pyramid))


class LdmDecoder(Decoder):
    """LDM's decoder with inter-coder connections and K classes for colours: latent, pyramid -> (B, K, H, W) logits.

    Each level starts from the coarser one, to which the encoder's level of the same stride is concatenated (docs/readings.md, row 16).
    With `inter_coder=False` the concatenated channels go, and the first block of each level is narrower (row 17).

    With `per_block` every residual block reads a layer of the encoder's level, the last layer first, as in the UNet of Ho et al. 2020;
    blocks left over read the first layer again.  layers: channels of the layers that each level of the pyramid stacks, finest level
    first; one a level, of the level's width, unless given.
    """

    output_stride = 1

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        num_classes: int,
        inter_coder: bool = True,
        num_blocks: int = 3,
        mid_attention: bool = True,
        coarse_attention: bool = False,
        gradient_checkpointing: bool = False,
        per_block: bool = False,
        layers: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.gradient_checkpointing = gradient_checkpointing
        coarsest = widths[-1]
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.conv_in = nn.Conv2d(latent_channels, coarsest, 3, padding=1)
        self.mid_block = UNetMidBlock2D(
            in_channels=coarsest,
            temb_channels=None,
            resnet_eps=EPSILON,
            resnet_groups=NUM_GROUPS,
            attention_head_dim=coarsest,
            add_attention=mid_attention,
        )
        levels = list(reversed(widths))
        stacked = list(reversed(layers or [(width,) for width in widths]))
        self.up_blocks = nn.ModuleList(
            _UpLevel(
                channels_in=levels[max(number - 1, 0)],
                layers=stacked[number],
                reads=_reads(len(stacked[number]), num_blocks, inter_coder, per_block),
                width=width,
                attention=coarse_attention and number == 0,
                upsample=number < len(levels) - 1,
            )
            for number, width in enumerate(levels)
        )
        self.feature_channels = widths[0]
        self.conv_norm_out = PlainGroupNorm(NUM_GROUPS, widths[0], eps=EPSILON)
        self.classify = nn.Conv2d(widths[0], num_classes, 3, padding=1)

    def features(self, latent: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
        """The last hidden layer, at the picture's size: (B, widths[0], H, W)."""
        x = self.conv_in(self.post_quant_conv(latent))
        x = run_block(self.mid_block, x, recompute=self.gradient_checkpointing)  # (B, widths[-1], h, w)
        for block, skip in zip(cast(Iterable[_UpLevel], self.up_blocks), reversed(pyramid), strict=True):
            x = x[..., : skip.shape[-2], : skip.shape[-1]]  # what upsampling added beyond an odd side
            layers = torch.split(skip, list(block.layers), 1) if len(block.layers) > 1 else (skip,)
            for number, layer in enumerate(block.reads):
                x = x if layer is None else torch.cat([x, layers[layer]], 1)
                x = _run_block(block, number, x, self.gradient_checkpointing)  # (B, width, H / 2^level, W / 2^level)
            for upsample in block.upsamplers:
                x = upsample(x)
        return F.silu(self.conv_norm_out(x))  # (B, widths[0], H, W)

    def logits(self, features: Tensor) -> Tensor:
        """(B, widths[0], H, W) -> (B, K, H, W)."""
        return cast(Tensor, self.classify(features))

    def classifier_weight(self) -> Tensor:
        """The last layer's weight, (K, widths[0], 3, 3): what a test freezes or compares."""
        return self.classify.weight


class _UpLevel(nn.Module):
    """The blocks of one decoder level; `LdmDecoder` runs them.

    layers: channels of the encoder's layers.  reads: which of them is concatenated to each block's input, None for none.
    A block's norm keeps the size of its groups when channels are concatenated: with weights of zero for these, it computes what it
    computed without them, and a pre-trained decoder starts unchanged.
    """

    def __init__(
        self, channels_in: int, layers: tuple[int, ...], reads: Sequence[int | None], width: int, attention: bool, upsample: bool
    ) -> None:
        super().__init__()
        self.layers = layers
        self.reads = reads
        self.resnets = nn.ModuleList()
        for number, layer in enumerate(reads):
            own = width if number else channels_in
            channels = own + (0 if layer is None else layers[layer])
            self.resnets.append(_resnet(channels, width, channels // (own // NUM_GROUPS)))
        self.attentions = nn.ModuleList(_attention(width) for _ in (reads if attention else ()))
        self.upsamplers = nn.ModuleList([Upsample2D(width, use_conv=True, out_channels=width)] if upsample else [])


def _reads(num_layers: int, num_blocks: int, inter_coder: bool, per_block: bool) -> list[int | None]:
    """Which of the encoder's layers each decoder block of a level reads; per level, the first block reads the last layer."""
    if inter_coder and per_block:
        return [max(num_layers - 1 - number, 0) for number in range(num_blocks)]
    return [num_layers - 1 if inter_coder else None, *[None] * (num_blocks - 1)]


def _run_block(level: nn.Module, number: int, x: Tensor, recompute: bool) -> Tensor:
    """A residual block (and its attention) of one of diffusers' down blocks or of an `_UpLevel`."""
    x = run_block(cast(nn.ModuleList, level.resnets)[number], x, None, recompute=recompute)
    attentions = cast(Sequence[nn.Module], getattr(level, "attentions", ()))
    return run_block(attentions[number], x, recompute=recompute) if len(attentions) else x


def _resnet(channels_in: int, channels_out: int, groups: int) -> nn.Module:
    block: nn.Module = ResnetBlock2D(
        in_channels=channels_in, out_channels=channels_out, temb_channels=None, groups=groups, groups_out=NUM_GROUPS, eps=EPSILON
    )
    return block


def _attention(channels: int) -> nn.Module:
    """One head over all positions, as LDM's; the same module that diffusers puts into its down and mid blocks."""
    block: nn.Module = Attention(
        channels,
        heads=1,
        dim_head=channels,
        eps=EPSILON,
        norm_num_groups=NUM_GROUPS,
        residual_connection=True,
        bias=True,
        upcast_softmax=True,
        _from_deprecated_attn_block=True,
    )
    return block
