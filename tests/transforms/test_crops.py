"""Crop, scale and flip: identity, bounds, and one geometry for picture and maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from iccld.transforms import Draw, WindowRule, choosy_crop, halve, labelled_crop, random_crop


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def coordinates(batch: int, height: int, width: int) -> Tensor:
    """(B, 3, H, W) uint8: red is the column, green the row."""
    columns = torch.arange(width, dtype=torch.uint8).expand(batch, height, width)
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(batch, height, width)
    return torch.stack([columns, rows, torch.zeros_like(rows)], 1)


def test_equal_size_without_scale_or_flip_is_the_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 3, 17, 23), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 256, (3, 17, 23), generator=generator, dtype=torch.uint8)
    valid = torch.rand(3, 17, 23, generator=generator) < 0.5
    kept = image.clone()
    crop = labelled_crop(image, draw(), (17, 23), label=label, flip=0.0)
    other = random_crop(image, draw(), (17, 23), valid=valid, flip=0.0)
    torch.testing.assert_close(crop.image, image.float() / 255, atol=1e-5, rtol=0)
    assert torch.equal(crop.image, other.image)
    assert crop.label.dtype == torch.int64
    assert torch.equal(crop.label, label.long())
    assert torch.equal(other.valid, valid)
    assert torch.equal(image, kept)


def test_an_absent_depth_stays_absent_and_all_of_a_picture_may_teach_unless_told_otherwise() -> None:
    crop = random_crop(coordinates(1, 8, 8), draw(), (4, 4))
    assert crop.depth is None
    assert crop.valid.dtype == torch.bool
    assert crop.valid.all()


def test_float_pictures_are_taken_as_they_are() -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(random_crop(image, draw(), (8, 8), flip=0.0).image, image, atol=1e-5, rtol=0)


def test_always_flip_mirrors_picture_and_label() -> None:
    image = coordinates(2, 10, 14)
    crop = labelled_crop(image, draw(), (10, 14), label=image[:, 0], flip=1.0)
    assert torch.equal(crop.label, image[:, 0].flip(2).long())
    torch.testing.assert_close(crop.image * 255, image.flip(3).float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_flip_is_applied_with_its_probability(probability: float) -> None:
    image = coordinates(10_000, 2, 2)
    flipped = labelled_crop(image, draw(), (2, 2), label=image[:, 0], flip=probability).label
    share = float(flipped[:, 0, 0].float().mean())
    assert abs(share - probability) <= 4 * (probability * (1 - probability) / 10_000) ** 0.5


def test_picture_and_label_share_the_geometry() -> None:
    image = coordinates(64, 40, 60)
    for channel, length in ((0, 60), (1, 40)):
        crop = labelled_crop(image, draw(3), (16, 24), label=image[:, channel], scale=(0.9, 2.0), stretch=0.3, flip=0.5)
        # Bilinear colour and nearest label are two readings of one coordinate: never more than half a pixel apart.
        assert float((crop.image[:, channel] * 255 - crop.label).abs().max()) <= 0.5 + 1e-3
        assert 0 <= int(crop.label.min()) < int(crop.label.max()) < length
        assert len(crop.label[:, 0, 0].unique()) > 20  # not one window for all


def test_crops_stay_within_bounds_and_reach_every_edge() -> None:
    image = coordinates(2000, 20, 30)
    crop = random_crop(image, draw(), (8, 12), flip=0.0)
    columns, rows = crop.image[:, 0] * 255, crop.image[:, 1] * 255
    # Beyond the edge the border repeats: a step of exactly one pixel everywhere means that no crop went there.
    torch.testing.assert_close(columns.diff(dim=2), torch.ones(2000, 8, 11), atol=1e-3, rtol=0)
    torch.testing.assert_close(rows.diff(dim=1), torch.ones(2000, 7, 12), atol=1e-3, rtol=0)
    assert float(columns.min()) < 0.1
    assert float(columns.max()) > 28.9
    assert float(rows.min()) < 0.1
    assert float(rows.max()) > 18.9


def test_scale_enlarges_before_cropping() -> None:
    crop = random_crop(coordinates(500, 40, 40), draw(), (8, 8), scale=(1.0, 2.0), flip=0.0)
    step = (crop.image[:, 0] * 255).diff(dim=2)[:, 4, 3]  # source pixels per crop pixel, 1 / factor
    assert 0.499 < float(step.min()) < 0.52
    assert 0.98 < float(step.max()) < 1.001
    assert abs(float((1 / step).log().mean()) - 0.5 * torch.tensor(2.0).log().item()) < 0.03  # log-uniform


def window_before_pictures_could_be_smaller(
    seed: int, shape: tuple[int, int, int], size: tuple[int, int], scale: tuple[float, float], stretch: float
) -> Tensor:
    """The windows of scales from 1 up, where a crop never leaves its picture: (B, 2, 3)."""
    draws, (batch, height, width) = draw(seed), shape
    low, high = torch.tensor(scale).log().tolist()
    factor = draws.uniform(batch, low=low, high=high).exp()
    aspect = (1 + stretch * draws.uniform(batch, low=-1, high=1)).sqrt()
    extent_y = (size[0] / (height * factor * aspect)).clamp(max=1.0)
    extent_x = (size[1] / (width * factor / aspect)).clamp(max=1.0)
    centre_y = (1 - extent_y) * draws.uniform(batch, low=-1, high=1)
    centre_x = (1 - extent_x) * draws.uniform(batch, low=-1, high=1)
    mirror = 1.0 - 2.0 * draws.chosen(batch, 0.5).float()
    zero = torch.zeros_like(factor)
    return torch.stack([extent_x * mirror, zero, centre_x, zero, extent_y, centre_y], 1).view(batch, 2, 3)


@pytest.mark.parametrize("size", [(20, 30), (20, 16), (8, 12)])
def test_scales_from_1_up_never_leave_the_picture_and_are_what_they_always_were(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (64, 3, 20, 30), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    crop = labelled_crop(image, draw(5), size, label=image[:, 0], scale=(1.0, 1.8), stretch=0.2)
    theta = window_before_pictures_could_be_smaller(5, (64, 20, 30), size, (1.0, 1.8), 0.2)
    grid = torch.nn.functional.affine_grid(theta, [64, 1, *size], align_corners=False)
    options = {"padding_mode": "border", "align_corners": False}
    assert torch.equal(crop.image, torch.nn.functional.grid_sample(image.float() / 255, grid, mode="bilinear", **options))
    assert torch.equal(crop.label, torch.nn.functional.grid_sample(image[:, :1].float(), grid, mode="nearest", **options)[:, 0].long())
    assert random_crop(image, draw(5), size, scale=(1.0, 1.8), stretch=0.2).valid.all()


def test_a_picture_smaller_than_the_crop_lies_at_a_random_place_and_teaches_nothing_around() -> None:
    """At half its size a picture covers a quarter of a crop of its size: its rows and columns are whole, and 255 around them."""
    image = coordinates(400, 20, 20)
    depth = torch.ones(400, 20, 20)
    crop = labelled_crop(image, draw(), (20, 20), label=image[:, 0], depth=depth, scale=(0.5, 0.5), stretch=0.0)
    target = random_crop(image, draw(), (20, 20), depth=depth, scale=(0.5, 0.5), stretch=0.0)
    assert crop.depth is not None
    inside = crop.label != 255
    assert torch.equal(inside, target.valid)
    assert torch.equal(inside, crop.depth > 0)
    assert target.depth is not None
    assert torch.equal(inside, target.depth > 0)
    columns, rows = inside.any(1), inside.any(2)  # (B, 20) each
    assert set(columns.sum(1).tolist()) <= {9, 10, 11}
    assert torch.equal(inside, rows[:, :, None] & columns[:, None])
    first_column, first_row = columns.float().argmax(1), rows.float().argmax(1)
    for first in (first_column, first_row):
        assert int(first.min()) == 0
        assert int(first.max()) >= 9
    step = (crop.image[:, 0] * 255).diff(dim=2).abs()[:, 10]  # two columns of the picture for one of the crop, and the border around
    assert float(step.max()) == pytest.approx(2, abs=1e-3)
    assert 0 <= float(crop.image.min()) <= float(crop.image.max()) <= 19 / 255 + 1e-6
    small = random_crop(coordinates(2, 10, 20), draw(), (20, 20), flip=0.0)  # at scale 1, one side too short
    assert small.valid.any(2).sum(1).tolist() == [10, 10]


def test_a_pixel_weighs_what_its_scale_says_on_both_sides_of_1() -> None:
    image = coordinates(500, 40, 40)
    crop = random_crop(image, draw(), (40, 40), scale=(0.5, 2.0), flip=0.0)
    step = (crop.image[:, 0] * 255).diff(dim=2).amax((1, 2))
    assert 0.499 < float(step.min()) < 0.52
    assert 1.95 < float(step.max()) < 2.001
    assert float(step.log().mean()) == pytest.approx(0.0, abs=0.05)  # log-uniform


def test_rows_of_different_size_are_seen_as_if_alone() -> None:
    """What fills a batch up to its largest picture is never seen: each row as in a batch of its own."""
    sizes = [(20, 30), (30, 14), (12, 40)]
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    filled = torch.full((3, 3, 30, 40), 77, dtype=torch.uint8)
    for row, picture in zip(filled, pictures, strict=True):
        row[:, : picture.shape[1], : picture.shape[2]] = picture
    options: dict[str, Any] = {"scale": (0.7, 1.5), "stretch": 0.1}
    crop = labelled_crop(filled, draw(2), (16, 24), label=filled[:, 0], true_size=torch.tensor(sizes), **options)
    for row, (picture, size) in enumerate(zip(pictures, sizes, strict=True)):
        alone = labelled_crop(picture.expand(3, -1, -1, -1), draw(2), (16, 24), label=picture[:1].expand(3, -1, -1), **options)
        assert torch.equal(crop.label[row], alone.label[row]), size
        assert torch.equal(crop.image[row], alone.image[row])
    chosen = choosy_crop(
        filled, draw(2), (16, 24), label=filled[:, 0], true_size=torch.tensor(sizes), rule=WindowRule(max_share=0.5, tries=3)
    )
    assert chosen.image.shape == (3, 3, 16, 24)


def test_stretch_changes_the_aspect_ratio_by_its_share() -> None:
    crop = random_crop(coordinates(500, 60, 60), draw(), (8, 8), stretch=0.2, flip=0.0)
    step_x, step_y = (crop.image[:, 0] * 255).diff(dim=2)[:, 4, 3], (crop.image[:, 1] * 255).diff(dim=1)[:, 3, 4]
    ratio = step_x / step_y
    assert 0.799 < float(ratio.min()) < 0.82
    assert 1.18 < float(ratio.max()) < 1.201
    torch.testing.assert_close(step_x * step_y, torch.ones(500), atol=1e-3, rtol=0)  # the area stays


def test_labels_are_never_interpolated() -> None:
    label = torch.tensor([3, 255, 7])[torch.randint(0, 3, (16, 20, 20), generator=torch.Generator().manual_seed(0))]
    crop = labelled_crop(coordinates(16, 20, 20), draw(), (32, 32), label=label, scale=(0.7, 2.3), stretch=0.3)
    assert crop.label.unique().tolist() == [3, 7, 255]


def test_colours_stay_between_0_and_1() -> None:
    image = torch.randint(0, 2, (8, 3, 20, 20), generator=torch.Generator().manual_seed(0)).mul(255).to(torch.uint8)
    crop = random_crop(image, draw(), (16, 16), scale=(1, 2)).image
    assert crop.dtype == torch.float32
    assert 0 <= float(crop.min()) < float(crop.max()) <= 1


def test_halve_takes_the_mean_of_the_image_and_one_label_of_each_four() -> None:
    image = torch.tensor([[0.0, 1.0, 0.2, 0.2], [1.0, 0.0, 0.2, 0.2]]).expand(1, 3, 2, 4)
    label = torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 255]]])
    small, few = halve(image, label)
    torch.testing.assert_close(small, torch.tensor([[0.5, 0.2]]).expand(1, 3, 1, 2))
    assert few.tolist() == [[[6, 255]]]


def test_depth_keeps_its_metres_and_follows_the_picture() -> None:
    image = coordinates(6, 12, 20)
    depth = image[:, 0].float() + 0.25  # the column, and a fraction that whole numbers would lose
    crop = random_crop(image, draw(), (12, 20), depth=depth, scale=(1.0, 1.8), flip=0.5)
    assert crop.depth is not None
    assert crop.depth.shape == (6, 12, 20)
    assert set(crop.depth.unique().tolist()) <= set(depth.unique().tolist())  # no metres in between, none rescaled
    assert float((crop.depth - 0.25 - 255 * crop.image[:, 0]).abs().max()) <= 0.51


def one_corner(batch: int) -> tuple[Tensor, Tensor]:
    """Pictures of 16 x 16 whose class 3 is one quarter, in a corner; class 0 elsewhere."""
    label = torch.zeros(batch, 16, 16, dtype=torch.uint8)
    label[:, :8, :8] = 3
    return torch.zeros(batch, 3, 16, 16, dtype=torch.uint8), label


def shares(crop_label: Tensor, train_id: int) -> Tensor:
    return (crop_label == train_id).float().mean((1, 2))


def test_windows_are_tried_until_one_shows_enough_of_the_class() -> None:
    image, label = one_corner(400)
    wanted = torch.full((400,), 3)
    once = choosy_crop(image, draw(), (4, 4), label=label, wanted=wanted, rule=WindowRule(min_share=0.5, tries=1))
    chosen = choosy_crop(image, draw(), (4, 4), label=label, wanted=wanted, rule=WindowRule(min_share=0.5))
    p = float((shares(once.label, 3) > 0.5).float().mean())
    # Ten independent windows all miss with probability (1 - p)^10.
    assert float((shares(chosen.label, 3) > 0.5).float().mean()) == pytest.approx(1 - (1 - p) ** 10, abs=0.05)
    plain = labelled_crop(image, draw(), (4, 4), label=label)
    assert torch.equal(once.label, plain.label)


def test_no_class_may_fill_a_window() -> None:
    """mmsegmentation's `cat_max_ratio`, 0.75 in DAFormer: unlabelled pixels do not count."""
    image, label = one_corner(300)
    label[:, 12:] = 255
    crop = choosy_crop(image, draw(), (4, 4), label=label, rule=WindowRule(max_share=0.75, tries=200))
    zero, three = shares(crop.label, 0), shares(crop.label, 3)
    assert float((torch.maximum(zero, three) < 0.75 * (zero + three)).float().mean()) > 0.99
