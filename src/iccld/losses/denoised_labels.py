"""ProDA's losses (Zhang et al., CVPR 2021): prototypes that correct soft labels, and losses that bear wrong ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.labels import IGNORE

UNLIKELY = 1e-4
"""What the labels' zeros are raised to before the logarithm of the reverse cross-entropy."""


def prototype_distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """Euclidean distance of each pixel's feature to each class's prototype: (B, C, h, w), (K, C) -> (B, K, h, w)."""
    batch, channels, height, width = features.shape
    rows = features.float().permute(0, 2, 3, 1).reshape(-1, channels)
    return torch.cdist(rows, prototypes.float()).view(batch, height, width, -1).permute(0, 3, 1, 2)


def prototype_weights(distances: Tensor, temperature: float = 1.0) -> Tensor:
    """softmax over classes of -(distance - smallest distance) / temperature: (B, K, h, w) -> (B, K, h, w) (Eq. 5)."""
    nearest = distances.amin(1, keepdim=True)
    return (-(distances - nearest) / temperature).softmax(1)


def rectified_label(weights: Tensor, probability: Tensor, threshold: float = 0.0) -> Tensor:
    """argmax of weight times fixed soft label (Eq. 4), 255 where the rectified probability is below the threshold: -> (B, h, w) int64."""
    rectified = weights * probability
    confidence, label = (rectified / rectified.sum(1, keepdim=True).clamp(min=1e-12)).max(1)
    return torch.where(confidence >= threshold, label, IGNORE)


def symmetric_cross_entropy(logits: Tensor, label: Tensor, forward: float = 0.1, backward: float = 1.0) -> Tensor:
    """forward * CE(p, y) + backward * CE(y, p) over the labelled pixels (Eq. 9; Wang et al. 2019): (B, K, h, w), (B, h, w) -> ()."""
    is_labelled = (label != IGNORE).float()
    count = is_labelled.sum().clamp(min=1)
    cross_entropy = F.cross_entropy(logits.float(), label, ignore_index=IGNORE, reduction="sum") / count
    p = logits.float().softmax(1)  # (B, K, h, w)
    likely = p.gather(1, torch.where(label == IGNORE, 0, label)[:, None])[:, 0]  # p of the label
    # log of the raised one-hot: 0 at the label, log(UNLIKELY) elsewhere.
    reverse = -(1 - likely) * torch.log(torch.tensor(UNLIKELY, device=p.device))
    total: Tensor = forward * cross_entropy + backward * (reverse * is_labelled).sum() / count
    return total


def evenness(logits: Tensor) -> Tensor:
    """Mean of -log p over pixels and classes, the KLD to the uniform distribution plus log K (CRST's MRKLD; Eq. 10): -> ()."""
    return -logits.float().log_softmax(1).mean()


def assignment_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of the softmax of -distance / temperature, mean over pixels (Eq. 8): twice (B, K, h, w) -> ()."""
    p = (-teacher / temperature).softmax(1)
    log_q = (-student / temperature).log_softmax(1)
    return F.kl_div(log_q, p, reduction="none").sum(1).mean()


def distillation(teacher: Tensor, student: Tensor, *, takes_logarithm: bool = False) -> Tensor:
    """KL(teacher || student) of two maps of logits (Eq. 11), mean over pixels and classes: twice (B, K, h, w) -> ().

    takes_logarithm=False is the released code, which hands the student's probabilities to a function that expects their logarithms.
    """
    p, q = teacher.float().softmax(1), student.float()
    return F.kl_div(q.log_softmax(1) if takes_logarithm else q.softmax(1), p, reduction="none").mean()
