"""A saved AutoencoderKL -> encoder and decoder that compute what it computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from iccld.assembly.networks import build_networks
from iccld.config import NetworkConfig
from iccld.errors import ConfigError
from iccld.methods.common.parts import normalise

from ..rounding import differ

WIDTHS = (32, 32, 64, 64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    autoencoder().save_pretrained(folder)
    return folder


def autoencoder(**settings: object) -> AutoencoderKL:
    torch.manual_seed(3)
    sizes = {"block_out_channels": WIDTHS, "layers_per_block": 2, "latent_channels": 4} | settings
    return AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **sizes).eval()


def segmenter(folder: Path, **settings: object):
    torch.manual_seed(0)
    network = NetworkConfig(preset="ldm", widths=WIDTHS, denoiser_widths=(32, 64), autoencoder=str(folder), **settings)  # type: ignore[arg-type]
    return build_networks(network, 5).make_segmenter().eval()


@torch.no_grad()
@pytest.mark.parametrize("settings", [{"inter_coder": True}, {"inter_coder": False}, {"inter_coder_at": "block"}], ids=str)
def test_latent_and_decoder_features_are_the_autoencoders(saved: Path, settings: dict[str, object]) -> None:
    """Before training, concatenated levels change nothing: their weights are zero and their norms have groups of their own."""
    made, reference, image = segmenter(saved, **settings), autoencoder(), torch.rand(2, 3, 24, 32)
    features = made.encoder(normalise(image))
    latent = reference.encode(2 * image - 1).latent_dist.mean
    torch.testing.assert_close(features.latent, latent, atol=1e-5, rtol=1e-5)
    seen: list[torch.Tensor] = []
    reference.decoder.conv_out.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    reference.decode(latent)
    # 30 convolutions deep, and wider ones sum in another order.
    torch.testing.assert_close(made.decoder.features(latent, features.pyramid), seen[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_autoencoder_without_quant_convolutions_loads_too(tmp_path: Path) -> None:
    reference = autoencoder(use_quant_conv=False, use_post_quant_conv=False)
    reference.save_pretrained(tmp_path / "vae")  # as a part of a pipeline
    made, image = segmenter(tmp_path), torch.rand(1, 3, 16, 16)
    latent = reference.encode(2 * image - 1).latent_dist.mean
    torch.testing.assert_close(made.encoder(normalise(image)).latent, latent, atol=1e-5, rtol=1e-5)
    assert torch.equal(made.decoder.post_quant_conv(latent), latent)


def test_the_encoder_alone_leaves_the_decoder_random(saved: Path) -> None:
    both, encoder_alone = segmenter(saved), segmenter(saved, autoencoder_decoder=False)
    weights = autoencoder().decoder.conv_in.weight
    assert torch.equal(both.decoder.conv_in.weight, weights)
    assert differ(encoder_alone.decoder.conv_in.weight, weights)
    assert torch.equal(both.encoder.body.conv_in.weight, encoder_alone.encoder.body.conv_in.weight)


def test_a_concatenated_level_learns_from_the_first_step(saved: Path) -> None:
    made = segmenter(saved)
    made(torch.randn(1, 3, 16, 16)).square().mean().backward()
    for block in made.decoder.up_blocks:
        gradient = block.resnets[0].conv1.weight.grad.abs()
        assert float(gradient[:, -32:].max()) > 1e-3 * float(gradient.max())


def test_another_geometry_is_refused_with_both_sizes(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"latent_channels 4, network asks for 8"):
        segmenter(saved, latent_channels=8)
    with pytest.raises(ConfigError, match=r"no readable config.json"):
        segmenter(tmp_path)
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    with pytest.raises(ConfigError, match=r"cannot read the weights"):
        segmenter(tmp_path)
