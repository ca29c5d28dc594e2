"""The interval of mIoU over blocks of neighbouring frames."""

import numpy as np
import pytest

from iccld.errors import ConfigError, DataError
from iccld.evaluation import Confusion, bootstrap_difference, bootstrap_miou, bootstrap_over_seeds


def frames(accuracies, seed=0, pixels=400):
    generator = np.random.default_rng(seed)
    result = []
    for accuracy in accuracies:
        truth = generator.integers(0, 3, size=(1, pixels)).astype(np.uint8)
        wrong = generator.random((1, pixels)) > accuracy
        confusion = Confusion(3)
        confusion.update(truth, np.where(wrong, (truth + 1) % 3, truth).astype(np.uint8))
        result.append(confusion)
    return result


def merged_miou(confusions):
    whole = Confusion(3)
    for confusion in confusions:
        whole.merge(confusion)
    return 100.0 * np.nanmean(whole.iou())


def test_bootstrap_estimate_is_the_miou_of_all_images_and_lies_inside():
    images = frames(np.linspace(0.4, 0.9, 20))
    interval = bootstrap_miou(images, block=1, seed=0)
    assert interval.estimate == pytest.approx(merged_miou(images))
    assert interval.low < interval.estimate < interval.high
    assert interval == bootstrap_miou(images, block=1, seed=0)
    assert interval != bootstrap_miou(images, block=1, seed=1)


def test_bootstrap_is_wider_in_blocks_when_neighbours_resemble_each_other():
    images = frames([0.9] * 20 + [0.3] * 20)
    single, blocks = bootstrap_miou(images, 1, 0), bootstrap_miou(images, 10, 0)
    assert blocks.high - blocks.low > 1.5 * (single.high - single.low)


def test_bootstrap_of_equal_images_or_one_whole_block_has_no_width():
    image = frames([0.7])[0]
    assert bootstrap_miou([image] * 5, 2, 0)[:3] == pytest.approx([bootstrap_miou([image], 1, 0).estimate] * 3)
    images = frames(np.linspace(0.4, 0.9, 7))
    interval = bootstrap_miou(images, 7, 0)
    assert interval.low == pytest.approx(interval.high)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    population = frames(generator.uniform(0.3, 0.95, size=300), pixels=100)
    truth = merged_miou(population)
    hits = 0
    for trial in range(100):
        drawn = [population[i] for i in generator.integers(0, 300, size=40)]
        interval = bootstrap_miou(drawn, 1, trial, num_draws=200, level=0.9)
        hits += interval.low <= truth <= interval.high
    assert 80 <= hits <= 98


def test_bootstrap_difference_pairs_the_images():
    first = frames(np.linspace(0.3, 0.9, 20), seed=0)
    second = frames(np.linspace(0.3, 0.9, 20) + 0.05, seed=1)
    gain = bootstrap_difference(first, second, 1, 0)
    assert gain.estimate == pytest.approx(merged_miou(second) - merged_miou(first))
    assert gain.low > 0, "a gain on every frame is a gain although frames differ more than models"
    unpaired = bootstrap_miou(first, 1, 0)
    assert gain.high - gain.low < 0.5 * (unpaired.high - unpaired.low)


def test_bootstrap_refuses_what_has_no_answer():
    images = frames([0.5, 0.6])
    with pytest.raises(DataError, match="found 0"):
        bootstrap_miou([], 1, 0)
    with pytest.raises(DataError, match="no labelled pixel"):
        bootstrap_miou([Confusion(3)], 1, 0)
    with pytest.raises(DataError, match="2 and 1"):
        bootstrap_difference(images, images[:1], 1, 0)
    with pytest.raises(ConfigError):
        bootstrap_miou(images, 0, 0)
    with pytest.raises(ConfigError):
        bootstrap_miou(images, 1, 0, level=1.0)


def test_over_one_seed_the_interval_is_the_paired_one():
    first, second = frames([0.5, 0.8, 0.6, 0.7, 0.4]), frames([0.8, 0.9, 0.7, 0.9, 0.6], seed=1)
    paired = bootstrap_difference(first, second, 2, 7)
    assert bootstrap_over_seeds([first], [second], 2, 7) == paired
    assert bootstrap_over_seeds([first], [second], 2, 7, draw_seeds=False) == paired


def test_drawing_seeds_widens_the_interval_of_runs_that_disagree():
    base, other = frames([0.5, 0.8, 0.6, 0.7, 0.4]), frames([0.8, 0.9, 0.7, 0.9, 0.6], seed=1)
    gains = [bootstrap_difference(base, base, 1, 7).estimate, bootstrap_difference(base, other, 1, 7).estimate]
    fixed = bootstrap_over_seeds([base, base], [base, other], 1, 7, draw_seeds=False)
    drawn = bootstrap_over_seeds([base, base], [base, other], 1, 7)
    assert fixed.estimate == drawn.estimate == pytest.approx(sum(gains) / 2)
    assert drawn.high - drawn.low > fixed.high - fixed.low
    with pytest.raises(DataError, match="same images"):
        bootstrap_over_seeds([base], [other[:-1]], 1, 7)
    with pytest.raises(DataError, match="as many runs"):
        bootstrap_over_seeds([base], [], 1, 7)
