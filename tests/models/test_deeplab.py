"""DeepLabV2-ResNet-101: published size and strides on meta, dilation, and norms that stand still."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import ResNetConfig
from transformers.models.resnet.modeling_resnet import ResNetBackbone

from iccld.errors import ConfigError
from iccld.models import AtrousDecoder, DeepLabEncoder, Segmenter
from iccld.models.backbone import Backbone
from iccld.models.deeplab import resnet101


def small() -> DeepLabEncoder:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 2, 1], out_indices=[1, 2, 3, 4])
    torch.manual_seed(0)
    return DeepLabEncoder(Backbone(ResNetBackbone(config), {4: 8, 8: 16, 16: 16, 32: 32}))


def test_published_size_and_strides() -> None:
    with torch.device("meta"):
        encoder = DeepLabEncoder(resnet101())
        segmenter = Segmenter(encoder, AtrousDecoder(encoder.latent_channels, 19))
        features = encoder(torch.empty(1, 3, 512, 512))
        assert segmenter(torch.empty(1, 3, 512, 512)).shape == (1, 19, 512, 512)
    assert [tuple(level.shape[1:]) for level in (*features.pyramid, features.latent)] == [
        (256, 128, 128),
        (512, 64, 64),
        (1024, 64, 64),
        (2048, 64, 64),
    ]
    # ResNet-101 has 44,549,160 parameters, 2,049,000 of them in the classifier of ImageNet's 1,000 classes.
    assert sum(p.numel() for p in encoder.parameters()) == 44_549_160 - 2_049_000
    assert sum(p.numel() for p in segmenter.decoder.parameters()) == 2 * (9 * 2048 * 19 + 19)


def test_the_last_two_stages_are_dilated_by_2_and_4() -> None:
    stages = small().backbone.model.encoder.stages  # type: ignore[union-attr]
    rates = [{m.dilation for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)} for stage in stages]
    assert rates == [{(1, 1)}, {(1, 1)}, {(2, 2)}, {(4, 4)}]
    assert {m.stride for stage in stages[2:] for m in stage.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}


def test_pictures_of_any_size() -> None:
    encoder = small()
    with torch.no_grad():
        features = encoder(torch.randn(1, 3, 41, 59))
    assert [tuple(level.shape[-2:]) for level in (*features.pyramid, features.latent)] == [(11, 15), (6, 8), (6, 8), (6, 8)]


def test_norms_stand_still_and_their_statistics_follow() -> None:
    segmenter = Segmenter(small(), AtrousDecoder(32, 3))
    segmenter.requires_grad_(True).train()  # as a stage does that takes a network over
    norms = [m for m in segmenter.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
    assert all(p.requires_grad for name, p in segmenter.named_parameters() if "normalization" not in name)
    before = norms[0].running_mean.clone()  # type: ignore[union-attr]
    segmenter(torch.randn(2, 3, 32, 32))
    assert not torch.equal(norms[0].running_mean, before)  # type: ignore[arg-type]


def test_the_paper_adds_up_four_rates() -> None:
    released, paper = AtrousDecoder(4, 2), AtrousDecoder(4, 2, (6, 12, 18, 24))
    assert [len(decoder.classify.branches) for decoder in (released, paper)] == [2, 4]
    with torch.no_grad():
        assert paper.logits(torch.randn(1, 4, 5, 6)).shape == (1, 2, 40, 48)


def test_a_backbone_that_is_no_resnet_is_refused() -> None:
    with pytest.raises(ConfigError, match="no ResNet of four stages"):
        DeepLabEncoder(Backbone(nn.Identity(), {4: 8, 8: 8, 16: 8, 32: 8}))
