"""The supervised contrastive loss against numbers worked out by hand."""

from __future__ import annotations

import math
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.labels import IGNORE
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


def by_all_pairs(features: Tensor, label: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """The formula as it is written, with a matrix of all pairs, in double precision."""
    rows = F.normalize(features.double(), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    classes, weight = label.flatten(), weight.flatten().double()
    similarity = rows @ rows.T / temperature
    is_labelled = classes != IGNORE
    others = (classes[:, None] != classes) & is_labelled
    same = (classes[:, None] == classes) & is_labelled & ~torch.eye(len(classes), dtype=torch.bool)
    negative = similarity.masked_fill(~others, -torch.inf).logsumexp(1, keepdim=True)
    log_p = similarity - torch.logaddexp(similarity, negative)
    return -((same * torch.outer(weight, weight) * log_p).sum(1) / same.sum(1).clamp(min=1)).mean()


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.005])
@pytest.mark.parametrize("pairs_at_once", [2**20, 1000])
def test_value_and_gradient_are_those_of_all_pairs(temperature: float, pairs_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.005 is beyond what an exponential holds in single precision; 1,000 pairs at a time cut classes in pieces."""
    monkeypatch.setitem(import_module("iccld.losses.contrastive").PAIRS_AT_ONCE, "cpu", pairs_at_once)
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 5, (2, 9, 7), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.2] = IGNORE
    label[0, 0, 0] = 7  # alone in its class
    weight = torch.rand(label.shape, generator=generator)
    features = torch.randn(2, 8, 9, 7, generator=generator).requires_grad_()
    expected, found = by_all_pairs(features, label, weight, temperature), contrastive(features, label, weight, temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (slope,), (own,) = torch.autograd.grad(expected, features), torch.autograd.grad(found, features)
    assert (own - slope).abs().max() < 1e-4 * slope.abs().max()


def test_low_precision_around_it_changes_nothing() -> None:
    features, label = maps([[3.0, 0.1], [0.5, 0.3], [0.1, 2.0]], [0, 0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found = contrastive(features, label)
    assert torch.equal(found, contrastive(features, label))


def test_pixels_without_a_class_alone_cost_nothing() -> None:
    features, label = maps([[1.0, 0.0], [0.0, 1.0]], [IGNORE, IGNORE])
    features.requires_grad_(True)
    loss = contrastive(features, label)
    loss.backward()
    assert float(loss.detach()) == 0
    assert features.grad is not None
    assert not features.grad.any()
