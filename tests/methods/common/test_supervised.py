"""The source stage: what it changes, what it leaves, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from ...rounding import Gradients, differ


def test_the_loss_falls_on_a_fixed_batch(tiny: ModuleType) -> None:
    method, data = tiny.supervised(views=tiny.STILL), tiny.batch(size=(32, 32))
    losses = [float(tiny.step(method, i, data)["source"]) for i in range(15)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3]), losses


def test_every_parameter_receives_a_gradient(tiny: ModuleType) -> None:
    method = tiny.supervised(make_segmenter=tiny.make_wide_segmenter)
    before = {name: p.detach().clone() for name, p in method.model.named_parameters()}
    with Gradients(method.model) as gradients:
        tiny.step(method, 0)
    assert gradients.unreached() == set()
    assert [name for name, p in method.model.named_parameters() if torch.equal(p, before[name])] == []


def test_the_target_has_no_say(tiny: ModuleType) -> None:
    one, other, data = tiny.supervised(), tiny.supervised(), tiny.batch()
    tiny.step(one, 0, data)
    tiny.step(other, 0, data._replace(target_image=data.target_image.flip(0) // 2))
    assert torch.equal(tiny.values(one.model), tiny.values(other.model))


def test_class_weights_enter_the_loss(tiny: ModuleType) -> None:
    plain, doubled = tiny.supervised(), tiny.supervised(class_weight=torch.full((4,), 2.0))
    assert float(tiny.step(doubled, 0)["source"]) == pytest.approx(2 * float(tiny.step(plain, 0)["source"]), rel=1e-5)


def test_ignored_pixels_teach_nothing(tiny: ModuleType) -> None:
    method, data = tiny.supervised(), tiny.batch()
    before = tiny.values(method.model)
    losses = tiny.step(method, 0, data._replace(source_label=torch.full_like(data.source_label, 255)))
    assert float(losses["source"]) == 0.0
    assert torch.equal(tiny.values(method.model), before)


def test_the_average_follows_the_closed_form(tiny: ModuleType) -> None:
    method = tiny.supervised(stage=tiny.optimisation(ema_decay=0.6))
    average = torch.zeros_like(tiny.values(method.model))
    for iteration in range(4):
        tiny.step(method, iteration)
        decay = (0, 1 / 2, 0.6, 0.6)[iteration]  # min(1 - 1/(i+1), 0.6)
        average = decay * average + (1 - decay) * tiny.values(method.model)
    torch.testing.assert_close(tiny.values(method.ema.module), average, atol=1e-6, rtol=1e-5)
    assert not any(p.requires_grad for p in method.ema.module.parameters())


def test_the_first_steps_see_half_the_resolution(tiny: ModuleType) -> None:
    views = replace(tiny.parts().views, half_resolution=0.5)
    method = tiny.supervised(stage=tiny.optimisation(iterations=4), views=views)
    seen: list[tuple[int, ...]] = []
    method.model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    for iteration in range(4):
        tiny.step(method, iteration)
    assert seen == [(16, 16), (16, 16), (32, 32), (32, 32)]


def test_the_predictor_answers_at_the_size_of_the_picture(tiny: ModuleType) -> None:
    method = tiny.supervised()
    for iteration in range(2):
        tiny.step(method, iteration)
    image = torch.randint(0, 256, (2, 3, 41, 57), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        averaged, trained = method.predictor()(image), method.predictor("model")(image)
        single = torch.cat([method.predictor()(one[None]) for one in image])
    assert averaged.shape == (2, 4, 41, 57)
    assert differ(averaged, trained)
    torch.testing.assert_close(single, averaged, atol=1e-5, rtol=1e-4)
