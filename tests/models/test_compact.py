"""The encoder's shapes at any size, and its size."""

from __future__ import annotations

import pytest
import torch

from iccld.models import CompactEncoder, Denoiser, DomainDiscriminator, InterCoderDecoder
from iccld.models.blocks import num_groups

from ..rounding import differ

WIDTHS = (8, 8, 16, 16, 16)


@pytest.mark.parametrize("size", [(32, 32), (50, 70), (33, 17), (8, 96)])
def test_latent_and_pyramid_shapes_at_any_size(size: tuple[int, int]) -> None:
    height, width = size
    features = CompactEncoder(WIDTHS, 5)(torch.randn(2, 3, height, width))
    assert features.latent.shape == (2, 5, -(-height // 8), -(-width // 8))
    expected = [(2, channels, -(-height // s), -(-width // s)) for channels, s in zip(WIDTHS[:3], (2, 4, 8), strict=True)]
    assert [tuple(level.shape) for level in features.pyramid] == expected


def test_the_latent_sees_the_whole_picture() -> None:
    torch.manual_seed(0)
    encoder = CompactEncoder(WIDTHS, 4)
    image = torch.randn(1, 3, 128, 128)
    changed = image.clone()
    changed[..., :8, :8] += 3.0
    with torch.no_grad():
        assert differ(encoder(changed).latent[..., -1, -1], encoder(image).latent[..., -1, -1])  # the global context reaches the far corner


def test_pictures_of_a_batch_do_not_influence_each_other() -> None:
    torch.manual_seed(0)
    encoder = CompactEncoder(WIDTHS, 4)
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(encoder(images).latent[1:2], encoder(images[1:2]).latent, atol=1e-5, rtol=1e-4)
    assert not list(encoder.buffers())  # no running statistics


def test_default_networks_have_a_few_million_parameters() -> None:
    with torch.device("meta"):
        encoder = CompactEncoder()
        networks = {
            "encoder": encoder,
            "decoder": InterCoderDecoder(encoder.latent_channels, encoder.pyramid_channels, 19),
            "denoiser": Denoiser(encoder.latent_channels),
            "discriminator": DomainDiscriminator(encoder.latent_channels),
        }
        features = encoder(torch.empty(1, 3, 512, 1024))
        logits = networks["decoder"](features.latent, features.pyramid)
    counts = {name: sum(p.numel() for p in network.parameters()) / 1e6 for name, network in networks.items()}
    assert 1 < counts["encoder"] < 6, counts
    assert 0.05 < counts["decoder"] < 1, counts
    assert 0.5 < counts["denoiser"] < 6, counts
    assert 0.2 < counts["discriminator"] < counts["denoiser"], counts
    assert features.latent.shape == (1, 32, 64, 128)
    assert logits.shape == (1, 19, 256, 512)


@pytest.mark.parametrize(("channels", "expected"), [(8, 8), (96, 8), (12, 6), (7, 7), (22, 2), (1, 1), (4, 4)])
def test_num_groups_divides_the_channels(channels: int, expected: int) -> None:
    assert num_groups(channels) == expected
