"""DACS: its one weight for the batch, what is pasted and asked for, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iccld.methods import dacs
from iccld.methods.common.parts import MEAN, STD
from iccld.methods.dacs import Dacs, Settings


class Certain(nn.Module):
    """A labeller that is certain of class 2 in the left half of the first picture alone."""

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        logits = torch.zeros(len(image), 4, image.shape[2] // 2, image.shape[3] // 2)
        logits[:, 2] = 0.1
        logits[0, 2, :, : logits.shape[-1] // 2] = 20.0
        return logits


def method(tiny: ModuleType, settings: Settings | None = None, **changes: Any) -> Dacs:
    made = tiny.parts(**changes)
    ready = tiny.ready(Dacs(made, settings or Settings(), tiny.optimisation(), made.make_segmenter()))
    assert isinstance(ready, Dacs)
    return ready


def asked(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch, made: Dacs, **changes: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(source label, mixed label, mixed weight) that a step hands to the cross-entropy, with `Certain` as the labeller."""
    made.ema.module = Certain()
    made.ema.update = lambda model, iteration: None  # type: ignore[method-assign]
    calls: list[tuple[Tensor, ...]] = []

    def recorded(logits: Tensor, label: Tensor, weight: Tensor | None = None, **options: Any) -> Tensor:
        calls.append((label, weight) if weight is not None else (label,))
        return logits.mean()

    monkeypatch.setattr(dacs, "cross_entropy", recorded)
    data = tiny.batch(size=(32, 32))
    tiny.step(made, 0, data._replace(**changes))
    (source,), (mixed, weight) = calls
    return source, mixed, weight


def test_the_weight_is_the_batchs_share_of_confident_pixels_and_1_where_pasted(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    source, mixed, weight = asked(tiny, monkeypatch, method(tiny, views=tiny.STILL))
    assert set(weight.unique().tolist()) == {0.25, 1.0}  # half of one picture of two, for both pictures alike
    kept = weight == 0.25
    assert torch.equal(mixed[kept], torch.full_like(mixed[kept], 2))
    assert torch.equal(mixed[~kept], source[~kept])
    for row in range(2):  # two of four classes
        assert len(source[row][~kept[row]].unique()) == 2


def test_a_weight_for_each_pixel_can_be_asked_for(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mixed, weight = asked(tiny, monkeypatch, method(tiny, Settings(pixel_weight="pixel"), views=tiny.STILL))
    assert set(weight.unique().tolist()) == {0.0, 1.0}
    assert bool((weight[1] == 0).any())
    assert bool((mixed[weight == 0] == 2).all())


def test_pixels_that_may_not_teach_weigh_nothing(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = torch.zeros(2, 32, 32, dtype=torch.bool)
    _, _, weight = asked(tiny, monkeypatch, method(tiny, views=tiny.STILL), target_valid=nowhere)
    assert set(weight.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("paste_ignore", "pasted"), [(True, {0, 255}), (False, {0})])
def test_void_is_a_class_to_paste_as_in_the_released_code_or_not(
    tiny: ModuleType, monkeypatch: pytest.MonkeyPatch, paste_ignore: bool, pasted: set[int]
) -> None:
    label = torch.tensor([0, 255]).repeat(16).expand(2, 32, 32).to(torch.uint8)
    seen: set[int] = set()
    chosen = dacs.choose_classes

    def recorded(source_label: Tensor, *arguments: Any, **options: Any) -> Tensor:
        mask = chosen(source_label, *arguments, **options)
        seen.update(source_label[mask].tolist())
        return mask

    monkeypatch.setattr(dacs, "choose_classes", recorded)
    made = method(tiny, Settings(paste_ignore=paste_ignore), views=tiny.STILL)
    for seed in range(4):
        tiny.step(made, 0, tiny.batch(size=(32, 32))._replace(source_label=label), seed=seed)
    assert seen == pasted


def test_the_loss_falls_on_a_fixed_batch(tiny: ModuleType) -> None:
    made, data = method(tiny, Settings(threshold=0.3), views=tiny.STILL), tiny.batch(size=(32, 32))
    losses = [tiny.step(made, i, data, seed=3) for i in range(10)]
    totals = [float(one["source"] + one["mixed"]) for one in losses]
    assert totals[-1] < 0.8 * totals[0], totals


def test_the_released_code_only_crops_the_source(tiny: ModuleType) -> None:
    seen: list[Tensor] = []
    made = method(tiny, Settings(source_light=False), views=replace(tiny.STILL, noise=0.3, jitter=1.0))
    made.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    tiny.step(made, 0, tiny.batch(size=(32, 32)))
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    levels = (seen[0] * std + mean) * 255  # source, mixed
    torch.testing.assert_close(levels[:2], levels[:2].round(), atol=1e-2, rtol=0)
    assert float((levels[2:] - levels[2:].round()).abs().max()) > 0.1
