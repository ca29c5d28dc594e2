"""The one rule that brings a picture to its working size, in training and in prediction: the area is given, the aspect is its own."""

from __future__ import annotations

import math

SHORTEST_SIDE = 16
"""Pixels below which no side falls for the area's sake: padding it up to what a network takes would cost more than the picture."""


def working_shape(height: int, width: int, size: tuple[int, int], shortest: int = SHORTEST_SIDE) -> tuple[int, int]:
    """(H, W) of a picture that is brought to the area of `size` at its own aspect, in whole pixels of at least 1.

    Of a picture of that size's aspect it is `size` itself; of any other, its two sides are scaled by one factor and rounded.  A picture so
    long that its short side would be shorter than `shortest` gets a smaller area, that of which the padded picture has no more than asked.
    """
    area = size[0] * size[1]
    scale = math.sqrt(area / (height * width))
    shortest = min(shortest, *size)
    if min(height, width) * scale < shortest:
        scale = area / shortest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def largest_area(size: tuple[int, int]) -> int:
    """Pixels that `working_shape` never exceeds: rounding adds half a pixel to each side at most."""
    area = size[0] * size[1]
    shortest = min(SHORTEST_SIDE, *size)
    return area + (area // shortest + 1 + shortest) // 2 + 2
