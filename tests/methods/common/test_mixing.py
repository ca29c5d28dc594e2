"""Helpers of the methods that mix: views, weights and margins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iccld.batch import DomainBatch
from iccld.config.views import Views
from iccld.methods.common.mixing import at_size, border_mask, crop_pair, crop_source, crop_target, label_weight, strong_view
from iccld.transforms import Draw

VIEWS = Views(jitter=0.8, mixed_jitter_strength=0.25, blur=0.0)


def changed(once: bool, batches: int = 100) -> torch.Tensor:
    """(batches, 4) bool: which pictures of a batch the view changed."""
    image = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    draw = Draw(torch.Generator().manual_seed(1))
    return torch.stack([(strong_view(image, VIEWS, draw, once=once) != image).flatten(1).any(1) for _ in range(batches)])


def test_jitter_may_be_drawn_once_a_batch() -> None:
    """Released DAFormer: one draw decides for the batch; a probability of 0.8 means applied in 80 % of the batches."""
    together, apart = changed(True), changed(False)
    assert bool((together.all(1) | ~together.any(1)).all())
    assert float(together[:, 0].float().mean()) == pytest.approx(0.8, abs=4 * (0.16 / 100) ** 0.5)
    assert float(apart.float().mean()) == pytest.approx(0.8, abs=4 * (0.16 / 400) ** 0.5)
    assert not bool((apart.all(1) | ~apart.any(1)).all())


def test_jittered_together_is_not_jittered_alike() -> None:
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    views = Views(jitter=1.0, blur=0.0)
    first, second = strong_view(image, views, Draw(torch.Generator().manual_seed(1)), once=True)
    assert not torch.equal(first, second)


def test_the_batchs_draw_is_the_same_on_every_rank() -> None:
    draws = [Draw(torch.Generator().manual_seed(5), rank, 2).shared().uniform(1) for rank in (0, 1)]
    assert torch.equal(*draws)


def test_borders_are_shares_of_the_picture() -> None:
    """DAFormer: the top 15 and bottom 120 of 512 rows.  HRDA: 30, 240, and 30 columns on either side of 2048 x 1024."""
    mask = border_mask((512, 512), 15 / 512, 120 / 512, 0.0, torch.device("cpu"))
    assert mask.all(1).nonzero().flatten().tolist() == list(range(15, 392))
    assert int(mask.sum()) == (392 - 15) * 512
    mask = border_mask((1024, 2048), 30 / 1024, 240 / 1024, 30 / 2048, torch.device("cpu"))
    assert mask[30:784, 30:2018].all()
    assert int(mask.sum()) == 754 * 1988


def test_a_pasted_pixel_weighs_one_or_its_class() -> None:
    label = torch.tensor([[[0, 1, 255]]])
    assert label_weight(label, None).tolist() == [[[1.0, 1.0, 1.0]]]
    assert label_weight(label, torch.tensor([0.5, 2.0])).tolist() == [[[0.5, 2.0, 0.0]]]


def test_resized_repeats_cells_and_keeps_the_type() -> None:
    label = at_size(torch.tensor([[[1, 2]]]), (2, 4))
    assert label.tolist() == [[[1, 1, 2, 2], [1, 1, 2, 2]]]
    assert label.dtype == torch.int64


def a_batch() -> DomainBatch:
    """Bright sources, dark targets."""
    generator = torch.Generator().manual_seed(3)
    source, target = torch.rand(2, 4, 3, 24, 32, generator=generator)
    index = torch.arange(4)
    return DomainBatch(
        source_image=0.6 + 0.4 * source,
        source_label=torch.zeros(4, 24, 32, dtype=torch.int64),
        target_image=0.3 * target,
        source_index=index,
        target_index=index,
    )


def test_lent_sources_have_their_targets_colours() -> None:
    batch = a_batch()
    views = Views(style_probability=1.0)
    source, target = crop_pair(batch, (16, 16), views, Draw(torch.Generator().manual_seed(0)))
    torch.testing.assert_close(source.image.mean((2, 3)), target.image.mean((2, 3)), atol=0.02, rtol=0)
    torch.testing.assert_close(source.image.std((2, 3)), target.image.std((2, 3)), atol=0.02, rtol=0)
    assert source.image.min() >= 0


def a_street(bright: float, dark: float, height: int = 24, width: int = 32) -> torch.Tensor:
    """(4, 3, height, width): a bright sky over a dark road, with some grain."""
    image = torch.full((4, 3, height, width), dark)
    image[:, :, : height // 2] = bright
    return image + 0.02 * torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("is_cut", [False, True])
def test_colours_are_those_of_whole_pictures_so_that_a_window_of_sky_stays_bright(is_cut: bool) -> None:
    label = torch.zeros(4, 24, 32, dtype=torch.int64)
    label[:, 12:] = 1
    images = {"source_image": a_street(0.7, 0.5), "target_image": a_street(0.9, 0.1, 36, 40)}
    batch = a_batch()._replace(source_label=label, **images)
    if is_cut:  # the same pictures in the corner of a larger batch, and black beside them
        sizes = {"source_size": torch.tensor([[24, 32]] * 4), "target_size": torch.tensor([[36, 40]] * 4)}
        wider = {name: nn.functional.pad(image, (0, 20, 0, 30)) for name, image in images.items()}
        batch = batch._replace(source_label=nn.functional.pad(label, (0, 20, 0, 30), value=255), **wider, **sizes)
    views, draw = Views(style_probability=1.0, scale_min=1.0, scale_max=1.0), Draw(torch.Generator().manual_seed(0))
    seen: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(20):
        source, _ = crop_pair(batch, (8, 8), views, draw)
        for image, classes in zip(source.image, source.label, strict=True):
            if classes.min() == classes.max():  # a window of sky alone, or of road alone
                seen[int(classes[0, 0])].append(float(image.mean()))
    assert min(map(len, seen.values())) > 5
    assert seen[0] == pytest.approx([0.91] * len(seen[0]), abs=0.1)
    assert seen[1] == pytest.approx([0.11] * len(seen[1]), abs=0.1)


def test_colours_are_lent_with_their_probability() -> None:
    batch, draw, lent = a_batch(), Draw(torch.Generator().manual_seed(0)), 0
    for _ in range(250):
        source, _ = crop_pair(batch, (16, 16), Views(style_probability=0.3, scale_min=1.0, scale_max=1.0), draw)
        lent += int((source.image.mean((1, 2, 3)) < 0.5).sum())
    # Moments and amplitude are drawn apart, and either darkens the picture.
    expected = 1 - 0.7**2
    assert lent / 1000 == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 1000) ** 0.5)


@pytest.mark.parametrize("probability", [None, 0.0])
def test_unlent_crops_take_no_draw(probability: float | None) -> None:
    """Seeded losses of earlier releases rest on it."""
    batch = a_batch()
    draws = [Draw(torch.Generator().manual_seed(0)) for _ in range(2)]
    source, target = crop_pair(batch, (16, 16), Views(style_probability=probability), draws[0])
    assert torch.equal(source.image, crop_source(batch, (16, 16), Views(), draws[1]).image)
    assert torch.equal(target.image, crop_target(batch, (16, 16), Views(), draws[1]).image)
    assert torch.equal(draws[0].uniform(1), draws[1].uniform(1))
