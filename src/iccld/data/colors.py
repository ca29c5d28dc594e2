"""Masks in colours -> ids, exactly: a colour that was not listed is an error, however near it is to one that was."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iccld.data.images import read_mask
from iccld.errors import ConfigError, DataError

UNKNOWN = 65535
LISTED = 6
"""Unknown colours that an error lists."""


def parse_color(value: object, where: str) -> tuple[int, int, int]:
    """'#804080' or [128, 64, 128] -> (R, G, B) in 0..255.  ConfigError otherwise."""
    if isinstance(value, str) and re.fullmatch(r"#?[0-9a-fA-F]{6}", value):
        number = int(value.removeprefix("#"), 16)
        return number >> 16, number >> 8 & 255, number & 255
    if isinstance(value, list) and len(value) == 3 and all(type(each) is int and 0 <= each <= 255 for each in value):
        return value[0], value[1], value[2]
    raise ConfigError(f"{where}: {value!r} is no colour; write '#804080' or [128, 64, 128]")


class ColorMask:
    """Reads RGB, RGBA (whose alpha does not count) and palette masks -> (H, W) uint16 ids."""

    def __init__(self, ids: dict[tuple[int, int, int], int]) -> None:
        self.ids = ids

    def __call__(self, path: Path) -> npt.NDArray[np.uint16]:
        """DataError: unreadable, grey, or with colours that were not listed; those are named with their numbers of pixels."""
        mask = read_mask(path)
        rgb = mask.values if mask.palette is None else mask.palette[mask.values]
        if rgb.ndim != 3:
            raise DataError(f"{path}: grey values, not colours; list 'ids' of the classes in the YAML instead of 'colors'")
        packed = _packed(rgb)
        found: npt.NDArray[np.uint16] = self._table[packed]
        if (found == UNKNOWN).any():
            colors, counts = np.unique(packed[found == UNKNOWN], return_counts=True)
            order = np.argsort(-counts, kind="stable")[:LISTED]
            listed = ", ".join(f"#{int(colors[i]):06x} ({int(counts[i])} pixels)" for i in order)
            more = f" and {len(colors) - LISTED} more" if len(colors) > LISTED else ""
            remedy = "add it to a class or to ignore_colors; many such colours come from smoothing or JPEG"
            raise DataError(f"{path}: unknown colour {listed}{more}; {remedy}")
        return found

    @cached_property
    def _table(self) -> npt.NDArray[np.uint16]:
        """(2^24,) RGB as one number -> id."""
        table = np.full(1 << 24, UNKNOWN, dtype=np.uint16)
        for (red, green, blue), number in self.ids.items():
            table[red << 16 | green << 8 | blue] = number
        return table

    def __getstate__(self) -> dict[str, Any]:
        return {"ids": self.ids}  # the table is quickly made, and larger than what it is made from


def _packed(rgb: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """(H, W, 3) uint8 -> (H, W) R, G, B as one number."""
    wide = rgb.astype(np.uint32)
    return np.asarray((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2], dtype=np.uint32)
