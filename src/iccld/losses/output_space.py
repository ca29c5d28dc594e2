"""AdaptSegNet (Tsai et al., CVPR 2018): which domain a map of class probabilities comes from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SOURCE, TARGET = 0.0, 1.0
"""Labels of the two domains, as in the released code; Eq. 2 of the paper has them the other way round."""


def domain_bce(logits: Tensor, domain: float) -> Tensor:
    """Binary cross-entropy of every cell against one domain: (B, 1, h, w) -> () in nats.

    Eq. 2 with each map's own domain trains the discriminator; Eq. 4, the adversarial term, asks target maps to be taken for `SOURCE`.
    log 2 where the discriminator is undecided.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, domain, dtype=torch.float32))
