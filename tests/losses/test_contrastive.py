"""The supervised contrastive loss against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from iccld.losses import contrastive


def maps(vectors: list[list[float]], classes: list[int]) -> tuple[Tensor, Tensor]:
    """Pixels in one row: (1, C, 1, N) and (1, 1, N)."""
    return torch.tensor(vectors).T[None, :, None, :].contiguous(), torch.tensor(classes)[None, None, :]


def test_two_of_a_class_and_one_of_another() -> None:
    """Anchors 0 and 1 meet each other at cosine 1 and pixel 2 at cosine 0; pixel 2 has no partner and counts 0."""
    features, label = maps([[3.0, 0.0], [0.5, 0.0], [0.0, 2.0]], [0, 0, 1])
    pair = math.log(1 + math.exp(0.0 - 1.0))
    assert float(contrastive(features, label)) == pytest.approx(2 * pair / 3)
    sharp = math.log(1 + math.exp((0.0 - 1.0) / 0.5))
    assert float(contrastive(features, label, temperature=0.5)) == pytest.approx(2 * sharp / 3)


def test_pairs_weigh_the_product_of_their_weights() -> None:
    features, label = maps([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 0, 1])
    weight = torch.tensor([[[0.5, 0.2, 1.0]]])
    assert float(contrastive(features, label, weight)) == pytest.approx(0.1 * float(contrastive(features, label)))


def test_unlabelled_pixels_neither_attract_nor_repel() -> None:
    features, label = maps([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [0, 0, 1])
    more, labels = maps([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.3, 0.9], [1.0, 0.0]], [0, 0, 1, 255, 255])
    assert float(contrastive(more, labels)) == pytest.approx(float(contrastive(features, label)) * 3 / 5)


def test_pixels_of_other_pictures_of_the_batch_count() -> None:
    features, label = maps([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [1.0, 1.0]], [0, 1, 0, 1])
    apart = features.view(1, 2, 2, 2).permute(2, 1, 0, 3).contiguous(), label.view(2, 1, 2)
    assert float(contrastive(*apart)) == pytest.approx(float(contrastive(features, label)))


def test_one_class_alone_costs_nothing_and_gathering_pays() -> None:
    features, label = maps([[1.0, 0.0], [0.0, 1.0]], [2, 2])
    assert float(contrastive(features, label)) == 0.0
    scattered, labels = maps([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], [0, 0, 1, 1])
    gathered, _ = maps([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [0, 0, 1, 1])
    assert float(contrastive(gathered, labels)) < float(contrastive(scattered, labels))
    scattered.requires_grad_(True)
    contrastive(scattered, labels).backward()
    assert scattered.grad is not None
    assert torch.isfinite(scattered.grad).all()
