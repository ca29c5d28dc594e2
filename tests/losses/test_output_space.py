"""Output-space adversary: undecided, certain, and in which direction each side pulls."""

from __future__ import annotations

import math

import pytest
import torch

from iccld.losses import SOURCE, TARGET, domain_bce


@pytest.mark.parametrize("domain", [SOURCE, TARGET])
def test_undecided_costs_log_2(domain: float) -> None:
    assert float(domain_bce(torch.zeros(2, 1, 3, 4), domain)) == pytest.approx(math.log(2))


def test_the_closed_form_of_one_cell() -> None:
    logit = torch.full((1, 1, 1, 1), 1.5)
    assert float(domain_bce(logit, TARGET)) == pytest.approx(math.log(1 + math.exp(-1.5)))
    assert float(domain_bce(logit, SOURCE)) == pytest.approx(1.5 + math.log(1 + math.exp(-1.5)))


def test_the_adversarial_term_pulls_against_the_discriminators() -> None:
    logit = torch.tensor([[[[0.3]]]], requires_grad=True)
    (tell,) = torch.autograd.grad(domain_bce(logit, TARGET), logit)
    (fool,) = torch.autograd.grad(domain_bce(logit, SOURCE), logit)
    assert float(tell) < 0 < float(fool)
