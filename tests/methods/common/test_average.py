"""The moving average: closed form, buffers, independence of the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iccld.methods.common.average import Ema


def scalar(value: float) -> nn.Linear:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, value)
    return network


def test_ema_follows_the_closed_form() -> None:
    model, decay = scalar(0.0), 0.9
    ema = Ema(model, decay, ramp=False)
    for i in range(20):
        nn.init.constant_(model.weight, 1.0)
        ema.update(model, i)
    assert ema.module.weight.item() == pytest.approx(1 - decay**20, abs=1e-6)


def test_ema_ramp_is_the_plain_mean_until_the_decay_takes_over() -> None:
    model = scalar(5.0)
    ema = Ema(model, 0.9)
    values = [2.0, 4.0, 9.0, -3.0]
    for i, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        ema.update(model, i)
        assert ema.module.weight.item() == pytest.approx(sum(values[: i + 1]) / (i + 1), abs=1e-6)
    assert [Ema(model, 0.9).decay_at(i) for i in (0, 1, 3, 9, 10_000)] == [0.0, 0.5, 0.75, 0.9, 0.9]


def test_ema_copies_buffers_and_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    ema = Ema(model, 0.99)
    model(torch.rand(4, 2, 3, 3) * 10)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ema.update(model, 500)
    averaged = ema.module.state_dict()
    assert torch.equal(averaged["1.running_mean"], model.state_dict()["1.running_mean"])
    assert averaged["1.num_batches_tracked"].item() == 1
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not ema.module.training
    assert model.training
    assert not any(p.requires_grad for p in ema.module.parameters())


def test_ema_refuses_another_network_and_an_impossible_decay() -> None:
    with pytest.raises(ValueError, match="not the same network"):
        Ema(scalar(1.0), 0.9).update(nn.Sequential(scalar(1.0), scalar(2.0)), 0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Ema(scalar(1.0), 1.5)
