"""Any folder: `images/`, optional `masks/` and `depth/`, subfolders of any depth, and one YAML that names the ids.

`dataset.yaml`, in the folder or the one above it: `{name, images, masks, depth, classes: [{name, ids: [..], color}], ignore_ids: [..]}`.
A folder with nothing but pictures is an unlabelled dataset.  Masks without a YAML hold the label space's own train ids 0..K-1, with 255
(and 11, in the CamVid edition that camvid11 describes) for pixels to ignore.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iccld.data.dataset import FileDataset, Pairing, absorbed_table, depth_files, named_files, pair_files, split_folder, unique_names
from iccld.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES, find_files
from iccld.errors import ConfigError, DataError
from iccld.labels import CAMVID11, IGNORE, LabelSpace, RawIdTable, raw_id_table, read_color, read_yaml_mapping, refuse_unknown_keys

YAML_NAME = "dataset.yaml"
KEYS = ("name", "images", "masks", "depth", "classes", "ignore_ids")


@dataclass(frozen=True)
class FolderDescription:
    """What a dataset.yaml says."""

    path: Path
    folders: dict[str, str] = field(default_factory=dict)
    """images, masks, depth -> subfolder, for those that the file names."""
    class_names: tuple[str, ...] = ()
    ids: dict[int, int] = field(default_factory=dict)
    """Raw id -> position in class_names."""
    ignore_ids: tuple[int, ...] = ()


def read_description(path: Path) -> FolderDescription:
    """Read and check a dataset.yaml.  ConfigError in one line for unknown keys, ids given twice or of a wrong type."""
    content = read_yaml_mapping(path)
    refuse_unknown_keys(content, KEYS, str(path))
    folders = {key: content[key] for key in ("images", "masks", "depth") if content.get(key) is not None}
    for key, value in folders.items():
        if not isinstance(value, str):
            raise ConfigError(f"{path}: '{key}' must name a subfolder, not {value}")
    entries = content.get("classes") or []
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: 'classes' must be a list of {{name, ids, color}}")
    names: list[str] = []
    ids: dict[int, int] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ConfigError(f"{path}: class number {position} has no 'name'")
        where = f"{path}: class '{entry['name']}'"
        refuse_unknown_keys(entry, ("name", "ids", "color"), where)
        read_color(entry.get("color"), position, where)
        if entry["name"] in names:
            raise ConfigError(f"{where} is listed twice; give it all its ids in one place")
        names.append(entry["name"])
        for raw_id in _id_list(entry.get("ids"), f"{where}: 'ids'"):
            if raw_id in ids:
                raise ConfigError(f"{where}: id {raw_id} already belongs to '{names[ids[raw_id]]}'")
            ids[raw_id] = position
    ignored = _id_list(content.get("ignore_ids") or [], f"{path}: 'ignore_ids'")
    both = sorted(set(ignored) & set(ids))
    if both:
        raise ConfigError(f"{path}: id {both[0]} is both ignored and '{names[ids[both[0]]]}'")
    return FolderDescription(path, folders, tuple(names), ids, tuple(ignored))


def open_folder(
    root: Path, split: str, label_space: LabelSpace, classes: Path | None = None, labels: bool = True, strict: bool = True
) -> FileDataset:
    """The dataset below `root` (or `root`/`split`); `classes` is a YAML that takes the place of dataset.yaml.

    DataError: missing or empty folders, files without a partner (strict), masks in a lossy format.  ConfigError: an unusable YAML, or
    label spaces that do not fit.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    base = root if (root / "images").is_dir() or not (root / split).is_dir() else root / split
    description = _find_description(base, classes)
    folders = description.folders if description else {}
    image_folder = _image_folder(base, folders, split)
    image_files = named_files(image_folder, IMAGE_SUFFIXES, "pictures")
    label_folder = split_folder(base / folders.get("masks", "masks"), split)
    if image_folder == base:
        _refuse_masks_among_pictures(base, image_files)
    if "masks" in folders and not label_folder.is_dir():
        raise DataError(f"{label_folder}: no such folder, but {description.path if description else YAML_NAME} names it for masks")
    use_labels = labels and label_folder.is_dir()
    pairs = _pair(base, image_files, label_folder if use_labels else None, strict)
    table, notes = raw_id_table({}, ()), list[str]()
    if use_labels:
        table, notes = _ids(description, label_space, base)
    return FileDataset(
        root=root,
        format="folder",
        names=pairs.names,
        image_paths=pairs.image_paths,
        label_paths=pairs.label_paths,
        label_space=label_space,
        raw_ids=table,
        depth_paths=depth_files(split_folder(base / folders.get("depth", "depth"), split), pairs.names),
        notes=notes,
        problems=pairs.problems,
        label_folder=str(label_folder),
    )


def _find_description(base: Path, classes: Path | None) -> FolderDescription | None:
    if classes is not None:
        return read_description(classes)
    for path in (base / YAML_NAME, base.parent / YAML_NAME):
        if path.is_file():
            return read_description(path)
    return None


def _image_folder(base: Path, folders: dict[str, str], split: str) -> Path:
    named = base / folders.get("images", "images")
    if named.is_dir() or "images" in folders:
        return split_folder(named, split)
    if (base / "masks").is_dir():
        raise DataError(f"{base}: has masks/ but no images/; expected the pictures there")
    return base


def _refuse_masks_among_pictures(base: Path, image_files: dict[str, Path]) -> None:
    """A folder of datasets is not a dataset: its masks would be taken for pictures."""
    for path in image_files.values():
        parts = path.relative_to(base).parts[:-1]
        if "masks" in parts or "labels" in parts:
            raise DataError(f"{base}: holds several datasets ({path.parent}); name one that has images/, or a split")


def _pair(base: Path, image_files: dict[str, Path], label_folder: Path | None, strict: bool) -> Pairing:
    if label_folder is None:
        return pair_files(base, image_files, None, base, strict)
    lossy = find_files(label_folder, IMAGE_SUFFIXES - MASK_SUFFIXES)
    problems = [f"{path}: a mask must keep its ids exact; save it as PNG" for path in lossy]
    if strict and problems:
        raise DataError(problems[0])
    label_files = unique_names(find_files(label_folder, MASK_SUFFIXES), label_folder)
    pairs = pair_files(base, image_files, label_files, label_folder, strict)
    return Pairing(pairs.names, pairs.image_paths, pairs.label_paths, problems + pairs.problems)


def _ids(description: FolderDescription | None, label_space: LabelSpace, base: Path) -> tuple[RawIdTable, list[str]]:
    if description is not None:
        if not description.class_names:
            raise ConfigError(f"{description.path}: names no 'classes', but there are masks; list {{name, ids}} of each class")
        return absorbed_table(description.ids, description.ignore_ids, description.class_names, label_space)
    num_classes = label_space.num_classes
    ignored = (IGNORE, num_classes) if label_space.name == CAMVID11.name else (IGNORE,)
    note = (
        f"{base}: no {YAML_NAME}, so mask values 0-{num_classes - 1} are taken as the train ids of '{label_space.name}' "
        f"({', '.join(label_space.names[:3])}, …), and {' and '.join(map(str, ignored))} as ignored"
    )
    return raw_id_table({train_id: train_id for train_id in range(num_classes)}, ignored), [note]


def _id_list(value: Any, where: str) -> list[int]:
    if not isinstance(value, list) or not all(type(raw_id) is int for raw_id in value):
        raise ConfigError(f"{where} must be a list of whole numbers, such as [7, 8]")
    return value
