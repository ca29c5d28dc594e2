"""Eq. 7: name the domain of a prediction (discriminator), leave the discriminator undecided (denoiser)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def domain_cross_entropy(logits: Tensor, domain: Tensor) -> Tensor:
    """First term of Eq. 7, minimised by the discriminator: (B, 3), (B,) int64 -> () in nats."""
    return F.cross_entropy(logits.float(), domain)


def confusion_to_uniform(logits: Tensor) -> Tensor:
    """Second term of Eq. 7, D_KL(p || U): (B, 3) -> () in nats.  0 at equal logits, log 3 where one domain is certain."""
    log_p = F.log_softmax(logits.float(), 1)
    return (log_p.exp() * (log_p + math.log(logits.shape[1]))).sum(1).mean()
