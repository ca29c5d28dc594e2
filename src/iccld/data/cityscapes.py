"""Cityscapes on disk: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and `gtFine/<split>/<city>/*_gtFine_labelIds.png`.

`depth/<split>/<city>/*_depth.png` (16 bits, centimetres; or .npy, metres) is no part of the original: for methods that want depth.
"""

from __future__ import annotations

from pathlib import Path

from iccld.data.dataset import FileDataset, absorbed_table, depth_files, join_names, left_out_note, pair_files
from iccld.data.finding import MASK_SUFFIXES, find_files, picture_suffixes, relative_name
from iccld.data.splits import find_part
from iccld.errors import DataError
from iccld.labels import CITYSCAPES19, CITYSCAPES_IDS, CITYSCAPES_KNOWN, LabelSpace, raw_id_table

IMAGE_ENDING = "_leftImg8bit"
LABEL_ENDING = "_gtFine_labelIds"
DEPTH_ENDING = "_depth"


def open_cityscapes(
    root: Path, split: str, label_space: LabelSpace, labels: bool = True, strict: bool = True, is_asked: bool = False
) -> FileDataset:
    """One split, its labelIds absorbed into `label_space`.  Without `gtFine/<split>/` it is unlabelled.  Names are `city/frame`.

    DataError: missing split (those that exist are named), no pictures, files without a partner (strict).  ConfigError: label spaces
    that do not fit.
    """
    parent = root / "leftImg8bit"
    image_folder = find_part(parent, split) or parent / split
    label_folder = find_part(root / "gtFine", split) or root / "gtFine" / split
    if not image_folder.is_dir():
        found = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
        raise DataError(f"{image_folder}: no such split; expected leftImg8bit/{split}, found {', '.join(found) or 'none'}")
    image_files = _named(image_folder, picture_suffixes(), IMAGE_ENDING)
    if not image_files:
        raise DataError(f"{image_folder}: expected pictures named *{IMAGE_ENDING}.png, found 0")
    use_labels = labels and label_folder.is_dir()
    label_files = _named(label_folder, MASK_SUFFIXES, LABEL_ENDING) if use_labels else None
    pairs = pair_files(root, image_files, label_files, label_folder, strict, label_suffix=f"{LABEL_ENDING}.png")
    table, notes = raw_id_table({}, ()), list[str]()
    if use_labels:
        table, notes = absorbed_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN, CITYSCAPES19.names, label_space)
    return FileDataset(
        root=root,
        format="cityscapes",
        names=pairs.names,
        image_paths=pairs.image_paths,
        label_paths=pairs.label_paths,
        label_space=label_space,
        raw_ids=table,
        depth_paths=depth_files(find_part(root / "depth", split) or root / "depth" / split, pairs.names, DEPTH_ENDING),
        notes=[*notes, *left_out_note([image_folder], picture_suffixes()), *_unnamed_note(image_folder, len(image_files))],
        problems=pairs.problems,
        label_folder=str(label_folder),
    )


def _unnamed_note(folder: Path, num_named: int) -> list[str]:
    others = len(find_files(folder, picture_suffixes())) - num_named
    return [f"{folder}: {others} pictures skipped, whose names do not end with {IMAGE_ENDING}"] if others else []


def _named(folder: Path, suffixes: frozenset[str], ending: str) -> dict[str, Path]:
    """city/frame -> file, for the files whose stem has this ending (gtFine also holds colours and instances)."""
    files = (path for path in find_files(folder, suffixes) if path.stem.endswith(ending))
    return join_names((relative_name(path, folder).removesuffix(ending), path) for path in files)
