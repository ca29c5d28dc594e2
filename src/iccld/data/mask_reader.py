"""Mask files of any origin -> train ids: what do the values mean?  Told by the caller, or found out; never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from iccld.data.images import StoredMask, read_mask
from iccld.errors import ConfigError, DataError
from iccld.labels import CITYSCAPES19, CITYSCAPES_IDS, CITYSCAPES_KNOWN, IGNORE, UNKNOWN, LabelSpace, RawIdTable, raw_id_table

Ids = Literal["auto", "train", "raw", "color"]
"""train: 0..K-1.  raw: Cityscapes' labelIds.  color: RGB of the label space's palette, black for no class.  auto: found out."""
MEANINGS = frozenset({"train", "raw", "color"})
PREDICTED_RAW = frozenset({0, *CITYSCAPES_IDS})
"""The raw ids that a model writes: its classes, and 0 for none.  The other void ids (ego vehicle, parking, …) mark ground truth."""


class MaskReader:
    """Reads masks of one meaning.  With "auto", `find` settles `ids`, and every mask read afterwards has to agree with it.

    raw_table: raw ids -> train ids; by default Cityscapes', absorbed into the label space.
    ConfigError: an unknown meaning, raw ids for classes that Cityscapes' do not fill, a palette that gives two classes one colour.
    """

    def __init__(self, label_space: LabelSpace, ids: Ids = "auto", raw_table: RawIdTable | None = None) -> None:
        if ids not in get_args(Ids):
            raise ConfigError(f"ids of masks are {', '.join(get_args(Ids))}, not {ids!r}")
        self.label_space = label_space
        self.ids: str = ids
        self.was_found = False
        self.raw_table = raw_table
        if raw_table is None and (ids == "raw" or _is_filled_by_cityscapes(label_space)):
            absorbed, _ = label_space.absorption(CITYSCAPES19.names)
            self.raw_table = raw_id_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN).then(absorbed)
        if ids == "color":
            _ = self._color_table  # an ambiguous palette is refused before anything is read

    def find(self, paths: Sequence[Path]) -> None:
        """Settle `ids`: look at masks until one meaning is left.  ConfigError when more are, DataError when none is."""
        left = MEANINGS
        for path in paths if self.ids == "auto" else ():
            left &= self._meanings(read_mask(path), path)
            if not left:
                raise DataError(f"{path}: holds other ids than the masks before it; keep masks of one kind in a folder, or say --ids")
            if len(left) == 1:
                (self.ids,), self.was_found = left, True
                return
        if self.ids == "auto":
            values = "nothing but values that are train ids as well as raw ids"
            raise ConfigError(f"the {len(paths)} masks hold {values}; say which with --ids train or --ids raw")

    def read(self, path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """A mask file -> (H, W) uint8 train ids; 255, or any number of K or more, for no class.  Palette files give their indices.

        DataError for another size, for what is no mask, for raw ids and colours that the tables do not know, and, where the meaning was
        found, for a mask that cannot have it.
        """
        mask = read_mask(path, size)
        if self.was_found and self.ids not in self._meanings(mask, path):
            raise DataError(f"{path}: does not hold {self.ids} ids, as the masks before it do; keep masks of one kind in a folder")
        values = mask.values
        if self.ids == "color":
            return self._from_colors(values if mask.palette is None else mask.palette[values], path)
        if values.ndim == 3:
            raise DataError(f"{path}: colours, not ids; write 8- or 16-bit grey or palette PNG, or say --ids color")
        if self.ids == "raw" and self.raw_table is not None:
            return self.raw_table.apply(values, path)
        if values.dtype == np.uint8:
            return values
        return np.where((values >= 0) & (values < IGNORE), values, IGNORE).astype(np.uint8)

    def _meanings(self, mask: StoredMask, path: Path) -> frozenset[str]:
        """What this mask may hold, looked at alone.  DataError when its values are of no one kind, or its palette contradicts them."""
        if mask.values.ndim == 3:
            return frozenset({"color"})
        found = set(np.unique(mask.values).tolist())
        is_train = all(0 <= value < self.label_space.num_classes or value == IGNORE for value in found)
        is_raw = self.raw_table is not None and found <= PREDICTED_RAW
        if not (is_train or is_raw):
            listed = ", ".join(map(str, sorted(found)[:8])) + (", …" if len(found) > 8 else "")
            raise DataError(f"{path}: holds {listed}: neither all train ids nor all raw ids; say which with --ids")
        shown = self._shown_classes(mask.palette, found - {IGNORE})
        if self.raw_table is not None:
            is_raw &= all(int(self.raw_table.lookup[value]) == number for value, number in shown.items())
        is_train &= all(value == number for value, number in shown.items())
        if not (is_train or is_raw):
            raise DataError(f"{path}: its indices and its palette name different classes; say --ids color, or train or raw for the indices")
        return frozenset(name for name, possible in (("train", is_train), ("raw", is_raw)) if possible)

    def _shown_classes(self, palette: npt.NDArray[np.uint8] | None, found: set[int]) -> dict[int, int]:
        """Index -> the class whose colour it shows; {} without a palette, and for one whose colours are not those of the classes."""
        if palette is None:
            return {}
        by_color = {label_class.color: number for number, label_class in enumerate(self.label_space.classes)}
        shown = {value: by_color.get(tuple(palette[value].tolist())) for value in found if value < len(palette)}
        if shown.get(0) is None:
            shown.pop(0, None)  # the raw id of no class, whatever its colour
        known = {value: number for value, number in shown.items() if number is not None}
        return known if len(known) == len(shown) and len(by_color) == self.label_space.num_classes else {}

    def _from_colors(self, rgb: npt.NDArray[Any], path: Path) -> npt.NDArray[np.uint8]:
        """(H, W, 3) -> (H, W) train ids."""
        if rgb.ndim != 3:
            raise DataError(f"{path}: grey values, not colours; say --ids train or --ids raw")
        wide = rgb.astype(np.uint32)
        labels: npt.NDArray[np.uint8] = self._color_table[(wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]]
        unknown = labels == UNKNOWN
        if unknown.any():
            color = ",".join(map(str, rgb[unknown][0].tolist()))
            where = f"in no class of {self.label_space.name} ({int(unknown.sum())} such pixels)"
            raise DataError(f"{path}: colour {color} is {where}; save masks as PNG, without smoothing")
        return labels

    @cached_property
    def _color_table(self) -> npt.NDArray[np.uint8]:
        """(2^24,) uint8: RGB as one number -> train id, IGNORE for black, UNKNOWN for the colours of nothing."""
        table = np.full(1 << 24, UNKNOWN, np.uint8)
        table[0] = IGNORE
        owner: dict[tuple[int, int, int], str] = {}
        for number, (name, color) in enumerate((one.name, one.color) for one in self.label_space.classes):
            if color in owner:
                raise ConfigError(f"label space {self.label_space.name}: '{owner[color]}' and '{name}' share a colour; score masks of ids")
            owner[color] = name
            table[color[0] << 16 | color[1] << 8 | color[2]] = number
        return table


def _is_filled_by_cityscapes(label_space: LabelSpace) -> bool:
    """Whether every class is one of Cityscapes', or takes some of them in."""
    try:
        label_space.absorption(CITYSCAPES19.names)
    except ConfigError:
        return False
    return True
