"""Distances between the class prototypes of two domains."""

from __future__ import annotations

from torch import Tensor


def prototype_distance(one: Tensor, other: Tensor, present: Tensor) -> Tensor:
    """Mean squared Euclidean distance over the classes that both have: (K, C), (K, C), (K,) bool -> (); 0 where there is none."""
    distance = (one.float() - other.float()).square().sum(1)  # (K,)
    return (distance * present).sum() / present.sum().clamp(min=1)
