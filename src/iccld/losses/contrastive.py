"""CLUDA's supervised contrastive loss over pixels (Vayyat et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from iccld.labels import IGNORE

PAIRS_AT_ONCE = {"cpu": 2**20, "other": 2**26}
"""Cosines in a matrix by kind of device: 4 MiB stay in a core's cache, where all pairs of two maps of 65 x 65 are 272; a GPU, to which each
chunk costs some forty launches, takes those in two."""


def contrastive(features: Tensor, label: Tensor, weight: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Pixels of a class attract each other, over all pictures of the batch: (B, C, h, w), (B, h, w) int64, (B, h, w) in 0..1 -> ().

    With s the cosine over the temperature, anchor i and each other pixel p of its class give -log(e^s_ip / (e^s_ip + sum_n e^s_in)),
    n over the pixels of other classes; weighted by the product of both weights, averaged over i's class, then over all anchors.
    255 is no class.  Differs from the released code, which flattens features pixel by pixel and labels picture by picture, so that
    with two pictures a feature meets another pixel's label.  The weights get no gradient.
    """
    rows = F.normalize(features.float(), dim=1).permute(0, 2, 3, 1).flatten(0, 2)  # (N, C), N = B h w
    weights = torch.ones_like(rows[:, 0]) if weight is None else weight.flatten().float()
    # By class, so that the pixels of one are neighbours; those without a class come last and are left out.
    classes, order = label.flatten().sort(stable=True)
    counts = torch.bincount(classes, minlength=IGNORE + 1)[:IGNORE].tolist()
    labelled = order[: sum(counts)]
    loss: Tensor = _ClassContrast.apply(rows[labelled], weights[labelled], counts, temperature)  # type: ignore[no-untyped-call]
    return loss / len(rows)


class _ClassContrast(torch.autograd.Function):
    """Unit rows (N, C) ordered by class, weights (N,), pixels of each class -> the sum over anchors, ().  No gradient for the weights.

    The derivative is worked out beside the value, anchors chunk by chunk, since both need the same exponentials.  With E = e^s, Z the sum
    of E over other classes and v = w_i w_p / (pixels of the class - 1), an anchor's loss is the sum of v log(1 + Z / E_p) over its class;
    its derivative by s_p is -v Z / (E_p + Z), and by the s_n of another class E_n times the sum of v / (E_p + Z).
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, counts: list[int], temperature: float) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            needs_gradient = ctx.needs_input_grad[0]
            total, by_rows = rows.new_zeros(()), torch.zeros_like(rows)
            at_once = PAIRS_AT_ONCE["cpu" if rows.device.type == "cpu" else "other"]
            chunk = max(1, at_once // max(1, len(rows)))
            start = 0
            for count in counts:
                stop = start + count
                for first in range(start, stop, chunk):
                    last = min(first + chunk, stop)
                    similarity = (rows[first:last] / temperature) @ rows.T  # (n, N)
                    pairs = weights[first:last, None] * weights[start:stop] / max(1, count - 1)  # (n, count)
                    pairs.diagonal(first - start).zero_()  # no pixel is its own partner
                    total += _anchors(similarity, pairs, start, stop, needs_gradient)
                    if needs_gradient:
                        by_rows[first:last] += similarity @ rows
                        by_rows.addmm_(similarity.T, rows[first:last])
                start = stop
            ctx.save_for_backward(by_rows / temperature)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        (by_rows,) = ctx.saved_tensors
        return gradient * by_rows, None, None, None


def _anchors(similarity: Tensor, pairs: Tensor, start: int, stop: int, needs_gradient: bool) -> Tensor:
    """Loss of anchors whose class is columns start..stop of (n, N); `similarity` becomes its derivative where that is needed."""
    before, own, after = similarity[:, :start], similarity[:, start:stop], similarity[:, stop:]
    others = [part for part in (before, after) if part.shape[1]]
    if not others:  # one class alone costs nothing
        similarity.zero_()
        return similarity.new_zeros(())
    # Relative to the most similar pixel of another class Z is 1 at least, and an E that overflows or vanishes has a finite loss and slope.
    largest = torch.stack([part.amax(1) for part in others]).amax(0)[:, None]
    similarity.sub_(largest)
    for part in others:
        part.exp_()
    negative = torch.stack([part.sum(1) for part in others]).sum(0)[:, None]
    loss = (pairs * F.softplus(negative.log() - own)).sum()
    if needs_gradient:
        own.exp_()
        share = pairs / (own + negative)
        of_others = share.sum(1, keepdim=True)
        for part in others:
            part.mul_(of_others)
        own.copy_(share.mul_(-negative))
    return loss
