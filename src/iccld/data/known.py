"""The layouts of `layouts.py` as data sets: pictures and masks paired by name, ids by the layout's own table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from iccld.data.dataset import FileDataset, absorbed_table, join_names, left_out_note, pair_files
from iccld.data.finding import MASK_SUFFIXES, find_files, picture_suffixes, relative_name
from iccld.data.layouts import Layout, folders_of, listed_names, splits_of
from iccld.errors import ConfigError, DataError
from iccld.labels import CITYSCAPES19, CITYSCAPES_IDS, CITYSCAPES_KNOWN, IGNORE, LabelSpace, raw_id_table

TRAIN_IDS = {train_id: train_id for train_id in range(CITYSCAPES19.num_classes)}
TABLES = {
    "kitti": (CITYSCAPES_IDS, CITYSCAPES_KNOWN),
    "acdc": (CITYSCAPES_IDS, CITYSCAPES_KNOWN),
    "bdd100k": (TRAIN_IDS, frozenset({IGNORE})),
}
"""Format -> raw id -> train id of Cityscapes' 19 classes, and the ids that are known and ignored beside them.

KITTI's semantics and ACDC's labelIds are Cityscapes' ids; BDD100K's masks hold the train ids."""


def open_known(
    root: Path, layout: Layout, split: str, label_space: LabelSpace, labels: bool = True, strict: bool = True, is_asked: bool = False
) -> FileDataset:
    """One part of a recognised layout, its ids absorbed into `label_space`.  Without masks it is unlabelled.

    As `open_paired`.  ConfigError: masks whose ids the layout does not define, label spaces that do not fit.
    """
    if labels and folders_of(root, layout.masks, split) and layout.format not in TABLES:
        raise ConfigError(f"{root}: is {layout.title}; its masks do not say which class an id is: {layout.remedy}")
    dataset = open_paired(root, layout, split, label_space, labels, strict, is_asked)
    if not dataset.has_labels:
        return dataset
    table, notes = absorbed_table(*TABLES[layout.format], CITYSCAPES19.names, label_space)
    return replace(dataset, raw_ids=table, notes=[*notes, *dataset.notes])


def open_paired(
    root: Path, layout: Layout, split: str, label_space: LabelSpace, labels: bool = True, strict: bool = True, is_asked: bool = False
) -> FileDataset:
    """One part of a recognised layout, its pictures and masks paired by name; what the ids mean is left open.

    DataError: a part that is not there (those that are get named), no pictures, files without a partner (strict).
    """
    folders = folders_of(root, layout.images, split)
    listed = listed_names(root, layout, split) if labels or is_asked else None
    has_parts = any("{split}" in pattern for pattern in layout.images)
    if not folders or (is_asked and not has_parts and listed is None):
        found = splits_of(root, layout)
        raise DataError(f"{root}: {layout.title} has no split '{split}' here, found {', '.join(found) or 'none; leave --split out'}")
    image_files = _named(folders, picture_suffixes(), layout.image_ending)
    if listed is not None:
        missing = [name for name in listed if name not in image_files]
        if missing:
            raise DataError(f"{root}: {layout.lists.format(split=split)} lists '{missing[0]}', of which there is no picture")
        image_files = {name: image_files[name] for name in listed}
    if not image_files:
        raise DataError(f"{folders[0][0]}: expected the pictures of {layout.title} there, found 0")
    mask_folders = folders_of(root, layout.masks, split) if labels else []
    mask_files = _named(mask_folders, MASK_SUFFIXES, layout.mask_ending) if mask_folders else None
    label_folder = mask_folders[0][0] if mask_folders else root
    pairs = pair_files(root, image_files, mask_files, label_folder, strict, label_suffix=f"{layout.mask_ending}.png")
    return FileDataset(
        root=root,
        format=layout.format,
        layout=layout.title,
        names=pairs.names,
        image_paths=pairs.image_paths,
        label_paths=pairs.label_paths,
        label_space=label_space,
        raw_ids=raw_id_table({}, ()),
        notes=left_out_note([folder for folder, _ in folders], picture_suffixes()),
        problems=pairs.problems,
        label_folder=str(label_folder),
    )


def _named(folders: list[tuple[Path, str]], suffixes: frozenset[str], ending: str) -> dict[str, Path]:
    """Name -> file: what the folder's wildcards stand for, the path below it, without the ending."""
    return join_names(
        ("/".join(filter(None, (stars, relative_name(path, folder).removesuffix(ending)))), path)
        for folder, stars in folders
        for path in find_files(folder, suffixes)
        if path.stem.endswith(ending)
    )
