"""Presets: `NetworkConfig` -> factories of the networks.  A new family is one builder and one line of `BUILDERS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from iccld.config import NetworkConfig
from iccld.models import CompactEncoder, Denoiser, DomainDiscriminator, InterCoderDecoder, Segmenter

HEAD_CHANNELS = 32
"""Channels of an attention head in the denoiser's coarsest level; a narrower level is one head."""


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


def compact(network: NetworkConfig, num_classes: int) -> Networks:
    """A few million parameters, for two CPU cores."""
    latent = network.latent_channels
    head = min(HEAD_CHANNELS, network.denoiser_widths[-1])

    def make_segmenter() -> Segmenter:
        encoder = CompactEncoder(network.widths, latent)
        decoder = InterCoderDecoder(latent, encoder.pyramid_channels, num_classes, network.decoder_width, network.inter_coder)
        return Segmenter(encoder, decoder)

    return Networks(
        make_segmenter=make_segmenter,
        make_denoiser=lambda residual: Denoiser(latent, network.denoiser_widths, 1, head, residual),
        make_discriminator=lambda: DomainDiscriminator(latent, network.denoiser_widths, 1, head),
        latent_channels=latent,
        latent_stride=CompactEncoder.stride,
        size_multiple=16,
    )


BUILDERS: dict[str, Callable[[NetworkConfig, int], Networks]] = {"compact": compact}
"""Preset -> its builder; the names are those of `iccld.config.network.PRESETS`."""


def build_networks(network: NetworkConfig, num_classes: int) -> Networks:
    """The networks of the configured preset, with `num_classes` classes to tell apart."""
    return BUILDERS[network.preset](network, num_classes)
