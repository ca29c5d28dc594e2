"""CARLA's semantic camera: the tag in red as it was sensed, or painted with Cityscapes' colours by its converter.

The tags were numbered anew in 0.9.14; sources: CARLA's documentation, "Semantic segmentation camera" of release 0.9.13 and of 0.9.14.
Which table a recording follows is told by the tags that it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iccld.data.colors import ColorMask
from iccld.data.dataset import FileDataset, absorbed_table
from iccld.data.images import read_mask
from iccld.data.known import open_paired
from iccld.data.layouts import Layout
from iccld.errors import ConfigError, DataError
from iccld.labels import LabelSpace

OLD = (
    *("unlabeled", "building", "fence", "other", "person", "pole", "road line", "road", "sidewalk", "vegetation", "vehicle", "wall"),
    *("traffic sign", "sky", "ground", "bridge", "rail track", "guard rail", "traffic light", "static", "dynamic", "water", "terrain"),
)
"""Tag -> class of 0.9.5 to 0.9.13.  Vehicles of every kind are one tag, and riders are persons."""
NEW = (
    *(
        "unlabeled",
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
    ),
    *("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "static", "dynamic", "other", "water", "road line"),
    *("ground", "bridge", "rail track", "guard rail"),
)
"""Tag -> class of 0.9.14 on: the first ones are Cityscapes'."""
VOID = ("unlabeled", "other", "static", "dynamic", "ground", "bridge", "rail track", "guard rail", "water")
"""Classes that Cityscapes does not score; they are ignored unless a label space wants them."""
ROAD_LINE = "road line"
COLORS = {
    (0, 0, 0): 0, (70, 70, 70): 1, (100, 40, 40): 2, (55, 90, 80): 3, (220, 20, 60): 4, (153, 153, 153): 5, (157, 234, 50): 6,
    (128, 64, 128): 7, (244, 35, 232): 8, (107, 142, 35): 9, (0, 0, 142): 10, (102, 102, 156): 11, (220, 220, 0): 12, (70, 130, 180): 13,
    (81, 0, 81): 14, (150, 100, 100): 15, (230, 150, 140): 16, (180, 165, 180): 17, (250, 170, 30): 18, (110, 190, 160): 19,
    (170, 120, 50): 20, (45, 60, 150): 21, (145, 170, 100): 22,
}  # fmt: skip
"""Colour of the converter -> tag of OLD."""
NEW_COLORS = {
    (0, 0, 0): 0, (128, 64, 128): 1, (244, 35, 232): 2, (70, 70, 70): 3, (102, 102, 156): 4, (190, 153, 153): 5, (153, 153, 153): 6,
    (250, 170, 30): 7, (220, 220, 0): 8, (107, 142, 35): 9, (152, 251, 152): 10, (70, 130, 180): 11, (220, 20, 60): 12, (255, 0, 0): 13,
    (0, 0, 142): 14, (0, 0, 70): 15, (0, 60, 100): 16, (0, 80, 100): 17, (0, 0, 230): 18, (119, 11, 32): 19, (110, 190, 160): 20,
    (170, 120, 50): 21, (55, 90, 80): 22, (45, 60, 150): 23, (157, 234, 50): 24, (81, 0, 81): 25, (150, 100, 100): 26,
    (230, 150, 140): 27, (180, 165, 180): 28,
}  # fmt: skip
"""Colour of the converter -> tag of NEW."""
ROADS, SKY = {"old": 7, "new": 1}, {"old": 13, "new": 11}
LOOKED_AT = 8
SURE = 0.75
"""Share of the masks in which sky lies above road, by the one table and not by the other, that decides between them."""


def read_tags(path: Path) -> npt.NDArray[np.uint8]:
    """(H, W) uint8 tags from the red channel.  DataError for grey masks, and for colours where green or blue hold something."""
    values = read_mask(path).values
    if values.ndim != 3:
        raise DataError(f"{path}: a CARLA mask keeps its tag in red, but this one is grey; write a dataset.yaml with ids")
    if values[..., 1:].any():
        raise DataError(f"{path}: green and blue hold something, so red is no tag; keep raw and painted masks in folders of their own")
    tags: npt.NDArray[np.uint8] = np.ascontiguousarray(values[..., 0])
    return tags


def open_carla(
    root: Path, layout: Layout, split: str, label_space: LabelSpace, labels: bool = True, strict: bool = True, is_asked: bool = False
) -> FileDataset:
    """A recording, its tags absorbed into `label_space`.  ConfigError when its tags fit both tables or none."""
    dataset = open_paired(root, layout, split, label_space, labels, strict, is_asked)
    if not dataset.has_labels:
        return dataset
    files = [path for path in dataset.label_paths if path is not None]
    is_painted, is_new = _kind(root, files)
    names = NEW if is_new else OLD
    read: Any = ColorMask(NEW_COLORS if is_new else COLORS) if is_painted else read_tags
    wanted = {name for each in label_space.classes for name in (each.name, *each.absorbs)}
    ids = {tag: tag for tag, name in enumerate(names) if name not in VOID or name in wanted}
    if ROAD_LINE not in wanted:  # Cityscapes has no lane markings: they are road
        ids[names.index(ROAD_LINE)] = names.index("road")
    kept = {tag: position for position, tag in enumerate(sorted(set(ids.values())))}
    mapping = {tag: kept[target] for tag, target in ids.items()}
    table, notes = absorbed_table(mapping, range(len(names)), [names[tag] for tag in kept], label_space)
    told = f"{root}: tags as of CARLA {'0.9.14 and later' if is_new else '0.9.5 to 0.9.13'}, {'painted' if is_painted else 'in red'}"
    return replace(dataset, raw_ids=table, read_mask=read, notes=[told, *notes, *dataset.notes])


def _kind(root: Path, files: Sequence[Path]) -> tuple[bool, bool]:
    """(painted, 0.9.14 or later), from a sample of masks.

    A tag above 22, or a colour of one table alone, decides; otherwise the sky does, which lies above the road wherever the camera stands.
    """
    step = max(1, len(files) // LOOKED_AT)
    sample = [read_mask(path).values for path in files[::step][:LOOKED_AT]]
    if all(values.ndim == 3 and not values[..., 1:].any() for values in sample):
        tags = {int(tag) for values in sample for tag in np.unique(values[..., 0])}
        if max(tags) > max(range(len(OLD))):
            return False, True
        upper = {
            which: sum(_height(values[..., 0], SKY[which]) < _height(values[..., 0], ROADS[which]) for values in sample) / len(sample)
            for which in SKY
        }
        if max(upper.values()) < SURE or min(upper.values()) > 1 - SURE:
            told = "its tags fit the numbers of CARLA up to 0.9.13 and those from 0.9.14 on"
            raise ConfigError(f"{root}: {told}; put a dataset.yaml there with the ids of the classes")
        return False, upper["new"] > upper["old"]
    colors = {tuple(color.tolist()) for values in sample if values.ndim == 3 for color in np.unique(values.reshape(-1, 3), axis=0)}
    fits = {which for which, table in (("old", COLORS), ("new", NEW_COLORS)) if colors and colors <= set(table)}
    if not fits:
        raise ConfigError(f"{root}: its masks hold neither CARLA's tags in red nor the colours of its converter; put a dataset.yaml there")
    return True, "new" in fits  # the colours that both have mean the same in both, but for vehicles, which are cars in the newer


def _height(tags: npt.NDArray[Any], tag: int) -> float:
    """Mean row of a tag; infinite where there is none."""
    rows = np.flatnonzero((tags == tag).any(axis=1))
    return float(rows.mean()) if rows.size else float("inf")
