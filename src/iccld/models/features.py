"""What an encoder hands on: the latent that is diffused, and the pyramid the inter-coder connections read."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """latent: (B, C, H/s, W/s) at the network's stride s.  pyramid: finest first, one level a stride, each rounded up: 2, 4, 8 for the
    compact networks, 1, 2, ... s for LDM's."""

    latent: Tensor
    pyramid: tuple[Tensor, ...]
