"""Any folder: `images/`, optional `masks/` and `depth/`, subfolders of any depth, and one YAML that names the ids.

`dataset.yaml` (description.py) lies in the folder or the one above it.  A folder with nothing but pictures is an unlabelled dataset; two
folders that mirror each other, one of pictures and one of masks, are read whatever their names.  Masks without a YAML hold the label
space's own train ids 0..K-1, with 255 (and 11, in the CamVid edition that camvid11 describes) for pixels to ignore.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from iccld.data.dataset import (
    FileDataset,
    Pairing,
    absorbed_table,
    depth_files,
    join_names,
    left_out_note,
    named_files,
    pair_files,
    unique_names,
)
from iccld.data.description import YAML_NAME, FolderDescription, read_description
from iccld.data.finding import IMAGE_SUFFIXES, MASK_SUFFIXES, find_files, picture_suffixes
from iccld.data.images import read_palette_indices
from iccld.data.layouts import Layout, folders_of, listed_names, mirrored_folders, refuse_masks, splits_of
from iccld.data.pairing import common_endings, without_ending
from iccld.data.splits import find_part, refuse_missing_split, split_folder
from iccld.errors import ConfigError, DataError
from iccld.labels import CAMVID11, IGNORE, LabelSpace, RawIdTable, raw_id_table

__all__ = ["YAML_NAME", "FolderDescription", "open_folder", "read_description"]


@dataclass(frozen=True)
class _Place:
    """Where a folder keeps what."""

    images: Path
    masks: Path | None
    """None where there are none, or none are wanted."""
    image_ending: str = ""
    mask_ending: str = ""
    notes: list[str] = field(default_factory=list)


def open_folder(
    root: Path,
    split: str,
    label_space: LabelSpace,
    classes: Path | None = None,
    labels: bool = True,
    strict: bool = True,
    is_asked: bool = False,
    layout: Layout | None = None,
) -> FileDataset:
    """The dataset below `root` (or `root`/`split`); `classes` is a YAML that takes the place of dataset.yaml.

    is_asked: whether the split has to be there.  layout: the known layout whose folders are meant where the YAML names none.
    DataError: missing or empty folders, files without a partner (strict), masks in a lossy format, masks that would be taken for
    pictures.  ConfigError: an unusable YAML, or label spaces that do not fit.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    base = _base(root, split, classes, layout)
    description = _find_description(base, classes)
    place = _place(base, description, split, labels, layout)
    image_files = named_files(place.images, picture_suffixes(), "pictures")
    image_files = _with_ending(image_files, place.image_ending, place.mask_ending, place.images)
    if description is None or "images" not in description.folders:
        refuse_masks(place.images, list(image_files.values()), is_named=place.images != base)
    if is_asked:
        refuse_missing_split(root, place.images, split)
    listed = listed_names(root, layout, split) if layout is not None and (labels or is_asked) else None
    if listed is not None:
        image_files = {name: path for name, path in image_files.items() if name in set(listed)}
    pairs, notes = _pair(base, image_files, place, strict, only=listed is not None)
    read_mask: Callable[[Path], npt.NDArray[Any]] = read_palette_indices
    table = raw_id_table({}, ())
    if place.masks is not None:
        table, told = _ids(description, label_space, base)
        notes = told + notes
        if description is not None and description.reader is not None:
            read_mask = description.reader
    folders = description.folders if description else {}
    depth_folder = base / folders.get("depth", "depth")
    return FileDataset(
        root=root,
        format="folder",
        names=pairs.names,
        image_paths=pairs.image_paths,
        label_paths=pairs.label_paths,
        label_space=label_space,
        raw_ids=table,
        depth_paths=depth_files(find_part(depth_folder, split) or depth_folder, pairs.names),
        notes=[*notes, *place.notes, *left_out_note([place.images], picture_suffixes())],
        problems=pairs.problems,
        label_folder=str(place.masks or base / folders.get("masks", "masks")),
        read_mask=read_mask,
    )


def _base(root: Path, split: str, classes: Path | None, layout: Layout | None) -> Path:
    """`root`, or its part where the parts lie outside and `images/` inside."""
    part = find_part(root, split)
    if layout is not None or part is None or (root / "images").is_dir():
        return root
    described = read_description(classes or root / YAML_NAME) if classes or (root / YAML_NAME).is_file() else None
    is_named = described is not None and (root / described.folders.get("images", "images")).is_dir()
    return root if is_named else part


def _find_description(base: Path, classes: Path | None) -> FolderDescription | None:
    if classes is not None:
        return read_description(classes)
    for path in (base / YAML_NAME, base.parent / YAML_NAME):
        if path.is_file():
            return read_description(path)
    return None


def _place(base: Path, description: FolderDescription | None, split: str, labels: bool, layout: Layout | None) -> _Place:
    """Where the pictures and masks are: as the YAML says, as the layout has them, `images/` and `masks/`, or two that mirror each other."""
    folders = description.folders if description else {}
    endings = (description.image_ending, description.mask_ending) if description else ("", "")
    if layout is not None and "images" not in folders:
        pictures, labelled = folders_of(base, layout.images, split), folders_of(base, layout.masks, split)
        if not pictures:
            raise DataError(f"{base}: {layout.title} has no split '{split}' here, found {', '.join(splits_of(base, layout)) or 'none'}")
        return _Place(pictures[0][0], labelled[0][0] if labelled and labels else None, layout.image_ending, layout.mask_ending)
    named = base / folders.get("images", "images")
    masks = base / folders.get("masks", "masks")
    if "masks" in folders and labels and not masks.is_dir():
        raise DataError(f"{masks}: no such folder, but {description.path if description else YAML_NAME} names it for masks")
    if named.is_dir() or "images" in folders:
        pictures_folder = split_folder(named, split)
        return _Place(pictures_folder, split_folder(masks, split) if labels and masks.is_dir() else None, *endings)
    if endings[1] and not masks.is_dir():
        return _Place(base, base if labels else None, *endings)
    if masks.is_dir():
        raise DataError(f"{base}: has {masks.name}/ but no images/; expected the pictures there")
    mirrored = mirrored_folders(base)
    if mirrored is not None:
        images, found = mirrored
        note = f"{base}: {images.name}/ holds the pictures and {found.name}/ the masks, as far as their content tells"
        found_masks = split_folder(found, split) if labels else None
        return _Place(split_folder(images, split), found_masks, *endings, [note])
    _refuse_several(base)
    return _Place(base, None, *endings)


def _refuse_several(base: Path) -> None:
    """A folder of datasets is not a dataset: its masks would be taken for pictures."""
    for path in find_files(base, picture_suffixes()):
        parts = path.relative_to(base).parts[:-1]
        if ("masks" in parts or "labels" in parts) and len(parts) > 1:
            raise DataError(f"{base}: holds several datasets ({path.parent}); name one that has images/, or a split")


def _with_ending(files: dict[str, Path], ending: str, mask_ending: str, folder: Path) -> dict[str, Path]:
    """The pictures whose names end as they should, named without it; masks that lie among them are left out."""
    kept = {name: path for name, path in files.items() if not mask_ending or not path.stem.endswith(mask_ending)}
    kept = {name: path for name, path in kept.items() if path.stem.endswith(ending)}
    if not kept:
        raise DataError(f"{folder}: expected pictures named *{ending}, found 0 among {len(files)}; correct 'suffixes' in the YAML")
    return join_names((without_ending(name, ending), path) for name, path in kept.items())


def _pair(base: Path, image_files: dict[str, Path], place: _Place, strict: bool, only: bool) -> tuple[Pairing, list[str]]:
    """Pairs by name; endings that all pictures or all masks share are no part of the name, when nothing pairs with them.

    only: masks of pictures that are not in the list are no problem.
    """
    if place.masks is None:
        return pair_files(base, image_files, None, base, strict), []
    lossy = [] if place.masks == place.images else find_files(place.masks, IMAGE_SUFFIXES - MASK_SUFFIXES)
    problems = [f"{path}: a mask must keep its ids exact; save it as PNG" for path in lossy]
    if strict and problems:
        raise DataError(problems[0])
    found = [path for path in find_files(place.masks, MASK_SUFFIXES) if path.stem.endswith(place.mask_ending)]
    if place.masks == place.images and not place.mask_ending:
        found = []
    label_files = join_names((without_ending(name, place.mask_ending), path) for name, path in unique_names(found, place.masks).items())
    notes = []
    if label_files and not set(label_files) & set(image_files):
        endings = common_endings(list(image_files), list(label_files))
        if endings is not None:
            image_files = {without_ending(name, endings[0]): path for name, path in image_files.items()}
            label_files = {without_ending(name, endings[1]): path for name, path in label_files.items()}
            words = " and ".join(f"{what} with '{ending}'" for what, ending in zip(("pictures", "masks"), endings, strict=True) if ending)
            notes = [f"{base}: paired by what stands before the endings: {words}"]
    if only:
        label_files = {name: path for name, path in label_files.items() if name in image_files}
    pairs = pair_files(base, image_files, label_files, place.masks, strict, label_suffix=f"{place.mask_ending}.png")
    return Pairing(pairs.names, pairs.image_paths, pairs.label_paths, problems + pairs.problems), notes


def _ids(description: FolderDescription | None, label_space: LabelSpace, base: Path) -> tuple[RawIdTable, list[str]]:
    if description is not None:
        if not description.class_names:
            raise ConfigError(f"{description.path}: names no 'classes', but there are masks; list {{name, ids}} of each class")
        return absorbed_table(description.ids, description.ignore_ids, description.class_names, label_space, description.labelled)
    num_classes = label_space.num_classes
    ignored = (IGNORE, num_classes) if label_space.name == CAMVID11.name else (IGNORE,)
    note = (
        f"{base}: no {YAML_NAME}, so mask values 0-{num_classes - 1} are taken as the train ids of '{label_space.name}' "
        f"({', '.join(label_space.names[:3])}, …), and {' and '.join(map(str, ignored))} as ignored"
    )
    return raw_id_table({train_id: train_id for train_id in range(num_classes)}, ignored), [note]
