"""The one rule that brings a picture to its working size, in training and in prediction: the area is given, the aspect is its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from iccld.errors import ConfigError

Shape = tuple[int, int]
"""Height and width, pixels."""
SHORTEST_SIDE = 16
"""Pixels below which no side falls for the area's sake: padding it up to what a network takes would cost more than the picture."""


LARGEST_SCALE = 8.0
"""Of a view of a picture."""


def working_shape(height: int, width: int, size: Shape, shortest: int = SHORTEST_SIDE) -> Shape:
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


def shape_of_area(size: Shape, aspect: float, multiple: int) -> Shape:
    """(H, W) in multiples, of about the area of `size` and of this aspect (width over height)."""
    area = size[0] * size[1]
    height = max(1, round(math.sqrt(area / aspect) / multiple)) * multiple
    return height, max(1, round(area / height / multiple)) * multiple


def largest_area(size: Shape) -> int:
    """Pixels that `working_shape` never exceeds: rounding adds half a pixel to each side at most."""
    area = size[0] * size[1]
    shortest = min(SHORTEST_SIDE, *size)
    return area + (area // shortest + 1 + shortest) // 2 + 2


def scaled(size: Shape, scale: float) -> Shape:
    """(H, W) of a picture, or of a working size, that is shown at this scale; scale 1 is the size itself."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def padded(size: Shape, multiple: int) -> Shape:
    """The smallest (H, W) of multiples that holds the size."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def check_scales(scales: Sequence[float]) -> None:
    """ConfigError unless there is at least one scale, each above 0 and at most `LARGEST_SCALE`, and none twice."""
    if not scales or len(set(scales)) != len(scales) or not all(math.isfinite(scale) and 0 < scale <= LARGEST_SCALE for scale in scales):
        told = ",".join(f"{scale:g}" for scale in scales) or "empty"
        raise ConfigError(f"scales is {told}; use one or more different numbers above 0 and at most {LARGEST_SCALE:g}, such as 0.75,1")
