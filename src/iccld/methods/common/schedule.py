"""Learning-rate schedules, as factors of the optimiser's own rate."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LambdaLR


def warmup_poly_factor(iteration: int, iterations: int, warmup: int, power: float = 1.0) -> float:
    """Factor of the learning rate at iteration 0, 1, ..., iterations - 1.

    Rises linearly, (i + 1) / (warmup + 1), over the first `warmup` iterations; from there falls as
    (1 - (i - warmup) / (iterations - warmup)) ** power, which starts at 1 and would reach 0 at `iterations`.
    Differs from DAFormer's mmcv hook, whose decay counts from iteration 0: here the peak is the rate that was asked for.
    """
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    remaining = 1.0 - (iteration - warmup) / max(iterations - warmup, 1)
    return float(max(remaining, 0.0) ** power)


def warmup_poly(optimizer: torch.optim.Optimizer, iterations: int, warmup: int, power: float = 1.0) -> LambdaLR:
    """A schedule over `iterations` steps, `warmup` of them rising (see `warmup_poly_factor`)."""
    if not 0 <= warmup <= iterations:
        raise ValueError(f"warm-up must lie between 0 and the {iterations} iterations, got {warmup}")
    return LambdaLR(optimizer, lambda iteration: warmup_poly_factor(iteration, iterations, warmup, power))


def epoch_decay(optimizer: torch.optim.Optimizer, epoch_iterations: int, factor: float = 0.99, epochs: int = 5) -> LambdaLR:
    """The rate times `factor` after every `epochs` epochs of `epoch_iterations` iterations each, without warm-up (paper, section 4)."""
    if epoch_iterations < 1:
        raise ValueError(f"an epoch has at least one iteration, got {epoch_iterations}")
    return LambdaLR(optimizer, lambda iteration: factor ** (iteration // (epochs * epoch_iterations)))
