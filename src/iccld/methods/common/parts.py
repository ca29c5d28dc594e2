"""The parts a method is made of, handed to it by `assembly`: factories of the networks, the label space and how images are seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from iccld.config.views import Views
from iccld.labels import LabelSpace
from iccld.models import Denoiser, DomainDiscriminator, Segmenter
from iccld.predictor import Predictor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet, in 0..1: what pre-trained backbones expect, and as good as any for the others."""


@dataclass(frozen=True)
class Parts:
    """Factories, since students restart and averages need copies; each call gives freshly initialised networks."""

    make_segmenter: Callable[[], Segmenter]
    make_denoiser: Callable[[bool], Denoiser]
    make_discriminator: Callable[[], DomainDiscriminator]
    label_space: LabelSpace
    views: Views
    """How training looks at pictures."""
    crop: tuple[int, int]
    """Height and width of a training crop, pixels."""
    working_size: tuple[int, int]
    """Target images are resized to this area before prediction."""
    latent_channels: int
    latent_stride: int = 8
    """Picture pixels a latent cell covers, per side."""
    size_multiple: int = 16
    """What the sides of a predicted picture are multiples of."""
    class_weight: Tensor | None = None
    """(K,) weights of the classes in the cross-entropy, or None."""
    seed: int = 0

    def predictor(self, network: torch.nn.Module, noise_channels: int = 0) -> Predictor:
        """A predictor around a network of this run."""
        return Predictor(
            network,
            self.label_space,
            working_size=self.working_size,
            size_multiple=self.size_multiple,
            mean=MEAN,
            std=STD,
            noise_channels=noise_channels,
            noise_stride=self.latent_stride,
            seed=self.seed,
        )


def normalise(image: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 -> zero mean and unit variance by `MEAN` and `STD`."""
    mean = torch.tensor(MEAN, device=image.device)[:, None, None]
    std = torch.tensor(STD, device=image.device)[:, None, None]
    return (image - mean) / std
