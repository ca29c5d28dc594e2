"""ProDA: what each stage hands on, how prototypes move, and what students learn from."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from iccld.methods import proda
from iccld.methods.proda import Denoise, Distil, Prototypes, Settings, Warmup

from ..rounding import Gradients, differ


def stage(tiny: ModuleType, kind: type, **settings: Any) -> Any:
    parts = tiny.parts(views=tiny.STILL)
    networks = [parts.make_segmenter() for _ in range(2 if kind is Warmup else 3)]
    return tiny.ready(kind(parts, Settings(**settings), tiny.optimisation(), *networks))


def test_a_prototype_moves_by_its_momentum_and_starts_whole() -> None:
    prototypes = Prototypes(3, 2)
    prototypes.move(torch.tensor([[2.0, 4.0], [0.0, 0.0], [3.0, 3.0]]), torch.tensor([2.0, 0.0, 1.0]), 1e-4)
    assert prototypes.values.tolist() == [[1.0, 2.0], [0.0, 0.0], [3.0, 3.0]]
    prototypes.move(torch.tensor([[5.0, 0.0], [1.0, 1.0], [9.0, 9.0]]), torch.tensor([1.0, 1.0, 0.0]), 1e-4)
    torch.testing.assert_close(prototypes.values, torch.tensor([[1.0004, 1.9998], [1.0, 1.0], [3.0, 3.0]]))
    assert prototypes.known.tolist() == [True, True, True]


def test_a_class_without_a_prototype_is_out_of_reach() -> None:
    prototypes = Prototypes(2, 1)
    prototypes.move(torch.tensor([[3.0], [0.0]]), torch.tensor([1.0, 0.0]), 1e-4)
    assert prototypes.distances(torch.tensor([[[[1.0]]]])).flatten().tolist() == [2.0, 1e4]


def test_students_restart_from_the_source_and_learn_from_the_stage_before(tiny: ModuleType) -> None:
    names = ("source", "warmup", "stage1", "stage2", "stage3")
    made = proda.stages(tiny.parts(), Settings(), {name: tiny.optimisation(iterations=1) for name in names})
    methods: list[Any] = []
    for each in made:
        methods.append(tiny.ready(each.make_method(methods[-1] if methods else None)))
        tiny.step(methods[-1], 0)
    source, warmup, stage1, stage2, _ = methods
    start = tiny.values(source.ema.module)
    fresh = [each.make_method(before) for each, before in zip(made[1:], methods[:-1], strict=True)]
    for method in (*methods[1:], *fresh):
        assert torch.equal(tiny.values(method.networks()["restart"]), start)
    assert torch.equal(tiny.values(fresh[0].networks()["segmenter"]), start)
    assert torch.equal(tiny.values(fresh[1].networks()["labeller"]), tiny.values(warmup.ema.module))
    assert torch.equal(tiny.values(fresh[1].networks()["segmenter"]), tiny.values(warmup.ema.module))
    for student, teacher in ((fresh[2], stage1), (fresh[3], stage2)):
        assert torch.equal(tiny.values(student.networks()["segmenter"]), start)
        assert torch.equal(tiny.values(student.networks()["teacher"]), tiny.values(teacher.ema.module))


def test_the_warm_up_moves_both_players(tiny: ModuleType) -> None:
    method = stage(tiny, Warmup)
    before = tiny.values(method.model), tiny.values(method.discriminator), tiny.values(method.restart)
    with Gradients(method.model) as model, Gradients(method.discriminator) as discriminator:
        tiny.step(method, 0, tiny.batch(size=(32, 32)))
    assert model.reached()
    assert discriminator.reached()
    assert differ(tiny.values(method.model), before[0])
    assert not torch.equal(tiny.values(method.discriminator), before[1])  # at its own, small learning rate
    assert torch.equal(tiny.values(method.restart), before[2])


def test_first_prototypes_are_the_mean_features_of_the_labellers_classes(tiny: ModuleType) -> None:
    from iccld.methods.common.parts import normalise

    method, batches = stage(tiny, Denoise), [tiny.batch(size=(32, 32), seed=i) for i in range(2)]
    method.start_round(batches)
    with torch.no_grad():
        images = normalise(torch.cat([one.target_image for one in batches]).float() / 255)
        features = method.labeller.features(images)  # (4, C, 8, 8)
        logits = torch.nn.functional.interpolate(method.labeller.decoder.logits(features), size=(8, 8), mode="bilinear")
        rows, label = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]), logits.argmax(1).flatten()
    for train_id in range(4):
        assert bool(method.prototypes.known[train_id]) == bool((label == train_id).any())
        if (label == train_id).any():
            torch.testing.assert_close(method.prototypes.values[train_id], rows[label == train_id].mean(0), atol=1e-5, rtol=1e-4)


def test_stage_1_leaves_the_labeller_and_moves_the_rest(tiny: ModuleType) -> None:
    method, data = stage(tiny, Denoise), tiny.batch(size=(32, 32))
    method.start_round([data])
    frozen, values = tiny.values(method.labeller), method.prototypes.values.clone()
    losses = tiny.step(method, 0, data)
    assert float(losses["consistency"]) >= -1e-6
    assert torch.equal(tiny.values(method.labeller), frozen)
    moved = (method.prototypes.values - values)[method.prototypes.known].norm()
    assert 1e-5 * float(values.norm()) < float(moved) < 0.01 * float(values.norm())


def test_only_certain_labels_are_taught(tiny: ModuleType) -> None:
    data = tiny.batch(size=(32, 32))
    nothing, everything = (tiny.step(stage(tiny, Distil, threshold=t), 0, data) for t in (1.0, 0.0))
    assert (float(nothing["target"]), float(nothing["pseudo_label_share"])) == (0.0, 0.0)
    assert float(everything["target"]) > 0
    assert float(everything["pseudo_label_share"]) == 1.0


def test_the_released_distillation_is_the_default(tiny: ModuleType) -> None:
    data = tiny.batch(size=(32, 32))
    released, published = (tiny.step(stage(tiny, Distil, **s), 0, data)["distillation"] for s in ({}, {"distillation": "divergence"}))
    assert float(published) == pytest.approx(float(published.clamp(min=0)))
    assert float(released) != float(published)
    assert stage(tiny, Distil).headline_weights == "model"
