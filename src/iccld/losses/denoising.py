"""Eq. 6 (and Eq. 4): the squared error of the denoiser's prediction."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def denoising_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over elements of ||target - prediction||^2: (B, C, h, w) twice -> ().  The target is the noise in the paper."""
    return F.mse_loss(prediction.float(), target.float())
