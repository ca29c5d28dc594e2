"""Estimates without labels where the right answer is known: calibrated voices, thresholds, lines, confusions."""

from __future__ import annotations

import pytest
import torch

from iccld.evaluation.unlabelled.estimates import (
    accuracy_of,
    agreement,
    agreement_on_the_line,
    average_confidence,
    average_thresholded_confidence,
    confidence_score,
    expected_confusion,
    miou_of,
    threshold_of,
)

NORMAL = torch.distributions.Normal(0.0, 1.0)


def calibrated(num: int, num_classes: int, seed: int = 0, sharpness: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities, and a truth drawn from them: a calibrated voice by construction."""
    generator = torch.Generator().manual_seed(seed)
    said = (sharpness * torch.randn(num, num_classes, generator=generator)).log_softmax(1)
    return said, torch.multinomial(said.exp(), 1, generator=generator)[:, 0]


def test_average_confidence_of_a_calibrated_voice_is_its_accuracy() -> None:
    said, truth = calibrated(50_000, 5)
    accuracy = (said.argmax(1) == truth).double().mean()
    assert average_confidence(said) == pytest.approx(float(accuracy), abs=0.006)


def test_expected_confusion_of_a_calibrated_voice_is_the_true_one() -> None:
    said, truth = calibrated(50_000, 4, seed=1)
    labels = said.argmax(1)
    true = torch.zeros(4, 4, dtype=torch.float64)
    true.index_put_((truth, labels), torch.ones(len(truth), dtype=torch.float64), accumulate=True)
    expected = expected_confusion(said.exp(), labels)
    everything = torch.ones(4, dtype=torch.bool)
    assert (expected - true).abs().max() / len(truth) < 0.004
    assert accuracy_of(expected) == pytest.approx(accuracy_of(true), abs=0.006)
    assert miou_of(expected, everything) == pytest.approx(miou_of(true, everything), abs=0.01)


def test_expected_confusion_of_certain_pixels_is_a_count() -> None:
    posterior = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    confusion = expected_confusion(posterior, torch.tensor([0, 0, 1]))
    assert confusion.tolist() == [[1.0, 0.25], [1.0, 0.75]]
    assert accuracy_of(confusion) == pytest.approx(1.75 / 3)
    assert miou_of(confusion, torch.tensor([True, True])) == pytest.approx((1 / 2.25 + 0.75 / 2) / 2)
    assert miou_of(confusion, torch.tensor([True, False])) == pytest.approx(1 / 2.25)


def test_threshold_reproduces_the_accuracy_where_it_was_found() -> None:
    said, truth = calibrated(5_000, 3, seed=2)
    right = said.argmax(1) == truth
    score = confidence_score(said)
    assert average_thresholded_confidence(score, threshold_of(score, right)) == pytest.approx(float(right.double().mean()), abs=1e-9)


def test_threshold_tells_the_accuracy_of_an_easier_set() -> None:
    """Right exactly where the score exceeds a number: the estimate is exact on any other set of which that holds."""
    score = torch.linspace(0, 1, 1001)
    found = threshold_of(score, score > 0.4)
    assert average_thresholded_confidence(torch.linspace(0.3, 1, 701), found) == pytest.approx(600 / 701)


@pytest.mark.parametrize(("right", "expected"), [(False, 0.0), (True, 1.0)])
def test_threshold_of_a_voice_that_is_never_or_always_right(right: bool, expected: float) -> None:
    score = torch.rand(10)
    assert average_thresholded_confidence(score, threshold_of(score, torch.full((10,), right))) == expected


def test_accuracies_lie_on_the_line_of_agreements() -> None:
    accuracy, slope, offset = [0.9, 0.8, 0.7], 0.8, -0.3
    agree = [0.85, 0.75, 0.7]

    def moved(shares: list[float]) -> list[float]:
        return NORMAL.cdf(slope * NORMAL.icdf(torch.tensor(shares, dtype=torch.float64)) + offset).tolist()

    assert agreement_on_the_line(accuracy, agree, moved(agree)) == pytest.approx(moved(accuracy), abs=1e-6)


def test_two_pairs_make_a_line_of_slope_one() -> None:
    found = agreement_on_the_line([0.5], [0.8], [0.8])
    assert found == pytest.approx([0.5])


def test_agreement_counts_pixels() -> None:
    assert agreement(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])) == 0.75
