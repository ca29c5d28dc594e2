"""Presets: every one that a configuration may name is built, and tells the predictor what it needs."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from iccld.assembly.networks import BUILDERS, build_networks
from iccld.config import NetworkConfig, dump_config, load_config
from iccld.config.network import PRESETS
from iccld.errors import ConfigError


def test_every_preset_has_a_builder() -> None:
    assert sorted(PRESETS) == sorted(BUILDERS)


def test_sizes_left_open_are_the_presets_and_told_in_full() -> None:
    assert NetworkConfig().widths == (24, 48, 96, 160, 224)
    config = load_config("demo_scratch", ["--network.decoder_width", "48"])
    assert (config.network.decoder_width, config.network.latent_channels) == (48, 32)
    assert "denoiser_widths:\n  - 64\n  - 96\n  - 128\n" in dump_config(config)


def test_the_compact_networks_are_what_they_were() -> None:
    """Names, shapes and order of every parameter: older runs load."""
    torch.manual_seed(0)
    networks = build_networks(NetworkConfig(), 19)
    made = (networks.make_segmenter(), networks.make_denoiser(True), networks.make_discriminator())
    entries = [(name, tensor) for network in made for name, tensor in network.state_dict().items()]
    shapes = "".join(f"{name}{tuple(tensor.shape)}" for name, tensor in entries)
    assert hashlib.sha256(shapes.encode()).hexdigest()[:16] == "9c29d8194d961086"
    assert sum(tensor.numel() for _, tensor in entries) == 9_819_383
    assert (networks.latent_channels, networks.latent_stride, networks.size_multiple) == (32, 8, 16)


@pytest.mark.parametrize("width", [2, 3, 15, 17])
@pytest.mark.parametrize("inter_coder", [True, False])
def test_odd_widths_are_built(width: int, inter_coder: bool) -> None:
    network = NetworkConfig(widths=(7, 9, 11, 13, 15), decoder_width=width, latent_channels=5, inter_coder=inter_coder)
    segmenter = build_networks(network, 3).make_segmenter()
    assert segmenter(torch.randn(1, 3, 32, 48)).shape == (1, 3, 16, 24)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"latent_stride": 2}, "ldm preset has 4, 8, 16"),
        ({"widths": (32, 64)}, "at latent_stride 8 has 4"),
        ({"widths": (32, 32, 64, 72)}, "multiples of 32"),
        ({"denoiser_widths": (40, 64)}, "multiples of 32"),
        ({"widths": (32, 32, 32, 96)}, "a 32nd of the second"),
        ({"decoder_width": 64}, "use 0"),
    ],
)
def test_fault_39_sizes_that_ldms_networks_cannot_have_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        NetworkConfig(preset="ldm", **settings)


def test_another_preset_fills_in_its_own_sizes() -> None:
    open_sizes = ["--network.widths", "[]", "--network.decoder_width", "0"]
    config = load_config("demo_scratch", ["--network.preset", "ldm", "--network.latent_stride", "4", *open_sizes])
    assert (config.network.widths, config.network.latent_channels) == ((128, 256, 512), 3)
