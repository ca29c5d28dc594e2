"""Fault 19's second half: pseudo-labels that collapse are named, once, after a while."""

from __future__ import annotations

import pytest

from iccld.training import health
from iccld.training.health import PseudoLabelWatch


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LEAST_ITERATIONS", 100)


def said(means: dict[str, object], iterations: int, every: int = 10, total: int = 400) -> list[tuple[int, str]]:
    """(iteration, sentence) of a stage of `total` steps with the same means all along."""
    watch = PseudoLabelWatch(total)
    return [(end, text) for end in range(every, iterations + 1, every) for text in watch.due_warnings(means, end - every, end)]


@pytest.mark.parametrize(
    ("means", "word"),
    [
        ({"pseudo_label_share": 0.001}, "fewer than 1 %"),
        ({"pseudo_label_share": 0.999}, "more than 99 %"),
        ({"pseudo_label_share": 0.5, "pseudo_label_histogram": [0.02, 0.97, 0.01]}, "one class"),
    ],
)
def test_fault_19_collapse_is_named_once_after_a_hundred_iterations(means: dict[str, object], word: str) -> None:
    told = said(means, 400)
    assert [iteration for iteration, _ in told] == [100]
    assert told[0][1].startswith("since iteration 0 ")
    assert word in told[0][1]
    assert said(means, 90) == []


@pytest.mark.parametrize(
    "means", [{}, {"pseudo_label_share": float("nan")}, {"pseudo_label_share": 0.6, "pseudo_label_histogram": [0.9, 0.1]}]
)
def test_fault_19_healthy_or_absent_statistics_say_nothing(means: dict[str, object]) -> None:
    assert said(means, 400) == []


def test_fault_19_a_break_starts_the_count_again_and_long_stages_wait_longer() -> None:
    watch = PseudoLabelWatch(400)
    few, fine = {"pseudo_label_share": 0.0}, {"pseudo_label_share": 0.4}
    assert watch.due_warnings(few, 0, 90) == []
    assert watch.due_warnings(fine, 90, 100) == []
    assert watch.due_warnings(few, 100, 190) == []
    assert len(watch.due_warnings(few, 190, 200)) == 1
    assert said(few, 3900, total=40_000) == []
    assert said(few, 4000, total=40_000)[0][0] == 4000


def test_fault_19_memory_of_a_collapse_survives_a_resume() -> None:
    few = {"pseudo_label_share": 0.0}
    before, after = PseudoLabelWatch(400), PseudoLabelWatch(400)
    before.due_warnings(few, 0, 60)
    after.load_state_dict(before.state_dict())
    assert len(after.due_warnings(few, 60, 100)) == 1
    after.load_state_dict(after.state_dict())
    assert after.due_warnings(few, 100, 200) == []


def test_fault_19_a_class_that_fills_the_source_may_fill_the_target() -> None:
    rare = {"pseudo_label_share": 0.6, "pseudo_label_histogram": [0.9987, 0.0013]}
    shares = [0.9987, 0.0013]
    watch = PseudoLabelWatch(400, shares)
    assert [text for end in range(10, 401, 10) for text in watch.due_warnings(rare, end - 10, end)] == []
    lost = {"pseudo_label_share": 0.6, "pseudo_label_histogram": [0.9999, 0.0001]}
    watch = PseudoLabelWatch(400, shares)
    assert len([text for end in range(10, 401, 10) for text in watch.due_warnings(lost, end - 10, end)]) == 1
