"""Rare-class sampling: closed forms, then 10,000 draws."""

from __future__ import annotations

import numpy as np
import pytest

from iccld.data.rare_class import class_probabilities, rare_class_sampler
from iccld.errors import DataError

COUNTS = np.array([[9000, 1000, 0], [9000, 0, 1000], [9999, 1, 0]], dtype=np.int64)


def test_class_probabilities_closed_form() -> None:
    share = COUNTS.sum(axis=0) / COUNTS.sum()
    expected = np.exp((1 - share) / 0.5)
    np.testing.assert_allclose(class_probabilities(COUNTS, 0.5), expected / expected.sum())


def test_class_probabilities_survive_a_small_temperature() -> None:
    probabilities = class_probabilities(np.array([[10**9, 1, 1]]), 1e-4)
    np.testing.assert_allclose(probabilities, [0, 0.5, 0.5], atol=1e-12)


def test_absent_class_has_probability_zero() -> None:
    assert class_probabilities(np.array([[5, 0]]))[1] == 0


def test_draws_follow_probabilities_and_only_pictures_with_enough() -> None:
    sampler = rare_class_sampler(COUNTS, temperature=0.5)
    rng = np.random.default_rng(0)
    draws = [sampler.draw(rng) for _ in range(10_000)]
    share = np.bincount([train_id for _, train_id in draws], minlength=3) / 10_000
    np.testing.assert_allclose(share, class_probabilities(COUNTS, 0.5), atol=0.02)
    assert {index for index, train_id in draws if train_id == 1} == {0}  # picture 2 shows a single pixel of class 1
    assert {index for index, train_id in draws if train_id == 2} == {1}
    common = np.bincount([index for index, train_id in draws if train_id == 0], minlength=3)
    np.testing.assert_allclose(common / common.sum(), [1 / 3] * 3, atol=0.03)


def test_draw_is_a_pure_function_of_the_generator() -> None:
    sampler = rare_class_sampler(COUNTS)
    first, second = (np.random.default_rng(7) for _ in range(2))
    assert [sampler.draw(first) for _ in range(20)] == [sampler.draw(second) for _ in range(20)]


def test_min_pixels_is_exclusive() -> None:
    sampler = rare_class_sampler(COUNTS, min_pixels=1000)
    assert [pictures.tolist() for pictures in sampler.pictures] == [[0, 1, 2], [], []]
    np.testing.assert_allclose(sampler.probabilities, [1, 0, 0])


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(DataError, match="no labelled pixel"):
        class_probabilities(np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(DataError, match="no picture shows enough"):
        rare_class_sampler(COUNTS, min_pixels=10**6)
