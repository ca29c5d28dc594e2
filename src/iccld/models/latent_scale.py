"""Per-channel mean and standard deviation of the latent, measured over all three domains (docs/readings.md, row 14)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LatentScale(nn.Module):
    """Maps latents to zero mean and unit variance per channel and back; the statistics are buffers, stored with the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @torch.no_grad()
    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take (C,) means and standard deviations.  A constant channel keeps standard deviation 1."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def normalise(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) encoder latent -> unit variance."""
        return (latent - self.mean[:, None, None]) / self.std[:, None, None]

    def restore(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) unit-variance latent -> the decoder's scale."""
        return latent * self.std[:, None, None] + self.mean[:, None, None]
