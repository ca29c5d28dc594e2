"""DeepLabV2 on ResNet-101 (Chen et al., TPAMI 2018), as AdaptSegNet, CBST, DACS, CorDA, BAPA-Net and ProDA use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import torch.nn.functional as F
from torch import Tensor, nn

from iccld.errors import ConfigError
from iccld.models.atrous import RATES, AtrousClassifier
from iccld.models.backbone import Backbone, crop_level
from iccld.models.decoder import Decoder
from iccld.models.features import Features

STRIDE = 8


def resnet101(recompute: bool = False) -> Backbone:
    """ResNet-101 with random weights and the stride in each stage's first 1x1 convolution, as DeepLab's Caffe network has it.

    recompute: keep no activation of it for the backward pass.
    """
    from transformers import ResNetConfig
    from transformers.models.resnet.modeling_resnet import ResNetBackbone

    config: Any = ResNetConfig(depths=[3, 4, 23, 3], downsample_in_bottleneck=True, out_indices=[1, 2, 3, 4])
    return Backbone(ResNetBackbone(config), {4: 256, 8: 512, 16: 1024, 32: 2048}, recompute)


class DeepLabEncoder(nn.Module):
    """ResNet whose last two stages are dilated by 2 and 4 instead of strided: (B, 3, H, W) normalised -> `Features`.

    The latent is the last stage, (B, 2048, H/8, W/8); the pyramid holds the others, at strides 4, 8 and 8.  Scale and shift of the batch
    norms stand still while their statistics follow the batches, as in the released code of all these methods.
    Differs from the Caffe network: the picture is normalised by mean and deviation, and the first pooling rounds down.
    """

    stride = STRIDE

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        stages = getattr(getattr(backbone.model, "encoder", None), "stages", None)
        if stages is None or len(stages) != 4:
            raise ConfigError("network.encoder is no ResNet of four stages; the deeplabv2 preset takes e.g. microsoft/resnet-101")
        _dilate(stages[2], 2)
        _dilate(stages[3], 4)
        self.backbone = backbone
        self.pyramid_channels = tuple(backbone.channels[:-1])
        self.latent_channels = backbone.channels[-1]
        self.train()

    def forward(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        quarter, *eighths = self.backbone(padded)
        *pyramid, latent = (crop_level(level, height, width, STRIDE) for level in eighths)
        return Features(latent, (crop_level(quarter, height, width, 4), *pyramid))

    def train(self, mode: bool = True) -> Self:
        """Freezes the norms' scale and shift again: a stage that takes a network over makes all of it trainable first."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        return super().train(mode)


class AtrousDecoder(Decoder):
    """DeepLabV2's classifier on the last stage, its answer enlarged to the picture: (B, C, H/8, W/8) -> (B, K, H, W)."""

    def __init__(self, channels: int, num_classes: int, rates: Sequence[int] = RATES) -> None:
        super().__init__()
        self.feature_channels = channels
        self.num_classes = num_classes
        self.classify = AtrousClassifier(channels, num_classes, tuple(rates))

    def features(self, latent: Tensor, pyramid: tuple[Tensor, ...]) -> Tensor:
        return latent

    def logits(self, features: Tensor) -> Tensor:
        coarse = cast(Tensor, self.classify(features))
        return F.interpolate(coarse, scale_factor=STRIDE, mode="bilinear", align_corners=False)


def _dilate(stage: nn.Module, rate: int) -> None:
    """Strides of a ResNet stage -> 1, its 3x3 convolutions dilated by `rate`."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation, module.padding = (rate, rate), (rate, rate)
