"""What an encoder hands on: the latent that is diffused, and the pyramid the inter-coder connections read."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """latent: (B, C, H/8, W/8).  pyramid: finest first, level i is (B, C_i, H/2^(i+1), W/2^(i+1)) for strides 2, 4, 8."""

    latent: Tensor
    pyramid: tuple[Tensor, ...]
