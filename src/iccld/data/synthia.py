"""SYNTHIA-RAND-CITYSCAPES on disk: `RGB/`, `GT/LABELS/` (16-bit RGB PNG, class in red), and `Depth/` (16-bit PNG, centimetres)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from iccld.data.dataset import FileDataset, absorbed_table, left_out_note, named_files, pair_files, unique_names
from iccld.data.images import find_files, picture_suffixes, read_png_u16
from iccld.data.splits import find_part, refuse_missing_split, split_folder
from iccld.labels import CITYSCAPES19, SYNTHIA_IDS, SYNTHIA_KNOWN, LabelSpace, raw_id_table

PNG = frozenset({".png"})


def read_synthia_mask(path: Path) -> npt.NDArray[Any]:
    """(H, W) uint16 raw ids: the red channel; green holds instances."""
    return read_png_u16(path)[..., 0]


def open_synthia(
    root: Path, split: str, label_space: LabelSpace, labels: bool = True, strict: bool = True, is_asked: bool = False
) -> FileDataset:
    """The dataset below `root` (or `root`/`split`), its labels absorbed into `label_space`.  `GT/LABELS/` and `Depth/` are optional.

    DataError: missing or empty `RGB/`, files without a partner (strict).  ConfigError: label spaces that do not fit.
    """
    base = root if (root / "RGB").is_dir() else split_folder(root, split)
    image_folder = split_folder(base / "RGB", split)
    image_files = named_files(image_folder, picture_suffixes(), "pictures")
    if is_asked:
        refuse_missing_split(root, image_folder, split)
    label_folder = split_folder(base / "GT" / "LABELS", split) if labels else base / "GT" / "LABELS"
    use_labels = labels and label_folder.is_dir()
    label_files = unique_names(find_files(label_folder, PNG), label_folder) if use_labels else None
    pairs = pair_files(base, image_files, label_files, label_folder, strict)
    # The published archive nests Depth/Depth/.
    nested = base / "Depth" / "Depth"
    depth_folder = nested if nested.is_dir() else base / "Depth"
    depth_folder = find_part(depth_folder, split) or depth_folder
    depth_files = unique_names(find_files(depth_folder, PNG), depth_folder)
    table, notes = raw_id_table({}, ()), list[str]()
    if use_labels:
        table, notes = absorbed_table(SYNTHIA_IDS, SYNTHIA_KNOWN, CITYSCAPES19.names, label_space)
    return FileDataset(
        root=root,
        format="synthia",
        names=pairs.names,
        image_paths=pairs.image_paths,
        label_paths=pairs.label_paths,
        label_space=label_space,
        raw_ids=table,
        depth_paths=[depth_files.get(name) for name in pairs.names],
        notes=[*notes, *left_out_note([image_folder], picture_suffixes())],
        problems=pairs.problems,
        label_folder=str(label_folder),
        read_mask=read_synthia_mask,
    )
