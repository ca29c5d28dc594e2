"""How far an mIoU could lie from another clip's: a bootstrap over blocks of neighbouring frames.

Frames of one clip resemble each other, so drawing them one by one would promise too much; circular blocks keep neighbours together
(Politis and Romano 1992, "A circular block-resampling procedure for stationary data").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iccld.errors import ConfigError, DataError
from iccld.evaluation.confusion import Confusion, iou_of


class Interval(NamedTuple):
    """A bootstrap interval in percent points of mIoU.

    estimate: the value on the images themselves.  low, high: bounds that hold the share `level` of the draws between them.
    """

    estimate: float
    low: float
    high: float
    level: float


def bootstrap_miou(per_image: Sequence[Confusion], block: int, seed: int, *, num_draws: int = 1000, level: float = 0.95) -> Interval:
    """Percentile interval of mIoU (percent) over images in the order of recording.  block: neighbouring frames kept together.

    Each draw is as many images as there are, in blocks; a pure function of its arguments.  Raises DataError without images.
    """
    matrices = _stack(per_image)  # (n, K, K + 1)
    draws = _miou(_draw_weights(len(per_image), block, seed, num_draws), matrices)  # (draws,)
    return _interval(float(_miou(np.ones((1, len(per_image))), matrices)[0]), draws, level)


def bootstrap_difference(
    first: Sequence[Confusion], second: Sequence[Confusion], block: int, seed: int, *, num_draws: int = 1000, level: float = 0.95
) -> Interval:
    """Interval of mIoU(second) - mIoU(first) in points, both scored on the same images: every draw takes the same images of both."""
    if len(first) != len(second):
        raise DataError(f"a paired comparison needs the same images, not {len(first)} and {len(second)}")
    weights = _draw_weights(len(first), block, seed, num_draws)
    matrices_first, matrices_second = _stack(first), _stack(second)
    ones = np.ones((1, len(first)))
    estimate = float((_miou(ones, matrices_second) - _miou(ones, matrices_first))[0])
    return _interval(estimate, _miou(weights, matrices_second) - _miou(weights, matrices_first), level)


def bootstrap_over_seeds(
    first: Sequence[Sequence[Confusion]],
    second: Sequence[Sequence[Confusion]],
    block: int,
    seed: int,
    *,
    draw_seeds: bool = True,
    num_draws: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Interval of the mean over training seeds of mIoU(second) - mIoU(first) in points; [s] holds the images of one training seed.

    Every draw takes the same images of every run and, with `draw_seeds`, pairs of runs with replacement: the interval then covers the
    choice of training seeds too, as far as a few of them can tell.
    """
    if not first or len(first) != len(second):
        raise DataError(f"a paired comparison over seeds needs as many runs of each, not {len(first)} and {len(second)}")
    counts = {len(images) for images in (*first, *second)}
    if len(counts) != 1:
        raise DataError(f"a paired comparison needs the same images, not {' and '.join(str(count) for count in sorted(counts))}")
    weights = _draw_weights(counts.pop(), block, seed, num_draws)
    ones = np.ones((1, weights.shape[1]))
    pairs = [(_stack(one), _stack(other)) for one, other in zip(first, second, strict=True)]
    estimate = float(np.mean([_miou(ones, other) - _miou(ones, one) for one, other in pairs]))
    differences = np.stack([_miou(weights, other) - _miou(weights, one) for one, other in pairs], axis=1)  # (draws, S)
    if draw_seeds:
        chosen = np.random.default_rng((seed, 1)).integers(0, len(pairs), size=differences.shape)
        differences = np.take_along_axis(differences, chosen, axis=1)
    return _interval(estimate, differences.mean(axis=1), level)


def _stack(per_image: Sequence[Confusion]) -> npt.NDArray[np.float64]:
    """(n, K, K + 1) float64; counts below 2^53 stay exact."""
    if not per_image:
        raise DataError("a bootstrap needs at least one scored image, found 0")
    return np.stack([confusion.matrix for confusion in per_image]).astype(np.float64)


def _draw_weights(num_images: int, block: int, seed: int, num_draws: int) -> npt.NDArray[np.float64]:
    """(draws, n) how often each draw takes each image; every row sums to n."""
    if num_images < 1:
        raise DataError("a bootstrap needs at least one scored image, found 0")
    if block < 1 or num_draws < 1:
        raise ConfigError(f"a bootstrap needs a block and a number of draws of at least 1, not {block} and {num_draws}")
    generator = np.random.default_rng(seed)
    num_blocks = -(-num_images // block)
    starts = generator.integers(0, num_images, size=(num_draws, num_blocks))
    index = (starts[:, :, None] + np.arange(block)) % num_images  # (draws, blocks, block); circular, so that ends are drawn as often
    index = index.reshape(num_draws, -1)[:, :num_images]
    weights = np.zeros((num_draws, num_images))
    np.add.at(weights, (np.arange(num_draws)[:, None], index), 1.0)
    return weights


def _miou(weights: npt.NDArray[np.float64], matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(draws, n), (n, K, K + 1) -> (draws,) mIoU in percent; NaN for a draw without labelled pixels."""
    summed = (weights @ matrices.reshape(len(matrices), -1)).reshape(len(weights), *matrices.shape[1:])
    iou = iou_of(summed)  # (draws, K)
    count = np.isfinite(iou).sum(axis=1)
    miou: npt.NDArray[np.float64] = np.divide(100.0 * np.nansum(iou, axis=1), count, out=np.full(len(weights), np.nan), where=count > 0)
    return miou


def _interval(estimate: float, draws: npt.NDArray[np.float64], level: float) -> Interval:
    if not 0.0 < level < 1.0:
        raise ConfigError(f"an interval's level lies between 0 and 1, not {level}")
    if not np.isfinite(estimate):
        raise DataError("no labelled pixel in any image: there is no mIoU to bound")
    tail = 100.0 * (1.0 - level) / 2.0
    low, high = np.nanpercentile(draws, [tail, 100.0 - tail])
    return Interval(estimate, float(low), float(high), level)
