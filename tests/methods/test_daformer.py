"""DAFormer: what its losses move, what stays frozen, and its released quirks."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from iccld.labels import CITYSCAPES19, LabelClass, LabelSpace
from iccld.methods import daformer
from iccld.methods.common.frozen_encoder import reference_encoder, thing_ids
from iccld.methods.daformer import Daformer, Settings

from ..rounding import Gradients, differ

ROAD_AND_CAR = LabelSpace("tiny", tuple(LabelClass(name, (i, 0, 0)) for i, name in enumerate(("road", "car", "sky", "person"))))


def made(tiny: ModuleType, parts: dict[str, Any] | None = None, **settings: Any) -> Daformer:
    parts = tiny.parts(views=tiny.STILL, label_space=ROAD_AND_CAR, **(parts or {}))
    chosen = replace(Settings(threshold=0.3, margin_top=0.0, margin_bottom=0.0), **settings)
    method = Daformer(parts, chosen, tiny.optimisation(), parts.make_segmenter(), reference_encoder("initial", None, parts))
    tiny.ready(method)
    return method


def test_things_are_the_classes_that_imagenet_knows() -> None:
    assert thing_ids(CITYSCAPES19).tolist() == [6, 7, *range(11, 19)]
    absorbing = LabelSpace("two", (LabelClass("ground", (0, 0, 0), ("road",)), LabelClass("vehicle", (1, 0, 0), ("car", "bus"))))
    assert thing_ids(absorbing).tolist() == [1]


def test_the_loss_falls_and_the_reference_stays(tiny: ModuleType) -> None:
    method, data = made(tiny), tiny.batch(size=(32, 32))
    frozen, trained = tiny.values(method.reference), tiny.values(method.model)
    losses = [tiny.step(method, i, data) for i in range(8)]
    total = [float(one["source"] + one["mixed"]) for one in losses]
    assert sum(total[-3:]) < 0.9 * sum(total[:3]), total
    assert torch.equal(tiny.values(method.reference), frozen)
    assert differ(tiny.values(method.model), trained)
    assert not any(p.requires_grad for p in method.reference.parameters())


def test_the_feature_distance_moves_the_encoder_alone(tiny: ModuleType) -> None:
    data = tiny.batch(size=(32, 32))
    without, held = made(tiny, feature_weight=0.0), made(tiny, feature_weight=10.0)
    with Gradients(held.model) as pulled, Gradients(without.model) as free:
        assert float(tiny.step(held, 0, data)["feature"]) > 0.01
        tiny.step(without, 0, data)
    assert torch.equal(tiny.values(held.model.decoder), tiny.values(without.model.decoder))
    changed = {name.split(".")[0] for name, size in pulled.largest.items() if size != pytest.approx(free.largest[name], rel=0.1)}
    assert changed == {"encoder"}


def test_no_thing_no_distance(tiny: ModuleType) -> None:
    data = tiny.batch(size=(32, 32))
    stuff = data._replace(source_label=torch.zeros_like(data.source_label))
    assert float(tiny.step(made(tiny, window_max_share=1.0), 0, stuff)["feature"]) == 0.0


def test_the_source_stage_hands_over_its_encoder(tiny: ModuleType) -> None:
    parts = tiny.parts()
    stages = daformer.stages(parts, Settings(), {"source": tiny.optimisation(), "adapt": tiny.optimisation()})
    source = tiny.ready(stages[0].make_method(None))
    tiny.step(source, 0)
    method = stages[1].make_method(source)
    assert isinstance(method, Daformer)
    assert torch.equal(tiny.values(method.reference), tiny.values(source.ema.module.encoder))
    assert torch.equal(tiny.values(method.model), tiny.values(source.ema.module))


def test_the_headline_is_the_trained_model_not_its_average(tiny: ModuleType) -> None:
    assert made(tiny).headline_weights == "model"
    assert made(tiny, evaluate="ema").headline_weights == "ema"


def test_margins_take_the_weight_of_pseudo_labels_alone(tiny: ModuleType) -> None:
    """With margins over the whole crop only pasted pixels teach: at the source's mean loss, by their share."""
    data = tiny.batch(size=(32, 32))
    everything = float(tiny.step(made(tiny, threshold=0.0), 0, data)["mixed"])
    pasted_only = float(tiny.step(made(tiny, threshold=0.0, margin_top=1.0), 0, data)["mixed"])
    none_confident = float(tiny.step(made(tiny, threshold=1.0), 0, data)["mixed"])
    assert pasted_only == none_confident
    assert 0 < pasted_only < everything


@pytest.mark.parametrize("change", [{"mix_from": "picture"}, {"mix_ignore": False}, {"count_ignored": False}, {"jitter_per": "picture"}])
def test_every_quirk_is_a_switch(tiny: ModuleType, change: dict[str, Any]) -> None:
    views = replace(tiny.STILL, jitter=0.5, jitter_strength=0)
    data = tiny.batch(size=(32, 32))
    label = data.source_label.long()  # the first picture shows classes 0 and 1, the second 3 and unlabelled
    data = data._replace(source_label=torch.stack([label[0] % 2, torch.where(label[1] > 1, 255, 3)]).to(torch.uint8))
    losses = []
    for settings in ({}, change):
        method = made(tiny, **settings)
        method.parts = replace(method.parts, views=views)
        losses.append([float(tiny.step(method, i, data, seed=3 + i)["mixed"]) for i in range(2)])
    assert losses[0] != losses[1]


def test_rare_classes_are_looked_for(tiny: ModuleType) -> None:
    """The class that a picture was drawn for steers its window: with another class, another window is taken."""
    data = tiny.batch(size=(64, 64))
    data = data._replace(source_label=torch.arange(64).expand(2, 64, 64).div(16, rounding_mode="floor").to(torch.uint8))
    looking = [made(tiny, window_share=0.4, window_max_share=1.0) for _ in range(2)]
    losses = [float(tiny.step(m, 0, data._replace(source_class=torch.full((2,), 3 * c)))["source"]) for c, m in enumerate(looking)]
    assert losses[0] != losses[1]
