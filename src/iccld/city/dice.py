"""Random numbers of a scene: numpy's generator with quick single draws, of which a scene makes thousands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_BLOCK = 1024


class Dice(np.random.Generator):
    """A numpy Generator whose single draws come from blocks drawn ahead: the same distributions, several times quicker.

    Draws with a `size` go to numpy.  The stream depends on the seed and the order of the calls alone.
    """

    def __init__(self, seed: int | list[int]) -> None:
        super().__init__(np.random.PCG64(seed))
        self._uniform: list[float] = []
        self._block = 32  # blocks grow: many dice are thrown a few times only
        self._normal: list[float] = []

    def _next(self) -> float:
        if not self._uniform:
            self._uniform = super().random(self._block).tolist()
            self._block = min(_BLOCK, 4 * self._block)
        return self._uniform.pop()

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """As numpy's: 0 <= value < 1."""
        if size is None:
            try:
                return self._uniform.pop()
            except IndexError:
                return self._next()
        return super().random(size, dtype, out)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """As numpy's: low <= value < high."""
        if size is None:
            try:
                return low + (high - low) * self._uniform.pop()
            except IndexError:  # the block is used up: asking before every draw would cost more
                return low + (high - low) * self._next()
        return super().uniform(low, high, size)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """As numpy's: mean `loc`, deviation `scale`."""
        if size is not None:
            return super().normal(loc, scale, size)
        if not self._normal:
            self._normal = super().standard_normal(_BLOCK // 4).tolist()
        return loc + scale * self._normal.pop()

    def exponential(self, scale: Any = 1.0, size: Any = None) -> Any:
        """As numpy's: mean `scale`."""
        return -scale * math.log(1.0 - self._next()) if size is None else super().exponential(scale, size)

    def integers(self, low: Any, high: Any = None, size: Any = None, dtype: Any = np.int64, endpoint: bool = False) -> Any:
        """As numpy's: low <= value < high, or 0 <= value < low."""
        if size is not None or endpoint:
            return super().integers(low, high, size, dtype, endpoint)
        if high is None:
            low, high = 0, low
        return int(low) + int((int(high) - int(low)) * self._next())

    def choice(self, a: Any, size: Any = None, replace: bool = True, p: Any = None, axis: int = 0, shuffle: bool = True) -> Any:
        """As numpy's: one of `a`, or of 0 .. a - 1, with shares `p`."""
        if size is not None:
            return super().choice(a, size, replace, p, axis, shuffle)
        num = a if isinstance(a, int) else len(a)
        draw = self._next()
        if p is None:
            index = int(num * draw)
        else:
            index, low = 0, 0.0
            for index, share in enumerate(p):  # noqa: B007 - the index is the answer
                low += share
                if draw < low:
                    break
        return index if isinstance(a, int) else a[index]
