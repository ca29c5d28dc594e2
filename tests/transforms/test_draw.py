"""Draws of several ranks are the rows of one process' draws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from iccld.transforms import (
    Draw,
    block_mask,
    blur,
    choose_classes,
    classmix,
    exchange_amplitude,
    jitter,
    labelled_crop,
    random_crop,
    sensor_noise,
)


def draw(seed: int = 0, rank: int = 0, world_size: int = 1) -> Draw:
    return Draw(torch.Generator().manual_seed(seed), rank, world_size)


DRAWS: dict[str, Callable[[Draw, int], Tensor]] = {
    "uniform": lambda d, rows: d.uniform(rows, (3,), low=-2, high=5),
    "normal": lambda d, rows: d.normal(rows, (2, 2)),
    "integers": lambda d, rows: d.integers(rows, 0, 1000),
    "chosen": lambda d, rows: d.chosen(rows, 0.5),
}


@pytest.mark.parametrize("name", DRAWS)
def test_ranks_interleave_to_the_draws_of_one_process(name: str) -> None:
    whole = DRAWS[name](draw(), 12)
    for world_size in (2, 3):
        for rank in range(world_size):
            rows = DRAWS[name](draw(rank=rank, world_size=world_size), 12 // world_size)
            assert torch.equal(rows, whole[rank::world_size])


def test_ranks_leave_the_generator_in_the_same_state() -> None:
    first, second = draw(rank=0, world_size=2), draw(rank=1, world_size=2)
    for name in DRAWS:
        DRAWS[name](first, 3)
        DRAWS[name](second, 3)
    assert torch.equal(first.generator.get_state(), second.generator.get_state())


def test_draws_have_their_distribution() -> None:
    uniform = draw().uniform(10_000, low=-2, high=4)
    assert float(uniform.min()) >= -2
    assert float(uniform.max()) < 4
    assert abs(float(uniform.mean()) - 1.0) < 4 * (6 / 12**0.5) / 100
    normal = draw().normal(10_000)
    assert abs(float(normal.mean())) < 0.04
    assert abs(float(normal.std()) - 1) < 0.03
    assert draw().integers(10_000, 3, 6).unique().tolist() == [3, 4, 5]


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.75, 1.0])
def test_chosen_is_true_with_the_probability(probability: float) -> None:
    share = float(draw().chosen(10_000, probability).float().mean())
    assert abs(share - probability) <= 4 * (probability * (1 - probability) / 10_000) ** 0.5


def augment(image: Tensor, label: Tensor, style: Tensor, d: Draw) -> list[Tensor]:
    crop = labelled_crop(image, d, (16, 16), label=label, scale=(0.9, 1.5), stretch=0.2)
    other = random_crop(style, d, (16, 16)).image
    x = exchange_amplitude(jitter(crop.image, d, white_balance=0.2), other, d, probability=0.5, share=(0.1, 0.2))
    mask = choose_classes(crop.label, d)
    mixed = sensor_noise(blur(classmix(mask, x, other), d), d)
    return [mixed, crop.label, mask, block_mask(d.uniform(len(x)), (16, 16), d, block=4)]


def test_two_ranks_augment_as_one_process() -> None:
    generator = torch.Generator().manual_seed(5)
    image = torch.randint(0, 256, (6, 3, 20, 24), generator=generator, dtype=torch.uint8)
    style = torch.randint(0, 256, (6, 3, 20, 24), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 5, (6, 20, 24), generator=generator)
    whole = augment(image, label, style, draw(7))
    for rank in (0, 1):
        rows = augment(image[rank::2], label[rank::2], style[rank::2], draw(7, rank, 2))
        for part, everything in zip(rows, whole, strict=True):
            torch.testing.assert_close(part, everything[rank::2])


def test_one_seed_gives_one_augmentation() -> None:
    image = torch.randint(0, 256, (2, 3, 20, 24), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    label = image[:, 0].long() % 5
    torch.manual_seed(1)
    first = augment(image, label, image.flip(0), draw(7))
    torch.manual_seed(2)  # the global generator has no say
    for one, other in zip(first, augment(image, label, image.flip(0), draw(7)), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first[0], augment(image, label, image.flip(0), draw(8))[0])


def test_mixed_precision_leaves_the_augmentation_alone() -> None:
    """bf16 autocast around a step would round sampling coordinates to 8 bits: labels would move by pixels."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randint(0, 256, (2, 3, 40, 48), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 5, (2, 40, 48), generator=generator)
    expected = augment(image, label, image.flip(0), draw(7))
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        answer = augment(image, label, image.flip(0), draw(7))
    for one, other in zip(answer, expected, strict=True):
        assert torch.equal(one, other)
