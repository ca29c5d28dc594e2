"""Pictures of bytes resized with antialiasing, as `interpolate` does it, in half its time on a CPU.

Each new row is a weighted sum of a few old rows, and so is each new column: products with narrow bands of matrices.  Rows come first, since
they lie one behind the other in memory and bytes become floats only a band at a time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iccld.geometry import Shape

ROWS_AT_ONCE, COLUMNS_AT_ONCE = 8, 16
"""New rows and columns of one product: few zeros beside the band, and few calls."""


class Band(NamedTuple):
    """Some of the new rows (or columns) and the old ones that they are made of."""

    new: slice
    old: slice
    weights: Tensor
    """(new, old) float32."""


def resized(images: Tensor, size: Shape) -> Tensor:
    """(B, 3, H, W) uint8 on the CPU -> (B, 3, h, w) float32 in 0..1: `interpolate(images / 255, size, mode="bilinear", antialias=True)`
    up to the order of its sums (5e-7)."""
    num_images, channels, height, width = images.shape
    rows, columns = _bands(height, size[0], ROWS_AT_ONCE), _bands(width, size[1], COLUMNS_AT_ONCE)
    values = images.permute(0, 2, 3, 1).reshape(num_images, height, width * channels)  # as files are read: a view
    with torch.autocast("cpu", enabled=False):
        low = torch.empty(num_images, size[0], width * channels)
        for band in rows:
            torch.matmul(band.weights, values[:, band.old].to(torch.float32), out=low[:, band.new])
        planes = low.view(num_images, size[0], width, channels).permute(0, 3, 1, 2).reshape(-1, width)  # (B 3 h, W)
        answer = torch.empty(len(planes), size[1])
        for band in columns:
            torch.mm(planes[:, band.old], band.weights.t(), out=answer[:, band.new])
    return answer.mul_(1 / 255).view(num_images, channels, *size)


@lru_cache(maxsize=64)
def _bands(length: int, new_length: int, step: int) -> tuple[Band, ...]:
    begin, weights = antialias_weights(length, new_length)
    count = weights.shape[1] - (weights[:, ::-1] != 0).argmax(1)  # without the zeros at the end
    bands = []
    for first in range(0, new_length, step):
        last = min(first + step, new_length)
        low, high = int(begin[first]), int((begin + count)[first:last].max())
        matrix = np.zeros((last - first, high - low), np.float32)
        for row in range(first, last):
            matrix[row - first, begin[row] - low : begin[row] - low + count[row]] = weights[row, : count[row]]
        bands.append(Band(slice(first, last), slice(low, high), torch.from_numpy(matrix)))
    return tuple(bands)


def antialias_weights(length: int, new_length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each new place the first old one that it is made of, and the weights from there on: (n,) int64, (n, most) float32.

    PyTorch's (`HelperInterpBase::_compute_indices_min_size_weights_aa`), in its float32 arithmetic: a triangle as wide as two old places,
    or as two new ones where these are wider.
    """
    one, half = np.float32(1), np.float32(0.5)
    scale = np.float32(length) / np.float32(new_length)
    support, inverse = max(scale, one), one / max(scale, one)
    centre = scale * (np.arange(new_length, dtype=np.float32) + half)
    begin = (centre - support + half).astype(np.int64).clip(0)
    count = (centre + support + half).astype(np.int64).clip(None, length) - begin
    place = np.arange(int(count.max()))
    distance = np.abs(((place + begin[:, None]).astype(np.float32) - centre[:, None] + half) * inverse)
    weights = np.where(place < count[:, None], np.maximum(one - distance, 0), np.float32(0)).astype(np.float32)
    return begin, weights / weights.sum(1, keepdims=True, dtype=np.float32)
