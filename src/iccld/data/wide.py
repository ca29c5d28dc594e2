"""Pictures of 16 bits: which part of the range they use, and which part shall become black to white."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iccld.data.images import FULL_RANGE, read_wide
from iccld.errors import ConfigError, DataError

Range = tuple[int, int]
SAMPLES = 64
"""Pictures that are looked at, evenly spread."""
TAILS = (0.5, 99.5)
"""Percentiles that become black and white: a few hot or dead pixels decide nothing."""
NARROW = 0.25
"""Share of the range below which grey levels are lost for no reason."""


def used_range(paths: Sequence[Path]) -> Range | None:
    """The percentiles `TAILS` of all values in a sample of pictures; None when none of them has 16 bits.

    Files that cannot be read are passed over: whoever needs them says so.
    """
    counts = np.zeros(65536, dtype=np.int64)
    step = max(1, len(paths) // SAMPLES)
    for path in paths[::step][:SAMPLES]:
        try:
            values = read_wide(path)
        except DataError:
            continue
        if values is None:
            continue
        counts += np.bincount(values.reshape(-1), minlength=65536)
    if not counts.any():
        return None
    share = np.cumsum(counts) / counts.sum()
    low, high = (int(np.searchsorted(share, tail / 100)) for tail in TAILS)
    return low, max(high, low + 1)


def chosen_range(scaling: str, paths: Sequence[Path]) -> Range:
    """`full`, `12bit` (10 to 16) or `percentiles` of these pictures -> the values that become black and white.  ConfigError otherwise."""
    bits = re.fullmatch(r"(\d+)bit", scaling)
    if scaling == "full":
        return FULL_RANGE
    if bits is not None and 9 <= int(bits[1]) <= 16:
        return 0, (1 << int(bits[1])) - 1
    if scaling == "percentiles":
        return used_range(paths) or FULL_RANGE
    raise ConfigError(f"scaling is {scaling!r}; use full, percentiles, or the bits that the camera has, such as 12bit")


def narrow_warning(paths: Sequence[Path], taken: Range, what: str = "pictures") -> str | None:
    """A sentence when the pictures use little of the range that is taken for them; None otherwise."""
    used = used_range(paths)
    if used is None:
        return None
    whole = taken[1] - taken[0]
    share = (min(used[1], taken[1]) - max(used[0], taken[0])) / whole
    if share >= NARROW:
        return None
    share = max(share, 0.0)
    found = f"use {share:.1%} of the range {taken[0]}-{taken[1]} ({used[0]}-{used[1]}): about {round(255 * share) + 1} grey levels are left"
    remedy = "set --source.scaling or --target.scaling to percentiles, or to the camera's bits such as 12bit"
    return f"warning: {what} have 16 bits, but {found}; {remedy}"
