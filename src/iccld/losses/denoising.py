"""Eq. 6 (and Eq. 4): the squared error of the denoiser's prediction, and how far its clean latent is from the one it was given."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def denoising_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over elements of ||target - prediction||^2: (B, C, h, w) twice -> ().  The target is the noise in the paper."""
    return F.mse_loss(prediction.float(), target.float())


def relative_gap(clean: Tensor, latent: Tensor) -> Tensor:
    """`identity_gap`, ||z0_pred - z0|| / ||z0|| : (B, C, h, w) twice -> ().  Near 0, step 2 does nothing."""
    gap: Tensor = (clean - latent).norm() / latent.norm().clamp(min=1e-8)
    return gap
