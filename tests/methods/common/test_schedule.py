"""Learning-rate schedules by hand."""

from __future__ import annotations

import warnings

import pytest
import torch

from iccld.methods.common.schedule import epoch_decay, warmup_poly


def rates(make: str, count: int, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = {"warmup_poly": warmup_poly, "epoch_decay": epoch_decay}[make](optimizer, **options)  # type: ignore[operator]
    answer = []
    for _ in range(count):
        answer.append(optimizer.param_groups[0]["lr"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schedule.step()
    return answer


def test_warmup_rises_and_the_polynomial_falls_to_nothing() -> None:
    assert rates("warmup_poly", 6, iterations=5, warmup=1) == pytest.approx([0.25, 0.5, 0.375, 0.25, 0.125, 0.0])


def test_the_rate_falls_by_one_per_cent_every_five_epochs() -> None:
    got = rates("epoch_decay", 45, epoch_iterations=3)
    assert got == pytest.approx([0.5] * 15 + [0.5 * 0.99] * 15 + [0.5 * 0.99**2] * 15)


def test_fifty_epochs_cost_a_tenth_of_the_rate() -> None:
    """What the paper's decay amounts to: 0.99^9 = 0.914 in the last of its fifty epochs, against 0 for the polynomial."""
    assert rates("epoch_decay", 50, epoch_iterations=1)[-1] / 0.5 == pytest.approx(0.914, abs=5e-4)


def test_an_empty_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one iteration"):
        epoch_decay(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), 0)
