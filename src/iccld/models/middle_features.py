"""What the denoiser thinks half-way: its middle features, and a discriminator for them (docs/readings.md, row 7)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from iccld.models.blocks import ConvNormAct
from iccld.models.denoiser import Denoiser, DomainDiscriminator


def middle_channels(denoiser: Denoiser) -> int:
    """Channels of the middle features: the width of the UNet's coarsest level."""
    return denoiser.middle_channels


def denoise_with_middle(denoiser: Denoiser, noised: Tensor, timestep: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """The denoiser's output and its middle features of the same pass: -> (B, C, h, w), (B, W, h/2^k, w/2^k)."""
    seen: list[Tensor] = []
    handle = denoiser.unet.mid_block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        output = cast(Tensor, denoiser(noised, timestep, condition))
    finally:
        handle.remove()
    return output, seen[0]


class FeatureDiscriminator(nn.Module):
    """f_dis where it sees middle features: (B, W, h', w'), (B,) int64 -> (B, 3) logits in the order source, mixed, target.

    The features are what the UNet's encoder half makes of its input, timestep included, so a convolution and the classifier remain.
    """

    num_domains = DomainDiscriminator.num_domains

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = ConvNormAct(channels, channels)
        self.classify = nn.Linear(channels, self.num_domains)

    def forward(self, features: Tensor, timestep: Tensor) -> Tensor:
        x = self.mix(features)  # (B, W, h', w')
        return cast(Tensor, self.classify(x.mean((2, 3))))
