"""CBST: thresholds and labels in closed form, rounds, and what a round remembers."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch

from iccld.errors import ConfigError
from iccld.methods.cbst import BINS, Cbst, Settings, balanced_label, class_thresholds, confidence_counts

from ..rounding import differ


def method(tiny: ModuleType, settings: Settings | None = None, iterations: int = 12, seed: int = 0, **changes: Any) -> Cbst:
    made = tiny.parts(seed, **changes)
    ready = tiny.ready(Cbst(made, settings or Settings(), tiny.optimisation(iterations=iterations), made.make_segmenter()))
    assert isinstance(ready, Cbst)
    return ready


# --- λ_c ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("portion", [0.05, 0.15, 0.2, 0.5, 1.0])
def test_thresholds_are_the_confidence_at_the_top_portion_of_each_class(portion: float) -> None:
    generator = torch.Generator().manual_seed(0)
    probability = (3 * torch.randn(2, 3, 20, 25, generator=generator)).softmax(1)
    confidence, label = probability.max(1)
    thresholds = class_thresholds(confidence_counts(probability), portion)
    for class_ in range(3):
        ordered = confidence[label == class_].sort(descending=True).values
        at_portion = float(ordered[math.ceil(portion * len(ordered)) - 1])
        assert float(thresholds[class_]) <= at_portion < float(thresholds[class_]) + 1 / BINS + 1e-6


def test_a_class_that_is_never_predicted_keeps_the_threshold_1() -> None:
    probability = torch.tensor([0.7, 0.3]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert class_thresholds(confidence_counts(probability), 0.5).tolist() == [int(0.7 * BINS) / BINS, 1.0]


def test_counts_of_parts_add_up() -> None:
    probability = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1)).softmax(1)
    assert torch.equal(confidence_counts(probability), confidence_counts(probability[:1]) + confidence_counts(probability[1:]))


def test_labels_are_the_largest_ratio_where_it_reaches_1() -> None:
    probability = torch.tensor([[0.6, 0.4], [0.55, 0.45], [0.7, 0.3], [0.5, 0.5]]).T.view(1, 2, 1, 4)
    label = balanced_label(probability, torch.tensor([0.65, 0.449]))
    # 0.6/0.65 and 0.4/0.449 stay below 1; then class 1 wins although class 0 is likelier; 0.7/0.65; 0.5/0.449
    assert label.flatten().tolist() == [255, 1, 0, 1]


def test_balanced_labels_keep_the_portion_of_every_class() -> None:
    logits = torch.randn(1, 2, 60, 60, generator=torch.Generator().manual_seed(3))
    logits[:, 0] = 4 * logits[:, 0] + 3  # a class that is predicted more often and with more confidence
    probability = logits.softmax(1)
    label = balanced_label(probability, class_thresholds(confidence_counts(probability), 0.2))
    predicted = probability.argmax(1)
    for class_ in range(2):
        kept = float((label == class_)[predicted == class_].float().mean())
        assert kept == pytest.approx(0.2, abs=0.02)


# --- rounds ---------------------------------------------------------------------------------------------------------------


def test_rounds_share_out_the_iterations_and_keep_more_each_time(tiny: ModuleType) -> None:
    made = method(tiny, Settings(rounds=4, portion=0.15, portion_step=0.2, portion_cap=0.5), iterations=12)
    assert [i for i in range(12) if made.starts_round(i)] == [0, 3, 6, 9]
    portions = []
    for _ in range(4):
        made.start_round([tiny.batch()])
        portions.append(made.portion)
    assert portions == pytest.approx([0.15, 0.35, 0.5, 0.5])


def test_the_released_portions(tiny: ModuleType) -> None:
    made, portions = method(tiny), []
    for made.finished_rounds in range(6):
        portions.append(made.portion)
    assert portions == pytest.approx([0.15, 0.2, 0.25, 0.3, 0.35, 0.4])


def test_the_labeller_stands_still_within_a_round(tiny: ModuleType) -> None:
    made = method(tiny, Settings(rounds=2), iterations=4)
    made.start_round([tiny.batch()])
    first = tiny.values(made.labeller)
    for iteration in range(2):
        tiny.step(made, iteration)
    assert torch.equal(tiny.values(made.labeller), first)
    made.start_round([tiny.batch()])
    assert torch.equal(tiny.values(made.labeller), tiny.values(made.model))
    assert differ(tiny.values(made.labeller), first)


def test_a_resumed_round_labels_as_before(tiny: ModuleType) -> None:
    made, other = method(tiny), method(tiny, seed=1)
    made.start_round([tiny.batch()])
    for name, network in other.networks().items():
        network.load_state_dict(made.networks()[name].state_dict())
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.thresholds, made.thresholds)
    assert other.portion == made.portion
    assert tiny.step(made, 1)["target"] == tiny.step(other, 1)["target"]


def test_only_labels_above_the_threshold_teach(tiny: ModuleType) -> None:
    made = method(tiny)
    assert made.thresholds.tolist() == [1.0] * 4  # no round has begun: nothing is certain enough
    assert float(tiny.step(made, 0)["target"]) == 0.0
    made.start_round([tiny.batch()])
    losses = tiny.step(made, 1)
    assert float(losses["target"]) > 0
    assert 0 < float(losses["pseudo_label_share"]) < 0.6


def test_the_loss_falls_on_a_fixed_batch(tiny: ModuleType) -> None:
    made, data = method(tiny, Settings(rounds=1), iterations=1000, views=tiny.STILL), tiny.batch(size=(32, 32))
    made.start_round([data])
    totals = []
    for iteration in range(10):
        losses = tiny.step(made, iteration, data, seed=3)
        totals.append(float(losses["source"] + losses["target"]))
    assert totals[-1] < 0.8 * totals[0], totals


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"settings.rounds is 0"):
        Settings(rounds=0)
