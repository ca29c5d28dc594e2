"""Eq. 7 against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from iccld.losses import confusion_to_uniform, domain_cross_entropy


def test_domain_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2.0), 0.0, 0.0]])  # p = (1/3, 1/3, 1/3) and (1/2, 1/4, 1/4)
    domain = torch.tensor([1, 2])
    assert float(domain_cross_entropy(logits, domain)) == pytest.approx((math.log(3.0) + math.log(4.0)) / 2, abs=1e-6)


@pytest.mark.parametrize("level", [0.0, -3.0, 50.0])
def test_confusion_is_zero_at_equal_logits(level: float) -> None:
    assert float(confusion_to_uniform(torch.full((4, 3), level))) == pytest.approx(0.0, abs=1e-6)


def test_confusion_is_log_three_where_one_domain_is_certain() -> None:
    assert float(confusion_to_uniform(torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 200.0]]))) == pytest.approx(math.log(3.0), abs=1e-6)


def test_confusion_is_the_kl_divergence_by_hand() -> None:
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]])
    expected = 0.5 * math.log(0.5 * 3) + 2 * 0.25 * math.log(0.25 * 3)
    assert float(confusion_to_uniform(logits)) == pytest.approx(expected, abs=1e-6)


def test_descending_the_confusion_levels_the_logits() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(confusion_to_uniform(logits), logits)
        logits = (logits - gradient).detach().requires_grad_()
    assert float((logits.max() - logits.min()).detach()) < 0.05
