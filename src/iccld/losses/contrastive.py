"""CLUDA's supervised contrastive loss over pixels (Vayyat et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.labels import IGNORE


def contrastive(features: Tensor, label: Tensor, weight: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Pixels of a class attract each other, over all pictures of the batch: (B, C, h, w), (B, h, w) int64, (B, h, w) in 0..1 -> ().

    With s the cosine over the temperature, anchor i and each other pixel p of its class give -log(e^s_ip / (e^s_ip + sum_n e^s_in)),
    n over the pixels of other classes; weighted by the product of both weights, averaged over i's class, then over all anchors.
    255 is no class.  Differs from the released code, which flattens features pixel by pixel and labels picture by picture, so that
    with two pictures a feature meets another pixel's label.
    """
    rows = F.normalize(features.float(), dim=1).permute(0, 2, 3, 1).flatten(0, 2)  # (N, C), N = B h w
    classes = label.flatten()
    similarity = rows @ rows.T / temperature  # (N, N)
    is_labelled = classes != IGNORE
    same = (classes[:, None] == classes) & is_labelled
    others = (classes[:, None] != classes) & is_labelled
    positives = same & ~torch.eye(len(classes), dtype=torch.bool, device=same.device)
    negative = similarity.masked_fill(~others, -torch.inf).logsumexp(1, keepdim=True)  # (N, 1); -inf where there is no other class
    log_p = similarity - torch.logaddexp(similarity, negative)
    pairs = positives.float()
    if weight is not None:
        pairs = pairs * torch.outer(weight.flatten(), weight.flatten())
    return -((pairs * log_p).sum(1) / positives.sum(1).clamp(min=1)).mean()
