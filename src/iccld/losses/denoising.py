"""Eq. 6 (and Eq. 4): the squared error of the denoiser's prediction, and how far its clean latent is from the one it was given."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def denoising_error(prediction: Tensor, target: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean over elements of ||target - prediction||^2: (B, C, h, w) twice -> ().  The target is the noise in the paper.

    where: (B, 1, h, w), 1 on the cells that count and 0 elsewhere; the mean of each picture's mean over its own, 0 where it has none.
    """
    if where is None:
        return F.mse_loss(prediction.float(), target.float())
    squared = (prediction.float() - target.float()).square().mean(1, keepdim=True)
    each: Tensor = (squared * where).sum((1, 2, 3)) / where.sum((1, 2, 3)).clamp(min=1)
    return each.mean()


def relative_gap(clean: Tensor, latent: Tensor) -> Tensor:
    """`identity_gap`, ||z0_pred - z0|| / ||z0|| : (B, C, h, w) twice -> ().  Near 0, step 2 does nothing."""
    gap: Tensor = (clean - latent).norm() / latent.norm().clamp(min=1e-8)
    return gap
