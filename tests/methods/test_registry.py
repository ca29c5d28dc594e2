"""Every registered method: frozen settings, ordered stages, and that each stage takes a step from the one before."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import pytest
import torch

from iccld.config.views import Views
from iccld.methods import METHODS
from iccld.methods.common import mixing
from iccld.methods.common.protocol import STATISTICS, Method
from iccld.transforms import Draw, match_moments


def test_the_registry_knows_the_method_and_its_baseline() -> None:
    assert {"iccld", "source_only", "dacs"} <= METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_frozen_and_every_field_has_a_default(name: str) -> None:
    settings = METHODS[name].settings()
    for field in dataclasses.fields(settings):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, field.name, getattr(settings, field.name))


@pytest.mark.parametrize("name", METHODS)
def test_stages_chain_step_and_predict(name: str, tiny: ModuleType) -> None:
    optimisation = {stage: tiny.optimisation(iterations=2) for stage in METHODS[name].stage_names}
    stages = METHODS[name].stages(tiny.parts(), METHODS[name].settings(), optimisation)
    assert tuple(stage.name for stage in stages) == METHODS[name].stage_names
    assert sum(METHODS[name].shares.values()) == pytest.approx(0.0 if name == "source_only" else 1.0)
    previous: Method | None = None
    for stage in stages:
        assert stage.iterations == 2
        method = tiny.ready(stage.make_method(previous))
        method.start_round([tiny.batch()])
        for iteration in range(stage.iterations):
            answers = tiny.step(method, iteration)
            for key, value in answers.items():
                assert not value.requires_grad, key
                assert torch.isfinite(value).all(), key
                assert value.ndim == 0 or key in STATISTICS, key
        # A schedule belongs to an optimiser, and its rate falls to 0 after the last step.
        assert method.schedules().keys() <= method.optimizers().keys()
        for optimizer in method.schedules():
            assert method.optimizers()[optimizer].param_groups[0]["lr"] == pytest.approx(0.0)
        with torch.no_grad():
            assert method.predictor(method.headline_weights)(tiny.batch().target_image).shape == (2, 4, 36, 44)
        previous = method


@pytest.mark.parametrize("name", METHODS)
def test_step_needs_no_global_randomness(name: str, tiny: ModuleType) -> None:
    optimisation = {stage: tiny.optimisation() for stage in METHODS[name].stage_names}
    for index in range(len(METHODS[name].stages(tiny.parts(), METHODS[name].settings(), optimisation))):
        answers = []
        for seed in (1, 2):
            stages = METHODS[name].stages(tiny.parts(), METHODS[name].settings(), optimisation)
            method = tiny.ready(stages[index].make_method(None))
            torch.manual_seed(seed)
            losses = [tiny.step(method, iteration, seed=7) for iteration in range(2)]
            answers.append((losses, [tiny.values(network) for network in (*method.networks().values(), *method.ema_networks().values())]))
        torch.testing.assert_close(answers[0], answers[1], atol=0, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_lent_colours_reach_every_stage_after_source(name: str, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `style_probability` every such step moves its sources' colours to its targets', once; 0 and the source stage never do."""
    probabilities: list[float] = []

    def watched(image: torch.Tensor, style: torch.Tensor, draw: Draw, *, probability: float) -> torch.Tensor:
        probabilities.append(probability)
        return match_moments(image, style, draw, probability=probability)

    monkeypatch.setattr(mixing, "match_moments", watched)
    optimisation = {stage: tiny.optimisation() for stage in METHODS[name].stage_names}
    for lent, expected in ((0.75, [0.75]), (0.0, [0.0] if name == "iccld" else [])):  # iccld draws at any probability
        previous: Method | None = None
        for stage in METHODS[name].stages(tiny.parts(views=Views(style_probability=lent)), METHODS[name].settings(), optimisation):
            method = tiny.ready(stage.make_method(previous))
            method.start_round([tiny.batch()])
            probabilities.clear()
            tiny.step(method, 0)
            assert probabilities == ([] if stage.name == "source" else expected), stage.name
            previous = method


@pytest.mark.parametrize("name", METHODS)
def test_pictures_smaller_than_the_crop_can_be_learnt_from(name: str, tiny: ModuleType) -> None:
    optimisation = {stage: tiny.optimisation() for stage in METHODS[name].stage_names}
    smaller = tiny.parts(views=Views(scale_min=0.4, scale_max=0.9, target_scale_min=0.4, target_scale_max=0.9))
    previous: Method | None = None
    for stage in METHODS[name].stages(smaller, METHODS[name].settings(), optimisation):
        method = tiny.ready(stage.make_method(previous))
        method.start_round([tiny.batch()])
        assert all(torch.isfinite(value).all() for value in tiny.step(method, 0).values())
        previous = method
