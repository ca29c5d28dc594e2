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
from iccld.models.recompute import run_block

NUM_GROUPS = 32
EPSILON = 1e-6
"""Of every GroupNorm in LDM's autoencoders."""


class LdmEncoder(nn.Module):
    """LDM's encoder without its variance half: (B, 3, H, W) normalised -> `Features` with the latent's mean and every level.

    widths: channels at strides 1, 2, 4, ...; the latent lies at the last one, 2^(levels-1).  H and W may be any size: pictures are
    padded by replication, levels are cropped to the picture (rounded up).  mean, std: the normalisation that pictures come in; LDM's
    own is -1..1.
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
    ) -> None:
        super().__init__()
        self.pyramid_channels = tuple(widths)
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
            x = _run_level(block, x, self.gradient_checkpointing)  # (B, widths[level], H / 2^level, W / 2^level)
            pyramid.append(x[..., : -(-height >> level), : -(-width >> level)])
            for downsample in block.downsamplers or ():
                x = downsample(x)
        x = run_block(self.body.mid_block, x, recompute=self.gradient_checkpointing)
        latent = self.body.conv_out(self.body.conv_act(self.body.conv_norm_out(x)))  # (B, C, H/stride, W/stride)
        return Features(latent, tuple(pyramid))


class LdmDecoder(Decoder):
    """LDM's decoder with inter-coder connections and K classes for colours: latent, pyramid -> (B, K, H, W) logits.

    Each level starts from the coarser one, to which the encoder's level of the same stride is concatenated (docs/readings.md, row 16).
    With `inter_coder=False` the concatenated channels go, and the first block of each level is narrower (row 17).
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
    ) -> None:
        super().__init__()
        self.inter_coder = inter_coder
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
        self.up_blocks = nn.ModuleList(
            _UpLevel(
                channels_in=levels[max(number - 1, 0)],
                skip=width if inter_coder else 0,
                width=width,
                num_blocks=num_blocks,
                attention=coarse_attention and number == 0,
                upsample=number < len(levels) - 1,
            )
            for number, width in enumerate(levels)
        )
        self.feature_channels = widths[0]
        self.conv_norm_out = nn.GroupNorm(NUM_GROUPS, widths[0], eps=EPSILON)
        self.classify = nn.Conv2d(widths[0], num_classes, 3, padding=1)

    def features(self, latent: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
        """The last hidden layer, at the picture's size: (B, widths[0], H, W)."""
        x = self.conv_in(self.post_quant_conv(latent))
        x = run_block(self.mid_block, x, recompute=self.gradient_checkpointing)  # (B, widths[-1], h, w)
        for block, skip in zip(self.up_blocks, reversed(pyramid), strict=True):
            x = x[..., : skip.shape[-2], : skip.shape[-1]]  # what upsampling added beyond an odd side
            x = torch.cat([x, skip], 1) if self.inter_coder else x
            x = _run_level(block, x, self.gradient_checkpointing)
            for upsample in cast(Iterable[nn.Module], block.upsamplers):
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

    The first block's norm keeps the size of its groups when channels are concatenated: with weights of zero for these, it computes
    what it computed without them, and a pre-trained decoder starts unchanged.
    """

    def __init__(self, channels_in: int, skip: int, width: int, num_blocks: int, attention: bool, upsample: bool) -> None:
        super().__init__()
        groups = (channels_in + skip) // (channels_in // NUM_GROUPS)
        first = _resnet(channels_in + skip, width, groups)
        self.resnets = nn.ModuleList([first, *(_resnet(width, width, NUM_GROUPS) for _ in range(num_blocks - 1))])
        self.attentions = nn.ModuleList(_attention(width) for _ in range(num_blocks if attention else 0))
        self.upsamplers = nn.ModuleList([Upsample2D(width, use_conv=True, out_channels=width)] if upsample else [])


def _run_level(block: nn.Module, x: Tensor, recompute: bool) -> Tensor:
    """The residual blocks (and attentions) of one of diffusers' down blocks or of an `_UpLevel`, without its resampling."""
    resnets = list(cast(nn.ModuleList, block.resnets))
    attentions = list(cast(Iterable[nn.Module], getattr(block, "attentions", ())))
    for number, resnet in enumerate(resnets):
        x = run_block(resnet, x, None, recompute=recompute)
        if attentions:
            x = run_block(attentions[number], x, recompute=recompute)
    return x


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
