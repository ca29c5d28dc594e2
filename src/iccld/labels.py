"""Classes, palettes and label spaces; raw id -> train id tables; absorption of a finer space by a coarser one.  numpy only.

Train ids are 0..K-1 in the order of a label space's classes; `IGNORE` (255) marks pixels that neither teach nor count.
Tables: Cityscapes, GTA5 and SYNTHIA-RAND-CITYSCAPES as in the datasets' own scripts; CamVid as in SegNet's 11-class edition.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iccld.errors import ConfigError, DataError

IGNORE = 255
UNKNOWN = 254  # sentinel inside lookup tables: a raw id that the dataset does not define
MAX_CLASSES = 254

HINTS = 3
"""Near names that one error suggests at most."""

UInt8Array = npt.NDArray[np.uint8]


def alike(name: str) -> str:
    """The form in which names of classes compare: `Traffic_Light` and `traffic light` are the same."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True)
class LabelClass:
    """One class: its name, its colour (R, G, B in 0..255), and the classes of a finer space that it takes in beside its own name."""

    name: str
    color: tuple[int, int, int]
    absorbs: tuple[str, ...] = ()
    takes_rest: bool = False
    """Whether it takes in every class that no other class takes in: `absorbs: rest`."""


@dataclass(frozen=True)
class LabelSpace:
    """An ordered set of classes; the position of a class is its train id.  ConfigError for doubled names or impossible colours."""

    name: str
    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise ConfigError(f"label space '{self.name}' has {len(self.classes)} classes: give it 1 to {MAX_CLASSES}")
        doubled = sorted({name for name in self.names if self.names.count(name) > 1})
        if doubled:
            raise ConfigError(f"label space '{self.name}' names a class twice: {', '.join(doubled)}")
        if sum(label_class.takes_rest for label_class in self.classes) > 1:
            raise ConfigError(f"label space '{self.name}': two classes absorb the rest; let one of them have it")
        for label_class in self.classes:
            color: Sequence[int] = label_class.color
            if len(color) != 3 or not all(0 <= value <= 255 for value in color):
                raise ConfigError(f"label space '{self.name}': the color of '{label_class.name}' must be three numbers in 0..255")

    @property
    def num_classes(self) -> int:
        """K, the number of classes; IGNORE is not one."""
        return len(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The K class names, by train id."""
        return tuple(label_class.name for label_class in self.classes)

    @property
    def palette(self) -> UInt8Array:
        """(K, 3) uint8 RGB, by train id."""
        return np.array([label_class.color for label_class in self.classes], dtype=np.uint8)

    def absorption(self, finer_names: Sequence[str], labelled: Sequence[str] | None = None) -> tuple[UInt8Array, list[str]]:
        """Match the classes of a finer space by name -> ((256,) uint8 finer train id -> train id here, names that nobody absorbs).

        A class takes in the finer class of its own name and those it lists; one that absorbs the rest, all that are left.  Names compare
        without case, '_' and '-'.  What nobody absorbs becomes IGNORE, and so does IGNORE.
        labelled: the finer classes that are labelled wherever they occur; the others become IGNORE, and classes here may stay empty.
        ConfigError when two classes claim one finer class, or when a class here receives none (the data do not tell it apart).
        """
        offered = {name: alike(name) for name in finer_names if labelled is None or name in labelled}
        owner: dict[str, int] = {}
        for train_id, label_class in enumerate(self.classes):
            claims = {alike(name) for name in (label_class.name, *label_class.absorbs)}
            exact = {label_class.name, *label_class.absorbs}
            for name, folded in offered.items():
                if folded not in claims or (name not in exact and any(other in exact for other in offered if offered[other] == folded)):
                    continue
                if name in owner:
                    both = f"'{self.names[owner[name]]}' and '{label_class.name}'"
                    raise ConfigError(f"label space '{self.name}': class '{name}' is absorbed twice, by {both}; let one of them have it")
                owner[name] = train_id
        rest = next((train_id for train_id, label_class in enumerate(self.classes) if label_class.takes_rest), None)
        if rest is not None:
            owner = {name: owner.get(name, rest) for name in offered}
        empty = [name for train_id, name in enumerate(self.names) if train_id not in owner.values()]
        if empty and (labelled is None or not owner):
            raise ConfigError(self._words_for_empty(empty, list(offered), [name for name in offered if name not in owner]))
        table = np.full(256, IGNORE, dtype=np.uint8)
        for finer_id, name in enumerate(finer_names):
            table[finer_id] = owner.get(name, IGNORE)
        return table, [name for name in finer_names if name not in owner]

    def _words_for_empty(self, empty: Sequence[str], offered: Sequence[str], unclaimed: Sequence[str]) -> str:
        """What is missing, what there is, and the nearest name for each class that stays empty."""
        hints = []
        for name in empty:
            near = _hint(self._claims([name]), unclaimed)
            if near:
                hints.append(f"'{name}'{near}")
        hinted = f"; {', '.join(hints[:HINTS])}" if hints else ""
        return (
            f"label space '{self.name}' has {_shortened(empty)}, but no class of the data becomes that; the data have "
            f"{_shortened(offered)}{hinted}; leave it out of the label space, or let it absorb one of theirs (absorbs: [NAME])"
        )

    def _claims(self, names: Sequence[str]) -> list[str]:
        return [claim for c in self.classes if c.name in names for claim in (c.name, *c.absorbs)]


@dataclass(frozen=True, eq=False)  # arrays have no single truth of equality
class RawIdTable:
    """A dataset's raw ids -> train ids.  lookup: (65536,) uint8, UNKNOWN where the dataset defines no such id."""

    lookup: UInt8Array
    has_minus_one: bool = False
    """Whether signed masks may hold -1 (Cityscapes' licence plate); it maps to IGNORE."""

    def apply(self, raw: npt.NDArray[Any], where: Path | str) -> UInt8Array:
        """(...) integer raw ids -> (...) uint8 train ids.  DataError naming `where` and the values that the table does not know."""
        if raw.dtype == np.uint8:
            # bytes.translate reads each pixel once; numpy's take would first widen every index to 64 bits (10x slower).
            translated = bytearray(np.ascontiguousarray(raw)).translate(self.lookup[:256].tobytes())
            labels: UInt8Array = np.frombuffer(translated, dtype=np.uint8).reshape(raw.shape)
        else:
            wide = raw.astype(np.int64)
            minus_one = (wide == -1) if self.has_minus_one else np.zeros(wide.shape, dtype=bool)
            outside = ((wide < 0) & ~minus_one) | (wide > 65535)
            labels = self.lookup[np.where((wide < 0) | outside, 0, wide)]
            labels[minus_one] = IGNORE
            labels[outside] = UNKNOWN
        unknown = labels == UNKNOWN
        if unknown.any():
            values, counts = np.unique(raw[unknown], return_counts=True)
            listed = ", ".join(str(int(value)) for value in values[:8]) + (", …" if len(values) > 8 else "")
            num_pixels = int(counts.sum())
            raise DataError(f"{where}: unknown label value {listed} ({num_pixels} pixels); the ids known here are {self.known_text()}")
        return labels

    def then(self, absorption: UInt8Array) -> RawIdTable:
        """This table followed by a (256,) absorption table, in one look-up."""
        absorbed = np.where(self.lookup == UNKNOWN, np.uint8(UNKNOWN), absorption[self.lookup]).astype(np.uint8)
        return RawIdTable(absorbed, self.has_minus_one)

    def known_text(self) -> str:
        """The known ids as runs, such as '0-34' or '0-11, 255'."""
        known = np.flatnonzero(self.lookup != UNKNOWN)
        runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if len(known) else []
        parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
        return ", ".join((["-1"] if self.has_minus_one else []) + parts)


def raw_id_table(mapping: Mapping[int, int], known: Iterable[int]) -> RawIdTable:
    """Raw id -> train id for `mapping`, IGNORE for the other `known` ids, an error (on use) for all the rest.

    Raw ids lie in 0..65535, or are -1 where masks may be signed; train ids lie in 0..253 or are IGNORE.  ConfigError otherwise.
    """
    lookup = np.full(65536, UNKNOWN, dtype=np.uint8)
    everything = sorted({*known, *mapping})
    for raw_id in everything:
        if not -1 <= raw_id <= 65535:
            raise ConfigError(f"raw id {raw_id} is outside -1..65535")
        if raw_id >= 0:
            lookup[raw_id] = IGNORE
    for raw_id, train_id in mapping.items():
        if not (0 <= train_id < MAX_CLASSES or train_id == IGNORE):
            raise ConfigError(f"train id {train_id} of raw id {raw_id} is outside 0..{MAX_CLASSES - 1}")
        if raw_id == -1 and train_id != IGNORE:
            raise ConfigError("raw id -1 can only be ignored")
        if raw_id >= 0:
            lookup[raw_id] = train_id
    return RawIdTable(lookup, has_minus_one=-1 in everything)


CITYSCAPES_IDS: dict[int, int] = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10,
    24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""Cityscapes labelIds -> 19 train ids."""
CITYSCAPES_KNOWN: frozenset[int] = frozenset(range(-1, 35))
"""Every id that Cityscapes and GTA5 define; those outside CITYSCAPES_IDS are ignored."""
GTA5_IDS: dict[int, int] = CITYSCAPES_IDS
"""GTA5 numbers its classes as Cityscapes does."""
SYNTHIA_IDS: dict[int, int] = {
    3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10,
    10: 11, 17: 12, 8: 13, 18: 14, 19: 15, 20: 16, 12: 17, 11: 18,
}  # fmt: skip
"""SYNTHIA-RAND-CITYSCAPES -> 19 train ids.  Lane marking (22) stays void, as in every published comparison."""
SYNTHIA_KNOWN: frozenset[int] = frozenset(range(23))
"""SYNTHIA's ids; void (0), parking (13), road-work (14) and lane marking (22) are ignored."""

_CITYSCAPES_CLASSES = (
    LabelClass("road", (128, 64, 128)),
    LabelClass("sidewalk", (244, 35, 232)),
    LabelClass("building", (70, 70, 70)),
    LabelClass("wall", (102, 102, 156)),
    LabelClass("fence", (190, 153, 153)),
    LabelClass("pole", (153, 153, 153)),
    LabelClass("traffic light", (250, 170, 30)),
    LabelClass("traffic sign", (220, 220, 0)),
    LabelClass("vegetation", (107, 142, 35)),
    LabelClass("terrain", (152, 251, 152)),
    LabelClass("sky", (70, 130, 180)),
    LabelClass("person", (220, 20, 60)),
    LabelClass("rider", (255, 0, 0)),
    LabelClass("car", (0, 0, 142)),
    LabelClass("truck", (0, 0, 70)),
    LabelClass("bus", (0, 60, 100)),
    LabelClass("train", (0, 80, 100)),
    LabelClass("motorcycle", (0, 0, 230)),
    LabelClass("bicycle", (119, 11, 32)),
)


def _without(*dropped: str) -> tuple[LabelClass, ...]:
    return tuple(label_class for label_class in _CITYSCAPES_CLASSES if label_class.name not in dropped)


CITYSCAPES19 = LabelSpace("cityscapes19", _CITYSCAPES_CLASSES)
CITYSCAPES16 = LabelSpace("cityscapes16", _without("terrain", "truck", "train"))
CITYSCAPES13 = LabelSpace("cityscapes13", _without("terrain", "truck", "train", "wall", "fence", "pole"))
CAMVID11 = LabelSpace(
    "camvid11",
    (
        LabelClass("sky", (128, 128, 128)),
        LabelClass("building", (128, 0, 0), ("wall",)),
        LabelClass("pole", (192, 192, 128)),
        LabelClass("road", (128, 64, 128)),
        LabelClass("pavement", (60, 40, 222), ("sidewalk",)),
        LabelClass("tree", (128, 128, 0), ("vegetation", "terrain")),
        LabelClass("sign symbol", (192, 128, 128), ("traffic sign", "traffic light")),
        LabelClass("fence", (64, 64, 128)),
        LabelClass("car", (64, 0, 128), ("truck", "bus", "train")),
        LabelClass("pedestrian", (64, 64, 0), ("person",)),
        LabelClass("bicyclist", (0, 128, 192), ("rider", "bicycle", "motorcycle")),
    ),
)
LABEL_SPACES: dict[str, LabelSpace] = {space.name: space for space in (CITYSCAPES19, CITYSCAPES16, CITYSCAPES13, CAMVID11)}


def get_label_space(name_or_path: str | Path) -> LabelSpace:
    """A shipped label space by name, or a user's from YAML `{name, classes: [{name, color, absorbs: [finer names] | rest}]}`.

    `color` and `absorbs` may be left out.  ConfigError for an unknown name (the nearest is suggested), an unusable file, or a single class.
    """
    text = str(name_or_path)
    if text in LABEL_SPACES:
        return LABEL_SPACES[text]
    path = Path(text)
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        raise ConfigError(f"unknown label space '{text}'{_hint([text], LABEL_SPACES)}; there are {', '.join(LABEL_SPACES)}, or a YAML file")
    content = read_yaml_mapping(path)
    refuse_unknown_keys(content, ("name", "classes"), str(path))
    entries = content.get("classes")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: 'classes' must be a list of {{name, color, absorbs}}")
    space = LabelSpace(str(content.get("name", path.stem)), tuple(_read_class(entry, i, path) for i, entry in enumerate(entries)))
    if space.num_classes == 1:
        only = space.names[0]
        raise ConfigError(
            f"{path}: '{only}' is the only class, so every answer would be right (100 mIoU and nothing learned); add the rest of the "
            f"data's classes as a second one: - {{name: other, absorbs: rest}}"
        )
    return space


def _read_class(entry: object, position: int, path: Path) -> LabelClass:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ConfigError(f"{path}: class number {position} has no 'name'")
    where = f"{path}: class '{entry['name']}'"
    refuse_unknown_keys(entry, ("name", "color", "absorbs"), where)
    absorbs = entry.get("absorbs") or []
    if absorbs == "rest":
        return LabelClass(entry["name"], read_color(entry.get("color"), position, where), takes_rest=True)
    if not isinstance(absorbs, list) or not all(isinstance(name, str) for name in absorbs):
        raise ConfigError(f"{where}: 'absorbs' must be a list of class names, or the word rest")
    return LabelClass(entry["name"], read_color(entry.get("color"), position, where), tuple(absorbs))


def read_color(value: object, position: int, where: str) -> tuple[int, int, int]:
    """`[r, g, b]` as read from YAML, or a colour of its own for class number `position` when None.  ConfigError otherwise."""
    if value is None:
        return distinct_color(position)
    if not isinstance(value, list) or len(value) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in value):
        raise ConfigError(f"{where}: 'color' must be three whole numbers in 0..255, not {value}")
    return (value[0], value[1], value[2])


def distinct_color(position: int) -> tuple[int, int, int]:
    """A colour for class number `position`, by the bit-interleaving rule of Pascal VOC's palette (shifted past its black)."""
    index, channels = position + 1, [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> channel) & 1) << (7 - bit)
        index >>= 3
    return (channels[0], channels[1], channels[2])


def raw_ids(space: LabelSpace) -> UInt8Array:
    """(256,) uint8: train id -> the id to write for others to read: Cityscapes' labelIds where all names are its own, else train ids.

    IGNORE becomes 0 (Cityscapes' "unlabeled"), or stays 255 in other spaces.
    """
    table = np.arange(256, dtype=np.uint8)
    to_raw = {CITYSCAPES19.names[train_id]: raw_id for raw_id, train_id in CITYSCAPES_IDS.items()}
    if all(name in to_raw for name in space.names):
        table[:] = 0
        table[: space.num_classes] = [to_raw[name] for name in space.names]
    return table


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """A YAML file's top-level mapping.  ConfigError in one line when it is missing, unreadable or something else."""
    import yaml  # here, so that the tables above need numpy alone

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, such as 'classes: [...]'")
    return content


def refuse_unknown_keys(content: Mapping[Any, object], allowed: Sequence[str], where: str) -> None:
    """ConfigError naming the first key outside `allowed`, and the nearest one inside."""
    for key in content:
        if key not in allowed:
            raise ConfigError(f"{where}: unknown key '{key}'{_hint([str(key)], allowed)}; known: {', '.join(allowed)}")


def _hint(names: Iterable[str], candidates: Iterable[str]) -> str:
    pool = list(candidates)
    folded = {alike(each): each for each in pool}
    for name in names:
        near = difflib.get_close_matches(alike(name), [each for each in folded if folded[each] != name], n=1)
        if near:
            return f" (did you mean '{folded[near[0]]}'?)"
    return ""


def _shortened(names: Sequence[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
