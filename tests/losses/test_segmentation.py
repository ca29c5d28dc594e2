"""Eq. 5 against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from iccld.losses import cross_entropy, label_at

LOG2 = math.log(2.0)


def test_cross_entropy_divides_by_all_pixels() -> None:
    # Two classes at equal logits cost log 2; the certain pixel costs log(1 + e^-20) = 0; the ignored one costs nothing but counts.
    logits = torch.tensor([[[[0.0, 0.0], [20.0, 5.0]], [[0.0, 0.0], [0.0, 5.0]]]])  # (1, 2, 2, 2)
    label = torch.tensor([[[0, 1], [0, 255]]])
    assert float(cross_entropy(logits, label)) == pytest.approx(2 * LOG2 / 4, abs=1e-6)


def test_cross_entropy_of_ignored_images_is_zero() -> None:
    assert float(cross_entropy(torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 255))) == 0.0


def test_pixel_weight_multiplies_each_pixel() -> None:
    weight = torch.tensor([[[1.0, 0.5], [0.0, 0.25]]])
    loss = cross_entropy(torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 1], [0, 255]]]), weight)
    assert float(loss) == pytest.approx((1.0 + 0.5 + 0.0) * LOG2 / 4, abs=1e-6)


def test_class_weight_multiplies_the_pixels_of_its_class() -> None:
    loss = cross_entropy(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 1, 1, 255]]]), class_weight=torch.tensor([3.0, 0.5]))
    assert float(loss) == pytest.approx((3.0 + 0.5 + 0.5) * LOG2 / 4, abs=1e-6)


def test_cross_entropy_is_linear_in_the_images() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, 6, 6, generator=generator)
    label = torch.randint(0, 5, (4, 6, 6), generator=generator)
    label[0] = 255  # an average over valid pixels would weigh the halves differently
    weight = torch.rand(4, 6, 6, generator=generator)
    class_weight = torch.rand(5, generator=generator)
    whole = cross_entropy(logits, label, weight, class_weight)
    halves = [cross_entropy(logits[rows], label[rows], weight[rows], class_weight) for rows in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, whole)


def test_cross_entropy_reads_uint8_labels_and_half_precision_logits() -> None:
    logits = torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.zeros(1, 2, 2, dtype=torch.uint8))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(LOG2, abs=1e-6)


def test_cross_entropy_pairs_label_and_weight_at_the_logits_resolution() -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    weight = torch.zeros(1, 8, 8)
    weight[0, 2, 6] = 1.0  # the centre of cell (0, 1) of a 2 x 2 grid of 4 x 4 cells
    assert float(cross_entropy(torch.zeros(1, 2, 2, 2), label, weight)) == pytest.approx(LOG2 / 4, abs=1e-6)


@pytest.mark.parametrize("size", [(6, 8), (4, 4), (3, 2), (2, 8), (12, 16), (1, 1)])
def test_label_at_reads_the_pixel_under_the_centre_of_each_cell(size: tuple[int, int]) -> None:
    height, width = 12, 16
    label = torch.arange(height * width).view(1, height, width)
    rows = [math.floor((i + 0.5) * height / size[0]) for i in range(size[0])]
    columns = [math.floor((j + 0.5) * width / size[1]) for j in range(size[1])]
    expected = label[:, rows][:, :, columns]
    assert torch.equal(label_at(label, size), expected)


@pytest.mark.parametrize("size", [(5, 7), (24, 32), (9, 16)])
def test_label_at_handles_sizes_that_are_no_divisors(size: tuple[int, int]) -> None:
    label = torch.randint(0, 256, (2, 12, 16), generator=torch.Generator().manual_seed(0))
    rows = [math.floor((i + 0.5) * 12 / size[0]) for i in range(size[0])]
    columns = [math.floor((j + 0.5) * 16 / size[1]) for j in range(size[1])]
    answer = label_at(label, size)
    assert answer.dtype == label.dtype
    assert torch.equal(answer, label[:, rows][:, :, columns])


def test_the_mean_may_leave_out_unlabelled_pixels() -> None:
    """DAFormer's released loss divides by all pixels, the paper's by the labelled ones."""
    label = torch.tensor([[[0, 1], [255, 255]]])
    logits = torch.zeros(1, 4, 2, 2)
    assert float(cross_entropy(logits, label)) == pytest.approx(math.log(4) / 2)
    assert float(cross_entropy(logits, label, count_ignored=False)) == pytest.approx(math.log(4))
