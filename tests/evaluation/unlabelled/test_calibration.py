"""What is fitted on labelled pixels recovers what the pixels were made with."""

from __future__ import annotations

import pytest
import torch

from iccld.evaluation.unlabelled.calibration import fit_correctness, fit_temperature, spread_over_classes, tempered
from iccld.evaluation.unlabelled.seen import Seen

from .test_estimates import calibrated


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_temperature_recovers_by_how_much_a_voice_is_overconfident(factor: float) -> None:
    said, truth = calibrated(40_000, 4, seed=3)
    assert fit_temperature(tempered(said, 1 / factor), truth) == pytest.approx(factor, rel=0.03)


def test_correctness_is_the_accuracy_of_each_class_and_of_each_agreement() -> None:
    """Voice b agrees more often where a is right; class 1 is often wrong: the regression knows both."""
    seen = two_voices(40_000, seed=4)
    correct = fit_correctness(seen, "a", ["b"])(seen)
    right = seen.right("a").double()
    agrees = seen.labels("a") == seen.labels("b")
    for kept in (agrees, ~agrees, seen.labels("a") == 1, seen.labels("a") == 0):
        assert float(correct[kept].mean()) == pytest.approx(float(right[kept].mean()), abs=0.02)


def test_correctness_holds_where_labels_are_not_known() -> None:
    """Fitted where the voices are mostly sure, applied where they are not: the same relation holds, and so does the estimate."""
    fitted = fit_correctness(two_voices(40_000, seed=5), "a", ["b"])
    there = two_voices(40_000, seed=6, sharpness=1.0)
    assert float(fitted(there).mean()) == pytest.approx(float(there.right("a").double().mean()), abs=0.02)


def test_correctness_without_its_own_confidence_is_right_on_average() -> None:
    """A voice that became twice as sure is not believed more, since it is not asked."""
    fitted = fit_correctness(two_voices(40_000, seed=8), "a", ["b"], hears_itself=False)
    there = two_voices(40_000, seed=9)
    surer = Seen({**there.voices, "a": tempered(there.voices["a"], 2.0)}, there.picture, there.truth)
    assert torch.equal(fitted(surer), fitted(there))
    assert float(fitted(there).mean()) == pytest.approx(float(there.right("a").double().mean()), abs=0.02)


def test_correctness_needs_labels() -> None:
    seen = two_voices(10, seed=7)
    with pytest.raises(ValueError, match="no right answer"):
        fit_correctness(Seen(seen.voices, seen.picture), "a", ["b"])


def test_spread_keeps_the_winner_and_the_others_proportions() -> None:
    said = torch.tensor([[0.6, 0.3, 0.1], [0.0, 1.0, 0.0]]).log()
    spread = spread_over_classes(said, torch.tensor([0.2, 0.5]))
    assert spread.tolist() == [pytest.approx([0.2, 0.6, 0.2], abs=1e-6), pytest.approx([0.25, 0.5, 0.25], abs=1e-6)]


def two_voices(num: int, seed: int, sharpness: float = 2.0) -> Seen:
    """a is calibrated; b hears the truth as well, with noise of its own."""
    said, truth = calibrated(num, 3, seed, sharpness)
    generator = torch.Generator().manual_seed(seed + 100)
    heard = (torch.randn(num, 3, generator=generator) + 2 * torch.nn.functional.one_hot(truth, 3)).log_softmax(1)
    return Seen({"a": said, "b": heard}, torch.zeros(num, dtype=torch.long), truth)
