"""Pseudo-labels and their weights: pure functions that several methods spell out their steps with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PseudoLabel(NamedTuple):
    """label: (B, h, w) int64.  confidence: (B, h, w) float32 in 0..1, the largest class probability.  entropy: () nats."""

    label: Tensor
    confidence: Tensor
    entropy: Tensor


def pseudo_label(logits: Tensor) -> PseudoLabel:
    """Most probable class, its probability, and the mean entropy: (B, K, h, w) -> `PseudoLabel`."""
    log_p = logits.float().log_softmax(1)
    p = log_p.exp()
    confidence, label = p.max(1)
    return PseudoLabel(label, confidence, -(p * log_p).sum(1).mean())


def confident_share(confidence: Tensor, threshold: float) -> Tensor:
    """(B, h, w) -> (B,): share of each image's pixels whose confidence reaches the threshold.

    Differs from DACS, which takes the share over the whole batch: an image's weight then does not depend on its neighbours, and
    the loss is the same however a batch is split over processes.  The batch's share is the mean of this.
    """
    return (confidence >= threshold).float().mean((1, 2))


def pseudo_label_weight(confidence: Tensor, threshold: float, kind: str) -> Tensor:
    """(B, h, w) -> (B, h, w) in 0..1: what each pseudo-label counts in the loss.

    kind: "share", every pixel its image's `confident_share` (DACS, DAFormer); "pixel", 1 where the confidence reaches the threshold and
    0 elsewhere (as FixMatch does for images); "one", 1 everywhere (Eq. 5 as printed).
    """
    if kind == "share":
        return confident_share(confidence, threshold)[:, None, None].expand_as(confidence)
    return (confidence >= threshold).float() if kind == "pixel" else torch.ones_like(confidence)


def class_histogram(label: Tensor, num_classes: int) -> Tensor:
    """(B, h, w) int64 -> (K,) float32: share of each class among the labels, 255 left out."""
    counts = torch.bincount(label.flatten(), minlength=num_classes)[:num_classes].float()
    return counts / counts.sum().clamp(min=1)


def label_statistics(pseudo: PseudoLabel, share: Tensor, num_classes: int) -> dict[str, Tensor]:
    """What is logged of pseudo-labels beside the losses: the share that counts (), how often each class (K,), and the entropy ()."""
    histogram = class_histogram(pseudo.label, num_classes)
    return {"pseudo_label_share": share, "pseudo_label_histogram": histogram, "entropy": pseudo.entropy}
