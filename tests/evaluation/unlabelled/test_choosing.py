"""Which pictures are chosen, on made-up figures."""

from __future__ import annotations

import pytest
import torch

from iccld.evaluation.unlabelled.choosing import look_of, spread_choice, values


def test_the_most_valuable_comes_first_and_its_copy_last() -> None:
    value = torch.tensor([0.5, 0.9, 0.9, 0.4], dtype=torch.float64)
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert spread_choice(value, features, 4) == [1, 3, 0, 2]


def test_equal_values_give_the_greedy_k_center() -> None:
    features = torch.tensor([[0.0], [1.0], [2.1], [10.0], [10.5]], dtype=torch.float64)
    chosen = spread_choice(torch.ones(5, dtype=torch.float64), features, 3)
    assert chosen == [0, 4, 2]
    radius = float(torch.cdist(features, features[chosen]).min(1).values.max())
    assert radius == pytest.approx(1.0)  # 1.0 lies between 0.0 and 2.1


@pytest.mark.parametrize(("num", "expected"), [(1, 1), (3, 3), (99, 3)])
def test_no_picture_is_chosen_twice(num: int, expected: int) -> None:
    chosen = spread_choice(torch.ones(3, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64), num)
    assert len(set(chosen)) == len(chosen) == expected


def test_nothing_is_chosen_from_nothing() -> None:
    assert spread_choice(torch.zeros(0), torch.zeros(0, 2), 5) == []


def test_doubt_and_rare_classes_raise_the_value() -> None:
    common, rare = [1.0, 0.0], [0.7, 0.3]
    value = values(torch.tensor([0.1, 0.3, 0.1], dtype=torch.float64), torch.tensor([common, common, rare], dtype=torch.float64))
    assert value.argmin() == 0
    assert value[1] > value[0]
    assert value[2] > value[0]
    assert ((value > 0) & (value <= 1)).all()


def test_doubt_is_what_the_voices_hold_against_the_decision() -> None:
    main, other = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)
    main[:, 0] = 1.0  # certain of class 0
    other[:, 0], other[:, 1] = 0.5, 0.5
    look = look_of([main, other], torch.zeros(1, 3, 8, 8))
    assert look.doubt == pytest.approx(0.25)
    assert look.shares.tolist() == [1.0, 0.0]
    mirrored = look_of([main.flip(3), other], torch.zeros(1, 3, 8, 8))
    assert torch.equal(look.features, mirrored.features)
    half = torch.zeros(1, 3, 8, 8)
    half[:, :, :, :4] = 1.0
    assert (look_of([main, other], half).features - look_of([main, other], half.flip(3)).features).norm() > 0.5
