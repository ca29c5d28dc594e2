"""Presets: `NetworkConfig` -> factories of the networks.  A new family is one builder and one line of `BUILDERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import nn

from iccld.config import NetworkConfig
from iccld.config.network import EFFICIENTNETS
from iccld.errors import ConfigError
from iccld.files import sha256_of
from iccld.methods.common.parts import MEAN, STD
from iccld.models import (
    AtrousDecoder,
    Backbone,
    BackboneEncoder,
    CompactEncoder,
    ContextAwareDecoder,
    DeepLabEncoder,
    Denoiser,
    DomainDiscriminator,
    EfficientNetEncoder,
    EfficientNetLite,
    InterCoderDecoder,
    PyramidEncoder,
    Segmenter,
    UNetKind,
    efficientnet,
)
from iccld.models.backbone import load_backbone, save_architecture
from iccld.models.blocks import recompute_blocks
from iccld.models.deeplab import resnet101
from iccld.models.hub import licence, weights_folder
from iccld.progress import say

HEAD_CHANNELS = 32
"""Channels of an attention head in the denoiser; a narrower level is one head."""

ARCHITECTURE = "encoder"
"""Folder of a run that keeps the configuration of its transformers backbone: reading the run then needs no weights and no hub."""


@dataclass(frozen=True)
class Networks:
    """What a preset gives: factories, each call of which makes fresh networks, and what a predictor must know of them."""

    make_segmenter: Callable[[], Segmenter]
    make_denoiser: Callable[[bool], Denoiser]
    """residual -> denoiser."""
    make_discriminator: Callable[[], DomainDiscriminator]
    latent_channels: int
    latent_stride: int
    size_multiple: int
    """What the sides of a predicted picture are multiples of; itself a multiple of `latent_stride`."""


@dataclass(frozen=True)
class Origins:
    """Folders that networks come from, where they are not the preset's own with random weights."""

    backbone: Path | None = None
    """Of a transformers configuration, for the encoder."""
    backbone_weights: bool = True
    """Whether the backbone's weights are there too, and wanted."""
    efficientnet: Path | None = None
    """File of an EfficientNet's weights; None where they are not wanted."""
    autoencoder: Path | None = None
    """Of a diffusers AutoencoderKL."""


def compact(network: NetworkConfig, num_classes: int, origins: Origins) -> Networks:
    """A few million parameters, for two CPU cores."""
    latent = network.latent_channels
    half, quarter, eighth = network.widths[:3]
    head = min(HEAD_CHANNELS, network.denoiser_widths[-1])
    is_efficientnet = network.encoder in EFFICIENTNETS
    kind = UNetKind(gradient_checkpointing=network.gradient_checkpointing, conditioning=network.conditioning, patch=network.denoiser_patch)

    def make_segmenter() -> Segmenter:
        encoder: nn.Module
        if is_efficientnet:
            encoder = _efficientnet_encoder(network, origins)
        else:
            encoder = _backbone_encoder(network, origins, (2, 4, 8)) or CompactEncoder(network.widths, latent)
        pyramid = encoder.pyramid_channels if isinstance(encoder, EfficientNetEncoder) else (half, quarter, eighth)
        decoder = InterCoderDecoder(latent, pyramid, num_classes, network.decoder_width, network.inter_coder)
        return _checkpointed(Segmenter(encoder, decoder), network)

    return Networks(
        make_segmenter=make_segmenter,
        make_denoiser=lambda residual: Denoiser(latent, network.denoiser_widths, 1, head, residual, kind),
        make_discriminator=lambda: DomainDiscriminator(latent, network.denoiser_widths, 1, head, kind),
        latent_channels=latent,
        latent_stride=CompactEncoder.stride,
        size_multiple=32 if network.encoder else 16,
    )


def ldm(network: NetworkConfig, num_classes: int, origins: Origins) -> Networks:
    """Latent diffusion's autoencoder and UNet: kl-f8 and its relatives, for a GPU."""
    from iccld.models.autoencoder import load_decoder, load_encoder, read_autoencoder
    from iccld.models.ldm import LdmDecoder, LdmEncoder  # on diffusers, whose import takes seconds

    latent, stride, widths = network.latent_channels, network.latent_stride, network.widths
    kind = _large_unet(network)
    per_block = network.inter_coder and network.inter_coder_at == "block"
    # At stride 4 attention would see 32,768 positions of a 512x1024 picture; at 16, kl-f16 has it in the coarsest level too.
    mid, coarse, recompute = stride != 4, stride == 16, network.gradient_checkpointing

    def make_segmenter() -> Segmenter:
        own = LdmEncoder(widths, latent, MEAN, STD, 2, mid, coarse, recompute, per_block) if origins.backbone is None else None
        encoder = own or _backbone_encoder(network, origins, tuple(2**level for level in range(len(widths))))
        assert encoder is not None
        layers = None if own is None else own.pyramid_layers
        decoder = LdmDecoder(latent, widths, num_classes, network.inter_coder, 3, mid, coarse, recompute, per_block, layers)
        if origins.autoencoder is not None and own is not None:
            weights = read_autoencoder(origins.autoencoder, widths, latent)
            load_encoder(own, weights)
            if network.autoencoder_decoder:
                load_decoder(decoder, weights)
        return _checkpointed(Segmenter(encoder, decoder), network)

    return Networks(
        make_segmenter=make_segmenter,
        make_denoiser=lambda residual: Denoiser(latent, network.denoiser_widths, 2, HEAD_CHANNELS, residual, kind),
        make_discriminator=lambda: DomainDiscriminator(latent, network.denoiser_widths, 2, HEAD_CHANNELS, kind),
        latent_channels=latent,
        latent_stride=stride,
        size_multiple=stride if origins.backbone is None else 32,
    )


def daformer(network: NetworkConfig, num_classes: int, origins: Origins) -> Networks:
    """DAFormer's head on a transformer with four levels; HRDA, CLUDA and MIC take it at two resolutions."""
    kind = _large_unet(network)
    latent = network.latent_channels

    def make_segmenter() -> Segmenter:
        assert origins.backbone is not None
        encoder = PyramidEncoder(_backbone(network, origins))
        channels = (*encoder.pyramid_channels, encoder.latent_channels)
        if channels != network.widths:
            raise ConfigError(f"network.widths is {list(network.widths)}, but {network.encoder} has {list(channels)}; set it to these")
        return Segmenter(encoder, ContextAwareDecoder(channels, num_classes, network.decoder_width))

    return Networks(
        make_segmenter=make_segmenter,
        make_denoiser=lambda residual: Denoiser(latent, network.denoiser_widths, 2, HEAD_CHANNELS, residual, kind),
        make_discriminator=lambda: DomainDiscriminator(latent, network.denoiser_widths, 2, HEAD_CHANNELS, kind),
        latent_channels=latent,
        latent_stride=network.latent_stride,
        size_multiple=network.latent_stride,
    )


def deeplabv2(network: NetworkConfig, num_classes: int, origins: Origins) -> Networks:
    """A ResNet dilated to stride 8 and a classifier: the network of the methods before transformers; ResNet-101 unless another is named."""
    kind = _large_unet(network)
    latent = network.latent_channels

    def make_segmenter() -> Segmenter:
        backbone = resnet101(network.gradient_checkpointing) if origins.backbone is None else _backbone(network, origins)
        encoder = DeepLabEncoder(backbone)
        channels = (*encoder.pyramid_channels, encoder.latent_channels)
        if channels != network.widths:
            raise ConfigError(f"network.widths is {list(network.widths)}, but {network.encoder} has {list(channels)}; set it to these")
        return Segmenter(encoder, AtrousDecoder(latent, num_classes, network.atrous_rates))

    return Networks(
        make_segmenter=make_segmenter,
        make_denoiser=lambda residual: Denoiser(latent, network.denoiser_widths, 2, HEAD_CHANNELS, residual, kind),
        make_discriminator=lambda: DomainDiscriminator(latent, network.denoiser_widths, 2, HEAD_CHANNELS, kind),
        latent_channels=latent,
        latent_stride=DeepLabEncoder.stride,
        size_multiple=DeepLabEncoder.stride,
    )


BUILDERS: dict[str, Callable[[NetworkConfig, int, Origins], Networks]] = {
    "compact": compact,
    "ldm": ldm,
    "daformer": daformer,
    "deeplabv2": deeplabv2,
}
"""Preset -> its builder; the names are those of `iccld.config.network.PRESETS`."""


def build_networks(network: NetworkConfig, num_classes: int, run: Path | None = None) -> Networks:
    """The networks of the configured preset, with `num_classes` classes to tell apart.

    They start from the pre-trained weights that `network` names; with `run`, a run directory or any folder that `keep_architecture`
    wrote to, from random ones in the architecture that is kept there, and neither hub nor weights are needed.
    """
    if network.encoder in EFFICIENTNETS:
        file = None if run is not None else _efficientnet_weights(network.encoder)
        return BUILDERS[network.preset](network, num_classes, Origins(efficientnet=file))
    if run is not None:
        return BUILDERS[network.preset](network, num_classes, Origins(run / ARCHITECTURE if network.encoder else None, False))
    return BUILDERS[network.preset](
        network,
        num_classes,
        Origins(
            backbone=_named("network.encoder", network.encoder) if network.encoder else None,
            autoencoder=_named("network.autoencoder", network.autoencoder) if network.autoencoder else None,
        ),
    )


def keep_architecture(network: NetworkConfig, run: Path) -> None:
    """Write what `build_networks` needs of a backbone to read the run; nothing for a preset's own networks."""
    if network.encoder and network.encoder not in EFFICIENTNETS and not (run / ARCHITECTURE).is_dir():
        save_architecture(_named("network.encoder", network.encoder), run / ARCHITECTURE)


def pretrained_weights(network: NetworkConfig) -> dict[str, dict[str, str]]:
    """What networks begin from, `encoder` and `autoencoder` where they are named: name, SHA-256 of each file of weights, and the hub's
    revision where they come from its cache.  Reads the files."""
    told: dict[str, dict[str, str]] = {}
    for key in ("encoder", "autoencoder"):
        name = getattr(network, key)
        if name in EFFICIENTNETS:
            files = [_efficientnet_weights(name)]
        elif name:
            folder = _named(f"network.{key}", name)
            files = sorted(file for pattern in ("*.safetensors", "*.bin", "*.pth") for file in folder.glob(pattern))
        else:
            continue
        revision = {"revision": files[0].parent.name} if files and files[0].parent.parent.name == "snapshots" else {}
        told[key] = {"name": name, **revision, **{file.name: sha256_of(file) for file in files}}
    return told


@cache
def _named(key: str, name: str) -> Path:
    """The folder of weights by name, found and announced with its licence once a process."""
    folder = weights_folder(name, key)
    say(f"{key.rpartition('.')[2]} {name}: {licence(folder)}")
    return folder


@cache
def _efficientnet_weights(name: str) -> Path:
    """The file of an EfficientNet's weights, found and announced with its licence once a process."""
    file = efficientnet.weights_file(name)
    say(f"encoder {name}: {efficientnet.origin(name)}")
    return file


def _large_unet(network: NetworkConfig) -> UNetKind:
    """Attention everywhere but at the latent's own resolution, and LDM's 32 groups."""
    levels = max(len(network.denoiser_widths) - 1, 1)
    return UNetKind(levels, 32, network.gradient_checkpointing, network.conditioning, network.denoiser_patch)


def _backbone(network: NetworkConfig, origins: Origins) -> Backbone:
    """The transformers backbone of these origins, with what of it learns."""
    assert origins.backbone is not None
    return load_backbone(
        origins.backbone,
        origins.backbone_weights,
        network.gradient_checkpointing,
        training=network.encoder_training,
        drop_path=network.drop_path,
    )


def _backbone_encoder(network: NetworkConfig, origins: Origins, strides: Sequence[int]) -> nn.Module | None:
    if origins.backbone is None:
        return None
    backbone = _backbone(network, origins)
    return BackboneEncoder(backbone, strides, network.widths[: len(strides)], network.latent_channels)


def _efficientnet_encoder(network: NetworkConfig, origins: Origins) -> EfficientNetEncoder:
    trunk = EfficientNetLite(network.encoder, network.train_norm, network.gradient_checkpointing, network.encoder_training)
    if origins.efficientnet is not None:
        efficientnet.load_weights(trunk, origins.efficientnet)
    return EfficientNetEncoder(trunk, network.widths[2], network.latent_channels, MEAN, STD)


def _checkpointed(segmenter: Segmenter, network: NetworkConfig) -> Segmenter:
    if network.gradient_checkpointing:
        recompute_blocks(segmenter)
    return segmenter
