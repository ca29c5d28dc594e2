"""Which classes are pasted, and that picture and label follow one mask."""

from __future__ import annotations

import pytest
import torch

from iccld.transforms import Draw, choose_classes, classmix


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("classes", "expected"), [([4], 1), ([0, 9], 1), ([0, 3, 18], 2), ([0, 1, 2, 3], 2), ([1, 2, 3, 5, 8], 3)])
def test_half_of_the_classes_rounded_up_are_chosen(classes: list[int], expected: int) -> None:
    label = torch.tensor(classes).repeat(3).view(1, 1, -1).expand(50, 1, -1)
    mask = choose_classes(label, draw())
    assert mask.shape == label.shape
    for one, chosen in zip(label, mask, strict=True):
        inside, outside = set(one[chosen].tolist()), set(one[~chosen].tolist())
        assert len(inside) == expected
        assert inside.isdisjoint(outside)  # whole classes
        assert inside | outside == set(classes)


def test_ignore_counts_as_a_class_only_when_asked() -> None:
    label = torch.tensor([0, 1, 255]).expand(2000, 1, 3)
    without = choose_classes(label, draw())
    assert not without[label == 255].any()
    assert torch.equal(without.sum((1, 2)), torch.ones(2000, dtype=torch.int64))  # ceil(2 / 2)
    counted = choose_classes(label, draw(), with_ignore=True)
    assert torch.equal(counted.sum((1, 2)), torch.full((2000,), 2))  # ceil(3 / 2)
    assert abs(float(counted[label == 255].float().mean()) - 2 / 3) < 0.05


def test_nothing_is_pasted_from_a_picture_without_labels() -> None:
    assert not choose_classes(torch.full((2, 4, 4), 255), draw()).any()


def test_classes_are_drawn_uniformly() -> None:
    classes = torch.tensor([0, 7, 11, 250])
    mask = choose_classes(classes.view(1, 1, 4).expand(10_000, 1, 4), draw())[:, 0]  # (10000, 4)
    counts = torch.bincount((mask * torch.tensor([1, 2, 4, 8])).sum(1), minlength=16)
    pairs = counts[[3, 5, 6, 9, 10, 12]]
    assert int(pairs.sum()) == 10_000  # always two of four
    spread = 4 * (10_000 * (1 / 6) * (5 / 6)) ** 0.5
    assert float((pairs - 10_000 / 6).abs().max()) < spread


def test_every_picture_draws_its_own_classes() -> None:
    label = torch.tensor([[[0, 1]], [[2, 3]]]).repeat(200, 1, 1)
    mask = choose_classes(label, draw())
    assert torch.equal(mask.sum((1, 2)), torch.ones(400, dtype=torch.int64))
    assert (mask[::2, 0, 0] != mask[1::2, 0, 0]).any()


def test_picture_and_label_follow_one_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(0, 6, (4, 9, 9), generator=generator) for _ in range(2))
    mask = choose_classes(source, draw())
    label = classmix(mask, source, target)
    picture = classmix(mask, source[:, None].expand(4, 3, 9, 9) / 10, target[:, None].expand(4, 3, 9, 9) / 10)
    assert picture.shape == (4, 3, 9, 9)
    for channel in range(3):
        assert torch.equal((picture[:, channel] * 10).round().long(), label)
    assert torch.equal(label[mask], source[mask])
    assert torch.equal(label[~mask], target[~mask])
    assert 0 < int(mask.sum()) < mask.numel()


def test_classes_may_be_drawn_from_the_whole_batch() -> None:
    """DAFormer's released code halves the batch's classes for each picture, so that a picture may lend none or all of its own."""
    label = torch.tensor([[[0, 1]], [[2, 3]]]).repeat(500, 1, 1)
    present = torch.zeros(256, dtype=torch.bool)
    present[:4] = True
    lent = choose_classes(label, draw(), present=present).sum((1, 2))
    # Two of four classes: none, one or both of a picture's own two with probability 1/6, 4/6, 1/6.
    assert lent.bincount().div(1000).tolist() == pytest.approx([1 / 6, 4 / 6, 1 / 6], abs=0.05)
    assert choose_classes(label, draw()).sum((1, 2)).unique().tolist() == [1]
