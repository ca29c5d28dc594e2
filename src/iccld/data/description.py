"""`dataset.yaml`: which folders, endings and values of a data set mean what.

`{name, images, masks, depth, suffixes: {image, mask}, labelled: [..], classes: [{name, ids: [..] | colors: [..], color}], ignore_ids: [..],
ignore_colors: [..]}`.  Every value that occurs in the masks has to be listed; one that is not is an error when it is met.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iccld.data.colors import ColorMask, parse_color
from iccld.errors import ConfigError
from iccld.labels import read_color, read_yaml_mapping, refuse_unknown_keys

YAML_NAME = "dataset.yaml"
KEYS = ("name", "images", "masks", "depth", "suffixes", "labelled", "classes", "ignore_ids", "ignore_colors")


@dataclass(frozen=True)
class FolderDescription:
    """What a dataset.yaml says."""

    path: Path
    folders: dict[str, str] = field(default_factory=dict)
    """images, masks, depth -> subfolder, for those that the file names."""
    class_names: tuple[str, ...] = ()
    ids: dict[int, int] = field(default_factory=dict)
    """Raw id -> position in class_names.  Of masks in colours, a class's raw id is its position."""
    ignore_ids: tuple[int, ...] = ()
    image_ending: str = ""
    """What stands between a picture's name and its file's suffix."""
    mask_ending: str = ""
    labelled: tuple[str, ...] | None = None
    """The classes that are labelled wherever they occur; None: all of them."""
    reader: ColorMask | None = None
    """Reads masks in colours; None for masks of ids."""


def read_description(path: Path) -> FolderDescription:
    """Read and check a dataset.yaml.  ConfigError in one line for unknown keys, ids or colours given twice or of a wrong type."""
    content = read_yaml_mapping(path)
    refuse_unknown_keys(content, KEYS, str(path))
    folders = {key: content[key] for key in ("images", "masks", "depth") if content.get(key) is not None}
    for key, value in folders.items():
        if not isinstance(value, str):
            raise ConfigError(f"{path}: '{key}' must name a subfolder, not {value}")
    names, ids, colors = _read_classes(path, content.get("classes") or [])
    ignored = _id_list(content.get("ignore_ids") or [], f"{path}: 'ignore_ids'")
    both = sorted(set(ignored) & set(ids))
    if both:
        raise ConfigError(f"{path}: id {both[0]} is both ignored and '{names[ids[both[0]]]}'")
    reader = None
    ignore_colors = _color_list(content.get("ignore_colors") or [], f"{path}: 'ignore_colors'")
    if colors or ignore_colors:
        if ids or ignored:
            raise ConfigError(f"{path}: has ids and colors; its masks hold either ids or colours, so list one of the two")
        for color in ignore_colors:
            if color in colors:
                raise ConfigError(f"{path}: colour {_hex(color)} is both ignored and '{names[colors[color]]}'")
        reader = ColorMask({**colors, **dict.fromkeys(ignore_colors, len(names))})
        ids, ignored = {position: position for position in range(len(names))}, [len(names)]
    endings = content.get("suffixes") or {}
    if not isinstance(endings, dict) or not all(isinstance(value, str) for value in endings.values()):
        raise ConfigError(f"{path}: 'suffixes' must be a mapping such as {{image: _rgb_anon, mask: _gt_labelIds}}")
    refuse_unknown_keys(endings, ("image", "mask"), f"{path}: 'suffixes'")
    image_ending, mask_ending = (_stem_ending(str(endings.get(key) or "")) for key in ("image", "mask"))
    return FolderDescription(
        path, folders, tuple(names), ids, tuple(ignored), image_ending, mask_ending, _labelled(path, content.get("labelled"), names), reader
    )


def _read_classes(path: Path, entries: object) -> tuple[list[str], dict[int, int], dict[tuple[int, int, int], int]]:
    """Names, raw id -> position, colour -> position."""
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: 'classes' must be a list of {{name, ids, color}}")
    names: list[str] = []
    ids: dict[int, int] = {}
    colors: dict[tuple[int, int, int], int] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ConfigError(f"{path}: class number {position} has no 'name'")
        where = f"{path}: class '{entry['name']}'"
        refuse_unknown_keys(entry, ("name", "ids", "colors", "color"), where)
        read_color(entry.get("color"), position, where)
        if entry["name"] in names:
            raise ConfigError(f"{where} is listed twice; give it all its ids in one place")
        names.append(entry["name"])
        if "colors" in entry and "ids" in entry:
            raise ConfigError(f"{where}: has ids and colors; its masks hold one of the two")
        for color in _color_list(entry.get("colors"), f"{where}: 'colors'") if "colors" in entry else ():
            if color in colors:
                raise ConfigError(f"{where}: colour {_hex(color)} already belongs to '{names[colors[color]]}'")
            colors[color] = position
        for raw_id in _id_list(entry.get("ids"), f"{where}: 'ids'") if "colors" not in entry else ():
            if raw_id in ids:
                raise ConfigError(f"{where}: id {raw_id} already belongs to '{names[ids[raw_id]]}'")
            ids[raw_id] = position
    return names, ids, colors


def _labelled(path: Path, value: object, names: list[str]) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{path}: 'labelled' must be a list of class names, such as [road, car]")
    for name in value:
        if name not in names:
            raise ConfigError(f"{path}: 'labelled' names '{name}', which is none of its classes: {', '.join(names)}")
    return tuple(value)


def _stem_ending(ending: str) -> str:
    """`_mask.png` means `_mask`: what the file is called behind the dot does not count."""
    head, dot, tail = ending.rpartition(".")
    return head if dot and tail.isalnum() and len(tail) <= 4 else ending


def _id_list(value: Any, where: str) -> list[int]:
    if not isinstance(value, list) or not all(type(raw_id) is int for raw_id in value):
        raise ConfigError(f"{where} must be a list of whole numbers, such as [7, 8]")
    return value


def _color_list(value: Any, where: str) -> list[tuple[int, int, int]]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list of colours, such as ['#804080'] or [[128, 64, 128]]")
    return [parse_color(color, where) for color in value]


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
