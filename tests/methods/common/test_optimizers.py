"""The segmenter's optimiser: the recipe's AdamW unchanged, and what pre-trained encoders ask for."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from iccld.methods.common.optimizers import segmenter_optimizer
from iccld.methods.common.parts import adamw
from iccld.methods.common.schedule import warmup_poly


def test_without_a_head_factor_it_is_the_adamw_of_the_source_stage(tiny: ModuleType) -> None:
    model, stage = tiny.make_segmenter(), tiny.optimisation(weight_decay=0.1)
    made, plain = segmenter_optimizer(model, stage), adamw(list(model.parameters()), stage)
    assert [[id(p) for p in group["params"]] for group in made.param_groups] == [
        [id(p) for p in group["params"]] for group in plain.param_groups
    ]
    assert made.defaults == plain.defaults


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_heads_learn_ten_times_as_fast_all_the_way_down(tiny: ModuleType, kind: str) -> None:
    model, extra = tiny.make_segmenter(), torch.nn.Linear(2, 2)
    stage = tiny.optimisation(optimizer=kind, head_factor=10.0, learning_rate=2.5e-4, weight_decay=5e-4, iterations=10, power=0.9)
    made = segmenter_optimizer(model, stage, extra)
    assert isinstance(made, torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)
    schedule = warmup_poly(made, stage.iterations, 0, stage.power)
    for iteration in range(10):
        rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
        wanted = 2.5e-4 * (1 - iteration / 10) ** 0.9
        assert [rates[id(p)] for p in model.encoder.parameters()] == pytest.approx([wanted] * len(list(model.encoder.parameters())))
        assert {round(rates[id(p)] / wanted, 6) for p in (*model.decoder.parameters(), *extra.parameters())} == {10.0}
        made.step()
        schedule.step()
    if kind == "sgd":
        assert [(group["momentum"], group["weight_decay"]) for group in made.param_groups] == [(0.9, 5e-4)] * 2


def test_frozen_weights_are_left_out(tiny: ModuleType) -> None:
    model = tiny.make_segmenter()
    model.encoder.stem.requires_grad_(False)
    held = {id(p) for group in segmenter_optimizer(model, tiny.optimisation()).param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
