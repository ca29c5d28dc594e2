"""CorDA: the weight of a label by its depth, whose head answers for which pixel, and that both tasks learn."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from iccld.methods import METHODS, corda
from iccld.methods.corda import Corda, Settings, easiness

from ..rounding import differ


def method(tiny: ModuleType, settings: Settings | None = None, iterations: int = 10_000, **changes: Any) -> Corda:
    made = tiny.parts(**changes)
    chosen = settings or Settings(width=8)
    ready = tiny.ready(Corda(made, chosen, tiny.optimisation(iterations=iterations), made.make_segmenter()))
    assert isinstance(ready, Corda)
    return ready


def test_easiness_in_closed_form() -> None:
    truth = torch.tensor([[[4.0, 4.0, 4.0, 1.0]]])
    score = torch.tensor([1.0, 0.501, 0.001, 1.0])  # no error, half of d, more than d, depth not known
    expected = score / score.mean()
    assert easiness(torch.tensor([[[0.0, 2.0, 9.0, 7.0]]]), truth).flatten().tolist() == pytest.approx(expected.tolist())


def test_published_numbers_are_the_defaults() -> None:
    settings = Settings()
    assert (settings.source_depth_weight, settings.mixed_depth_weight, settings.threshold, settings.settle) == (0.01, 0.001, 0.968, 0.1)
    assert METHODS["corda"].needs == {"depth"}


@pytest.mark.parametrize("everything", [True, False])
def test_each_head_answers_for_its_domains_pixels(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch, everything: bool) -> None:
    """Where everything is pasted the target's heads hear nothing; where nothing is, they do."""
    made = method(tiny, Settings(width=8), views=tiny.STILL)
    monkeypatch.setattr(corda, "choose_classes", lambda label, *_, **__: torch.full_like(label, everything) > 0)
    heads = {name: getattr(made.model, name).weight for name in ("depth", "first_depth")}
    before = {name: weight.detach().clone() for name, weight in heads.items()}
    tiny.step(made, 0)
    for name, weight in heads.items():
        assert differ(weight[0], before[name][0])
        assert torch.equal(weight[1], before[name][1]) if everything else differ(weight[1], before[name][1])


@pytest.mark.parametrize("difficulty", ["heads", "truth"])
def test_the_depth_error_that_weighs_labels_is_the_chosen_one(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch, difficulty: str) -> None:
    errors: list[torch.Tensor] = []

    def recorded(error: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        errors.append(error)
        return torch.ones_like(truth)

    monkeypatch.setattr(corda, "easiness", recorded)
    made = method(tiny, Settings(width=8, difficulty=difficulty), views=tiny.STILL)  # type: ignore[arg-type]
    with torch.no_grad():
        for head in (made.model.depth, made.model.first_depth):
            head.weight.zero_()
            head.bias.copy_(torch.tensor([3.0, 5.0]))
    tiny.step(made, 0)
    assert (set(errors[0].unique().tolist()) == {20.0}) == (difficulty == "heads")


def test_pseudo_labels_come_from_before_the_exchange_at_first(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    made = method(tiny, Settings(width=8, settle=0.5), iterations=4)
    with torch.no_grad():
        made.ema.module.refine.bias[3] = 100.0  # type: ignore[union-attr, index]  # after the exchange, all is class 3
    monkeypatch.setattr(made.ema, "update", lambda *_: None)
    share_of_3 = [float(tiny.step(made, i)["pseudo_label_histogram"][3]) for i in range(4)]
    assert max(share_of_3[:2]) < 1.0
    assert share_of_3[2:] == [1.0, 1.0]


def test_depth_and_classes_are_learnt_on_a_fixed_batch(tiny: ModuleType) -> None:
    made, data = method(tiny, Settings(width=8, threshold=0.3, source_depth_weight=0.1), views=tiny.STILL), tiny.batch(size=(32, 32))
    data = data._replace(source_depth=2.0 + data.source_label.float())
    losses = [tiny.step(made, i, data, seed=3) for i in range(12)]
    assert float(losses[-1]["depth"]) < 0.6 * float(losses[0]["depth"])
    totals = [float(one["source"] + one["mixed"]) for one in losses]
    assert totals[-1] < 0.8 * totals[0], totals
