"""DAFormer's network at its real size, without memory, and at a tiny one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import SegformerConfig

from iccld.assembly.networks import build_networks
from iccld.config import NetworkConfig
from iccld.errors import ConfigError
from iccld.methods.common.two_resolutions import two_resolutions
from iccld.models.backbone import load_backbone
from iccld.models.context_aware import ContextAwareDecoder, PyramidEncoder
from iccld.models.segmenter import Segmenter


def mit(folder: Path, widths: tuple[int, ...], depths: tuple[int, ...], heads: tuple[int, ...]) -> Path:
    """A SegFormer configuration without weights."""
    SegformerConfig(hidden_sizes=list(widths), depths=list(depths), num_attention_heads=list(heads)).save_pretrained(folder)
    return folder


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


EMBEDDED = 1024 * 256 + 4 * 256
"""Four levels of MiT-B5 to 256 channels, with bias."""


def test_the_head_has_the_published_size() -> None:
    """3.7 million, counted by hand."""
    with torch.device("meta"):
        decoder = ContextAwareDecoder((64, 128, 320, 512), 19)
        pyramid = tuple(torch.zeros(1, width, 128 >> i, 128 >> i) for i, width in enumerate((64, 128, 320)))
        assert decoder(torch.zeros(1, 512, 16, 16), pyramid).shape == (1, 19, 128, 128)
        assert decoder.features(torch.zeros(1, 512, 16, 16), pyramid).shape == (1, 256, 128, 128)
    branches = (1024 * 256 + 512) + 3 * (1024 * 9 + 2 * 1024 + 1024 * 256 + 512)
    assert parameters(decoder) == EMBEDDED + branches + (1024 * 256 * 9 + 512) + 256 * 19 + 19 == 3_712_275


@pytest.mark.slow
def test_mit_b5_has_the_published_size_and_hrda_adds_its_attention(tmp_path: Path) -> None:
    """81.4 million (SegFormer, Table 1)."""
    mit(tmp_path, (64, 128, 320, 512), (3, 6, 40, 3), (1, 2, 5, 8))
    with torch.device("meta"):
        encoder = PyramidEncoder(load_backbone(tmp_path, pretrained=False))
        features = encoder(torch.zeros(1, 3, 512, 512))
        assert [tuple(level.shape) for level in features.pyramid] == [(1, 64, 128, 128), (1, 128, 64, 64), (1, 320, 32, 32)]
        assert features.latent.shape == (1, 512, 16, 16)
        segmenter = Segmenter(encoder, ContextAwareDecoder((64, 128, 320, 512), 19))
        hrda = two_resolutions(segmenter, (1024, 1024), 256)
    assert parameters(encoder) / 1e6 == pytest.approx(81.4, abs=0.1)
    assert hrda.detail == (512, 512)
    assert parameters(hrda) == parameters(segmenter) + EMBEDDED + 1024 * 256 + 512 + 256 * 19 + 19


def test_branches_dilate_depth_wise_by_1_6_12_and_18() -> None:
    decoder = ContextAwareDecoder((8, 8, 8, 8), 3, width=4)
    first = [module for module in decoder.branches[0].modules() if isinstance(module, torch.nn.Conv2d)]
    assert [(c.kernel_size, c.groups) for c in first] == [((1, 1), 1)]
    for branch, rate in zip(list(decoder.branches)[1:], (6, 12, 18), strict=True):
        depth_wise, point_wise = [module for module in branch.modules() if isinstance(module, torch.nn.Conv2d)]
        assert (depth_wise.kernel_size, depth_wise.dilation, depth_wise.groups) == ((3, 3), (rate, rate), 16)
        assert point_wise.kernel_size == (1, 1)


def test_the_preset_builds_on_a_backbone_of_any_width(tmp_path: Path) -> None:
    folder = mit(tmp_path / "encoder", (8, 16, 24, 32), (1, 1, 1, 1), (1, 2, 3, 4))
    network = NetworkConfig(preset="daformer", encoder=str(folder), latent_stride=32, widths=(8, 16, 24, 32), decoder_width=16)
    assert network.latent_channels == 32
    segmenter = build_networks(network, 5, run=tmp_path).make_segmenter()
    assert segmenter(torch.randn(2, 3, 50, 70)).shape == (2, 5, 13, 18)
    wrong = NetworkConfig(preset="daformer", encoder=str(folder), latent_stride=32)
    with pytest.raises(ConfigError, match=r"network.widths is \[64, 128, 320, 512\], but .* has \[8, 16, 24, 32\]"):
        build_networks(wrong, 5, run=tmp_path).make_segmenter()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "needs a backbone"),
        ({"encoder": "x"}, "has 32"),
        ({"encoder": "x", "latent_stride": 32, "widths": (8, 8)}, "has 4, at strides"),
    ],
)
def test_fault_39_what_the_preset_cannot_have_is_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        NetworkConfig(preset="daformer", **settings)  # type: ignore[arg-type]
