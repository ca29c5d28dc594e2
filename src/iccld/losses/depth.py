"""Depth losses: the reverse Huber loss (Laina et al., 3DV 2016, Eq. 1) as CorDA uses it."""

from __future__ import annotations

import torch
from torch import Tensor


def berhu(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Mean of |x| up to c and (x^2 + c^2) / 2c above, with c a fifth of the largest |x| at hand: three (B, h, w), valid bool -> ().

    c takes no gradient.  0 where nothing is valid.
    """
    error = (prediction.float() - truth.float()).abs()[valid]  # (n,)
    if error.numel() == 0:
        return prediction.float().sum() * 0
    turn = (0.2 * error.detach().max()).clamp(min=1e-6)
    return torch.where(error <= turn, error, (error.square() + turn.square()) / (2 * turn)).mean()
