"""Encoder, sampler and decoder put together."""

from __future__ import annotations

import pytest
import torch

from iccld.diffusion import DdimSampler, Diffusion
from iccld.models import CompactEncoder, Denoiser, DiffusionSegmenter, InterCoderDecoder, LatentScale, Segmenter

from ..rounding import differ


def parts() -> tuple[CompactEncoder, InterCoderDecoder]:
    torch.manual_seed(0)
    encoder = CompactEncoder((8, 8, 16, 16, 16), 4)
    return encoder, InterCoderDecoder(4, encoder.pyramid_channels, 3, width=16)


def diffusion_segmenter(num_steps: int, residual: bool = True) -> DiffusionSegmenter:
    encoder, decoder = parts()
    scale = LatentScale(4)
    scale.set(torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([0.5, 2.0, 1.0, 3.0]))
    sampler = DdimSampler(Diffusion(prediction="sample"), num_steps)
    return DiffusionSegmenter(encoder, decoder, Denoiser(4, (8, 16), 1, 8, residual=residual), scale, sampler)


GENERATOR = torch.Generator().manual_seed(0)
IMAGE, NOISE = torch.randn(2, 3, 32, 48, generator=GENERATOR), torch.randn(2, 4, 4, 6, generator=GENERATOR)


@pytest.mark.parametrize("num_steps", [1, 5])
def test_an_untrained_residual_denoiser_changes_no_answer(num_steps: int) -> None:
    network = diffusion_segmenter(num_steps)
    plain = Segmenter(network.encoder, network.decoder)
    torch.testing.assert_close(network(IMAGE, NOISE), plain(IMAGE), atol=1e-4, rtol=1e-4)
    assert float(network.identity_gap(IMAGE, NOISE).max()) < 1e-4


def test_identity_gap_is_the_relative_distance_of_each_picture() -> None:
    network = diffusion_segmenter(1)
    network.sampler = lambda denoise, noise: 1.5 * denoise(noise, torch.full((len(noise),), 999))
    torch.testing.assert_close(network.identity_gap(IMAGE, NOISE), torch.full((2,), 0.5))


def test_noise_matters_once_the_denoiser_reads_it() -> None:
    network = diffusion_segmenter(1, residual=False)
    assert differ(network(IMAGE, NOISE), network(IMAGE, NOISE + 1))
    assert network(IMAGE, NOISE).shape == (2, 3, 16, 24)


def test_noise_is_required() -> None:
    with pytest.raises(ValueError, match="needs noise"):
        diffusion_segmenter(1)(IMAGE)


def test_a_segmenter_ignores_noise() -> None:
    network = Segmenter(*parts())
    assert torch.equal(network(IMAGE, NOISE), network(IMAGE))
