"""`settings.second step1`: step 1 once more in the place of step 2, the control of whatever stands there."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from iccld.labels import IGNORE
from iccld.methods import iccld
from iccld.methods.common import iccld_step2
from iccld.methods.iccld import Settings


def again(tiny: ModuleType, labels: str, **settings: object) -> iccld.Step1:
    """The stage step2 of these settings, after a step 1 that was built and not trained."""
    parts = tiny.parts(views=tiny.STILL)
    made = iccld.stages(
        parts, Settings(second="step1", labels=labels, threshold=0.3, **settings), dict.fromkeys(STAGES, tiny.optimisation())
    )
    source = made[0].make_method(None)
    method = made[-1].make_method(source)
    assert isinstance(method, iccld.Step1)
    tiny.ready(method)
    return method


STAGES = ("source", "step1", "step2")


def test_own_labels_make_it_step_1_to_the_last_bit(tiny: ModuleType) -> None:
    method = again(tiny, "own")
    usual = tiny.step1(settings=Settings(threshold=0.3), views=tiny.STILL)
    usual.model.load_state_dict(method.model.state_dict())
    usual.ema.module.load_state_dict(method.ema.module.state_dict())
    for iteration in range(2):
        first, second = tiny.step(method, iteration), tiny.step(usual, iteration)
        assert first["mixed"] == second["mixed"]
    assert torch.equal(tiny.values(method.model), tiny.values(usual.model))
    assert set(method.networks()) == {"segmenter"}


def test_labels_of_views_stand_still_and_are_those_of_step_2(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    method = again(tiny, "views", label_scales=(1.0,), label_flip=False)
    before = tiny.values(method.labeller).clone()
    labels: list[Tensor] = []
    for module in (iccld, iccld_step2):
        cut = module.classmix
        monkeypatch.setattr(module, "classmix", lambda mask, source, target, cut=cut: labels.append(target) or cut(mask, source, target))
    for _ in range(3):
        tiny.step(method, 1, seed=7)
    assert torch.equal(tiny.values(method.labeller), before)
    assert not torch.equal(tiny.values(method.model), before)
    maps = [label for label in labels if not label.is_floating_point()]
    assert torch.equal(maps[0], maps[-1])  # the same windows are named alike while the weights move
    # Step 2 from the same start, on the same draws, learns from the same labels.
    parts = tiny.parts(views=tiny.STILL)
    start = parts.make_segmenter()
    start.load_state_dict(method.labeller.state_dict())
    other = iccld.Step2(parts, Settings(labels="views", label_scales=(1.0,), label_flip=False), tiny.optimisation(), start)
    tiny.ready(other)
    labels.clear()
    tiny.step(other, 1, seed=7)
    assert torch.equal(next(label for label in labels if not label.is_floating_point()), maps[0])
    assert set(method.networks()) == {"segmenter", "labeller"}  # a resumed run labels as it did


def test_true_labels_are_those_of_the_batch(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    method = again(tiny, "truth")
    data = tiny.batch(size=(32, 32))
    truth = torch.full_like(data.source_label, 3)
    truth[:, :4] = IGNORE
    asked: list[Tensor] = []
    loss = iccld.cross_entropy
    monkeypatch.setattr(
        iccld, "cross_entropy", lambda logits, label, *rest, **more: asked.append(label) or loss(logits, label, *rest, **more)
    )
    tiny.step(method, 1, data._replace(source_label=data.source_label % 2, target_label=truth))
    assert set(asked[-1].unique().tolist()) <= {0, 1, 3, IGNORE}
    assert (asked[-1] == 3).any()
