"""The class of every pixel of an enlarged map of logits, without enlarging what cannot win there.

A pixel's logits are weighted means of those around it, so a class that leads at all of them leads at the pixel.  That settles nearly every
pixel; between two areas the classes that can win are enlarged and compared, by the very arithmetic that a whole enlarged map would have.

In NumPy, whose gathers and comparisons of small maps take a tenth of PyTorch's time on a CPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from iccld.geometry import Shape

UNDECIDED = 255
MARGIN = 2.0**-18
"""Lead over the other classes, as a share of the largest logit, below which rounding (some 2^-22 of it) might turn the order."""
CHUNK_VALUES = 2**15
"""Pixels compared at once: their logits stay in a core's cache."""

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Classes = npt.NDArray[np.uint8]


class Axis(NamedTuple):
    """Along one side: each new position lies between two old ones."""

    lower: Places
    """(n,) index of the one before."""
    upper: Places
    """(n,) index of the one behind, the same at the end."""
    weight: Floats
    """(n,) weight of the one behind."""

    def at(self, places: Places) -> Axis:
        """Some of the new positions."""
        return Axis(self.lower.take(places), self.upper.take(places), self.weight.take(places))


@lru_cache(maxsize=64)
def axis(length: int, new_length: int, kept: int) -> Axis:
    """Bilinear positions with half-pixel centres: `length` values resized to `new_length`, of which the first `kept` are wanted."""
    position = (np.arange(kept, dtype=np.float32) + np.float32(0.5)) * np.float32(length / new_length) - np.float32(0.5)
    position = position.clip(0, length - 1)
    lower = np.floor(position).astype(np.int64)
    return Axis(lower, np.minimum(lower + 1, length - 1), position - lower.astype(np.float32))


class Enlargement(NamedTuple):
    """How logits become as large as the picture; each step is bilinear with half-pixel centres."""

    shown: Shape
    """What they are resized to first, the size that the network saw; their own size leaves that step out."""
    content: Shape
    """The upper left part of it that shows the picture."""
    size: Shape
    """What that part is resized to."""


def winners(logits: Floats, enlargement: Enlargement) -> Classes:
    """(K, h, w) -> (H, W) uint8: the class with the largest logit, the first of equal ones."""
    shown, content, size = enlargement
    num_classes, height, width = logits.shape
    first = None
    if (height, width) == shown:
        logits, (height, width) = logits[:, : content[0], : content[1]], content
    else:
        first = (axis(height, shown[0], content[0]), axis(width, shown[1], content[1]))
    second = (axis(content[0], size[0], size[0]), axis(content[1], size[1], size[1]))
    points = np.ascontiguousarray(logits.transpose(1, 2, 0)).reshape(-1, num_classes)  # (h w, K), which is how networks leave them
    flat = _planes(points)
    margin = np.float32(max(flat.max(), -flat.min()) * MARGIN)
    cells = _settled(_leaders(flat, margin).reshape(height, width), content, first)  # (h', w')
    _leave_out_unused(cells, second)
    undecided = np.flatnonzero(cells == UNDECIDED)
    corners = np.empty(0, np.float32)
    if len(undecided):
        values, four = _corners(points, width, content, first, undecided)
        leading = _common(_leaders(_planes(values), margin), four)
        cells.reshape(-1)[undecided] = leading
        is_open = leading == UNDECIDED
        undecided = undecided[is_open]
        corners = np.stack([_planes(values.take(corner, 0)) for corner in four.compress(is_open, 1)])  # (4, K, n)
    sides = (0, 1) if size[0] < content[0] else (1, 0)  # whole rows are quickly taken: as few as there may be when columns are
    for side in sides:
        cells = cells.take(second[side].lower, side)
    labels = cells  # (H, W)
    if len(undecided):
        row, column = np.divmod(undecided, content[1])
        _compare(labels, corners, row, column, second, margin)
    return labels


def _planes(points: Floats) -> Floats:
    """(n, K) -> (K, n), each class in one piece, in two thirds of NumPy's time."""
    planes: Floats = torch.from_numpy(points).t().contiguous().numpy()
    return planes


def _leaders(values: Floats, margin: np.float32) -> Classes:
    """(K, n) -> (n,): the class that leads by more than the margin, or UNDECIDED."""
    best, label = values[0].copy(), np.zeros(values.shape[1], np.uint8)
    next_best, lesser = np.full_like(best, -np.inf), np.empty_like(best)
    for number in range(1, len(values)):
        _win(label, values[number] > best, number)
        np.minimum(values[number], best, out=lesser)
        np.maximum(next_best, lesser, out=next_best)
        np.maximum(best, values[number], out=best)
    np.subtract(best, next_best, out=lesser)
    return _unless(label, lesser > margin)


def _win(label: Classes, wins: npt.NDArray[np.bool_], number: int | Classes) -> None:
    """Give a class, or one for each last index, the places where it wins; classes come in rising order."""
    np.maximum(label, wins.view(np.uint8) * np.asarray(number, np.uint8), out=label)


def _unless(label: Classes, is_sure: npt.NDArray[np.bool_]) -> Classes:
    """The label where it is sure, UNDECIDED elsewhere."""
    np.bitwise_or(label, is_sure.view(np.uint8) - np.uint8(1), out=label)
    return label


def _settled(leaders: Classes, content: Shape, first: tuple[Axis, Axis] | None) -> Classes:
    """(h, w) leaders -> (h', w') of the cells between four neighbours of the content: the leader of all that reaches into the cell."""
    for side in (1, 0):  # columns while there are few rows
        here = np.arange(content[side])
        beside = np.minimum(here + 1, content[side] - 1)
        if first is None:
            low, high = here, beside
        else:
            low, high = first[side].lower, first[side].upper[beside]
        agree = leaders.take(low, side)
        for step in range(1, int((high - low).max()) + 1):
            _unless(agree, agree == leaders.take(np.minimum(low + step, high), side))
        leaders = agree
    return leaders


def _leave_out_unused(cells: Classes, second: tuple[Axis, Axis]) -> None:
    """Cells that hold no pixel need no answer."""
    for side in (0, 1):
        is_unused = np.bincount(second[side].lower, minlength=cells.shape[side]) == 0
        cells[(is_unused, slice(None)) if side == 0 else (slice(None), is_unused)] = 0


def _corners(points: Floats, stride: int, content: Shape, first: tuple[Axis, Axis] | None, cells: Places) -> tuple[Floats, Places]:
    """Logits where cells have corners (m, K), and which of them each cell has (4, n), rows before columns.

    points: (h w, K), taken a whole point at a time: what belongs together lies together.
    """
    height, width = content
    row, column = np.divmod(cells, width)
    right, below = np.minimum(column + 1, width - 1), np.minimum(row + 1, height - 1) * width
    four = np.stack([cells, row * width + right, below + column, below + right])  # (4, n)
    needed = np.zeros(height * width, np.bool_)
    needed[four] = True
    places = np.flatnonzero(needed)  # (m,)
    if first is None:
        values = points.take(places, 0)
    else:
        rows, columns = np.divmod(places, width)
        vertical, horizontal = first[0].at(rows), first[1].at(columns)
        low, high = vertical.lower * stride, vertical.upper * stride
        before, behind = (
            _between(points.take(low + side, 0), points.take(high + side, 0), vertical.weight[:, None])
            for side in (horizontal.lower, horizontal.upper)
        )
        values = _between(before, behind, horizontal.weight[:, None])
    position = np.empty(height * width, np.int64)
    position[places] = np.arange(len(places))
    return values, position.take(four)


def _common(leaders: Classes, four: Places) -> Classes:
    """(m,) leaders, (4, n) corners of cells -> (n,): the class that leads at all of them, or UNDECIDED."""
    leading = leaders.take(four)  # (4, n)
    agree: Classes = leading[0].copy()
    for other in leading[1:]:
        _unless(agree, agree == other)
    return agree


def _between(before: Floats, behind: Floats, weight: Floats) -> Floats:
    """before (1 - weight) + behind weight, in place of both."""
    np.multiply(before, 1 - weight, out=before)
    np.multiply(behind, weight, out=behind)
    return np.add(before, behind, out=before)


def _compare(labels: Classes, corners: Floats, row: Places, column: Places, second: tuple[Axis, Axis], margin: np.float32) -> None:
    """Enlarge within cells, and write each pixel's largest class into the labels (H, W).

    corners: (4, K, n).  row, column: (n,) of the cells.  Cells have unequal numbers of pixels; the last one of a smaller cell is written
    several times.
    """
    can_win = corners.max(0) >= corners.min(0).max(0) - margin  # (K, n)
    count = can_win.sum(0)
    order = np.argsort(count, kind="stable")  # those that few classes can win come first, and together
    vertical, horizontal = (_pixels(one.lower, of) for one, of in zip(second, (row, column), strict=True))  # (R, n), (C, n)
    step = max(1, CHUNK_VALUES // (len(vertical) * len(horizontal)))
    for start in range(0, len(row), step):
        part = order[start : start + step]
        y, x = vertical.take(part, 1), horizontal.take(part, 1)
        sink, shift = second[0].weight.take(y), second[1].weight.take(x)
        rise, stay = 1 - sink, 1 - shift
        best, label = np.empty(0, np.float32), np.empty(0, np.uint8)
        for numbers in _candidates(can_win.take(part, 1), int(count[part[-1]])):  # (n,) each
            top_left, top_right, low_left, low_right = corners[:, numbers, part]
            left = top_left * rise + low_left * sink  # (R, n)
            right = top_right * rise + low_right * sink
            value = left[:, None] * stay  # (R, C, n)
            value += right[:, None] * shift
            if len(label):
                _win(label, value > best, numbers)
                np.maximum(best, value, out=best)
            else:
                best, label = value, np.broadcast_to(numbers, value.shape).copy()
        labels.reshape(-1)[(y * labels.shape[1])[:, None] + x] = label


def _candidates(can_win: npt.NDArray[np.bool_], most: int) -> Classes:
    """(K, n) -> (most, n): the classes that can win each cell in rising order; of a cell with fewer, the first again."""
    rank = can_win.cumsum(0) - 1
    numbers = np.broadcast_to(can_win.argmax(0).astype(np.uint8), (most, can_win.shape[1])).copy()
    number, cell = np.nonzero(can_win)
    numbers[rank[number, cell], cell] = number
    return numbers


def _pixels(lower: Places, cell: Places) -> Places:
    """Pixels that lie in each cell along one side: the cell of each pixel (n,), cells (m,) -> (most, m), a cell's last pixel repeated."""
    in_each: Places = np.bincount(lower, minlength=int(cell.max()) + 1)
    count, end = in_each.take(cell), in_each.cumsum().take(cell)
    pixels: Places = np.minimum(end - count + np.arange(count.max())[:, None], end - 1)
    return pixels
