"""AdaptSegNet: who learns from which loss, one level and two, and the published numbers."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch

from iccld.errors import ConfigError
from iccld.methods.adaptsegnet import AdaptSegNet, Settings

from ..rounding import watching


def method(tiny: ModuleType, settings: Settings | None = None, **changes: Any) -> AdaptSegNet:
    made = tiny.parts(**changes)
    chosen = settings or Settings(discriminator_width=4)
    ready = tiny.ready(AdaptSegNet(made, chosen, tiny.optimisation(), made.make_segmenter()))
    assert isinstance(ready, AdaptSegNet)
    return ready


def only(made: AdaptSegNet, wanted: str) -> None:
    """Drop the other optimiser's updates."""
    update = made.update
    made.update = lambda name, loss: update(name, loss) if name == wanted else None  # type: ignore[assignment]


def test_published_numbers_are_the_defaults(tiny: ModuleType) -> None:
    settings = Settings()
    weights = (settings.adversarial_weight, settings.auxiliary_adversarial_weight, settings.auxiliary_weight)
    assert weights == (0.001, 0.0002, 0.1)
    group = method(tiny).optimizers()["discriminator"].param_groups[0]
    assert (group["lr"], group["betas"]) == (1e-4, (0.9, 0.99))


@pytest.mark.parametrize("levels", [1, 2])
def test_each_loss_moves_its_own_networks(tiny: ModuleType, levels: int) -> None:
    for wanted, others in (("segmenter", {"discriminators"}), ("discriminator", {"segmenter", "auxiliary"})):
        made = method(tiny, Settings(levels=levels, discriminator_width=4))
        only(made, wanted)
        before = {name: tiny.values(network) for name, network in made.networks().items()}
        with watching(made.networks()) as watched:
            losses = tiny.step(made, 0)
        assert {name for name, gradients in watched.items() if gradients.reached()} >= before.keys() - others
        moved = {name for name, network in made.networks().items() if not torch.equal(tiny.values(network), before[name])}
        assert moved == before.keys() - others
        assert ({"source_aux", "adversarial_aux"} <= losses.keys()) == (levels == 2)


def test_target_maps_come_to_pass_for_source_maps(tiny: ModuleType) -> None:
    """With nothing but Eq. 4, against an opinionated discriminator that stands still."""
    made = method(tiny, Settings(adversarial_weight=1.0, discriminator_width=4), views=tiny.STILL, class_weight=torch.zeros(4))
    only(made, "segmenter")
    with torch.no_grad():
        for parameter in made.discriminators.parameters():
            parameter.mul_(3)
    data = tiny.batch(size=(32, 32))
    losses = [float(tiny.step(made, i, data, seed=5)["adversarial"]) for i in range(6)]
    assert losses[-1] < losses[0] - 1e-2, losses


def test_the_discriminators_start_undecided_and_learn(tiny: ModuleType) -> None:
    made = method(tiny, Settings(discriminator_learning_rate=1e-2, discriminator_width=8), views=tiny.STILL)
    data = tiny.batch(size=(32, 32))
    for iteration in range(4):  # random networks see both domains alike; a few steps on the source tell them apart
        tiny.step(made, iteration, data, seed=5)
    only(made, "discriminator")
    losses = [float(tiny.step(made, 4 + i, data, seed=5)["domain"]) for i in range(12)]
    assert losses[0] == pytest.approx(math.log(2), abs=0.1)
    assert losses[-1] < 0.8 * losses[0], losses


def test_maps_can_be_seen_at_the_size_of_the_crop_as_in_the_released_code(tiny: ModuleType) -> None:
    sizes = []
    for full_size in (False, True):
        made = method(tiny, Settings(discriminator_width=4, full_size=full_size))
        sizes.append(tuple(made._map(torch.zeros(1, 4, 40, 48)).shape[-2:]))
    assert sizes == [(40, 48), (32, 32)]


def test_levels_are_one_or_two() -> None:
    with pytest.raises(ConfigError, match=r"settings.levels is 3"):
        Settings(levels=3)
