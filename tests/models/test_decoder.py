"""The decoder with and without inter-coder connections."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iccld.models import CompactEncoder, Features, InterCoderDecoder, Segmenter

from ..rounding import differ

PYRAMID = (8, 8, 16)


def features(size: tuple[int, int] = (32, 48), seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, channels, -(-size[0] // s), -(-size[1] // s)) for channels, s in zip((4, *PYRAMID), (8, 2, 4, 8), strict=True)]
    latent, *pyramid = (torch.randn(shape, generator=generator) for shape in shapes)
    return Features(latent, tuple(pyramid))


def decoder(inter_coder: bool) -> InterCoderDecoder:
    torch.manual_seed(0)
    return InterCoderDecoder(4, PYRAMID, 5, width=16, inter_coder=inter_coder)


@pytest.mark.parametrize("inter_coder", [True, False])
def test_logits_are_at_half_resolution(inter_coder: bool) -> None:
    assert decoder(inter_coder)(*features()).shape == (2, 5, 16, 24)


@pytest.mark.parametrize("inter_coder", [True, False])
@pytest.mark.parametrize("size", [(50, 70), (33, 17), (36, 44)])
def test_odd_sizes_are_decoded(inter_coder: bool, size: tuple[int, int]) -> None:
    segmenter = Segmenter(CompactEncoder((8, 8, 16, 16, 16), 4), decoder(inter_coder))
    logits = segmenter(torch.randn(1, 3, *size))
    assert logits.shape == (1, 5, 2 * -(-size[0] // 4), 2 * -(-size[1] // 4))
    assert torch.isfinite(logits).all()


def changed_by(level: int, inter_coder: bool) -> bool:
    latent, pyramid = features()
    other = list(pyramid)
    other[level] = other[level] + 1.0
    network = decoder(inter_coder)
    return differ(network(latent, tuple(other)), network(latent, pyramid), 1e-3 if inter_coder else 0.0)


def test_every_level_of_the_pyramid_reaches_the_logits() -> None:
    assert [changed_by(level, True) for level in range(3)] == [True, True, True]


def test_without_connections_the_pyramid_changes_nothing() -> None:
    assert [changed_by(level, False) for level in range(3)] == [False, False, False]


@pytest.mark.parametrize("inter_coder", [True, False])
def test_the_latent_reaches_the_logits(inter_coder: bool) -> None:
    latent, pyramid = features()
    network = decoder(inter_coder)
    assert differ(network(latent + 1, pyramid), network(latent, pyramid))


def test_without_connections_the_decoder_is_narrower() -> None:
    def count(network: InterCoderDecoder) -> int:
        return sum(p.numel() for p in network.parameters())

    wide, narrow = decoder(True), decoder(False)
    assert count(narrow) < count(wide)
    shapes_wide, shapes_narrow = ({name: tuple(p.shape) for name, p in network.named_parameters()} for network in (wide, narrow))
    assert not any(name.startswith("connect") for name in shapes_narrow)
    assert shapes_wide["level4.0.weight"] == (16, 32, 3, 3)
    assert shapes_narrow["level4.0.weight"] == (16, 16, 3, 3)
    assert shapes_wide["level8.block.conv1.weight"] == (16, 20, 3, 3)
    assert shapes_narrow["level8.block.conv1.weight"] == (16, 4, 3, 3)


def test_classifier_weight_is_the_last_layer() -> None:
    network = decoder(True)
    latent, pyramid = features()
    torch.nn.init.zeros_(network.classifier_weight())
    torch.nn.init.zeros_(network.classify.bias)
    logits: Tensor = network(latent, pyramid)
    assert float(logits.abs().max()) == 0.0
    assert network.classifier_weight().shape == (4 * 5, 16, 1, 1)
