"""GTA5 on disk: `images/*.png` and `labels/*.png`, 8-bit palette PNGs with Cityscapes' ids.  Sizes vary between files.

`depth/` beside them is no part of the original: 16-bit PNGs in centimetres, or .npy in metres, for methods that want depth.
"""

from __future__ import annotations

from pathlib import Path

from iccld.data.dataset import FileDataset, absorbed_table, depth_files, left_out_note, named_files, pair_files, unique_names
from iccld.data.finding import MASK_SUFFIXES, find_files, picture_suffixes
from iccld.data.splits import find_part, refuse_missing_split, split_folder
from iccld.labels import CITYSCAPES19, CITYSCAPES_KNOWN, GTA5_IDS, LabelSpace, raw_id_table


def open_gta5(
    root: Path, split: str, label_space: LabelSpace, labels: bool = True, strict: bool = True, is_asked: bool = False
) -> FileDataset:
    """The dataset below `root` (or `root`/`split`), its labels absorbed into `label_space`.  Without `labels/` it is unlabelled.

    DataError: missing or empty `images/`, files without a partner (strict).  ConfigError: label spaces that do not fit.
    """
    base = root if (root / "images").is_dir() else split_folder(root, split)
    image_folder = split_folder(base / "images", split)
    image_files = named_files(image_folder, picture_suffixes(), "pictures")
    if is_asked:
        refuse_missing_split(root, image_folder, split)
    label_folder = split_folder(base / "labels", split) if labels else base / "labels"
    use_labels = labels and label_folder.is_dir()
    label_files = unique_names(find_files(label_folder, MASK_SUFFIXES), label_folder) if use_labels else None
    pairs = pair_files(base, image_files, label_files, label_folder, strict)
    table, notes = raw_id_table({}, ()), list[str]()
    if use_labels:
        table, notes = absorbed_table(GTA5_IDS, CITYSCAPES_KNOWN, CITYSCAPES19.names, label_space)
    return FileDataset(
        root=root,
        format="gta5",
        names=pairs.names,
        image_paths=pairs.image_paths,
        label_paths=pairs.label_paths,
        label_space=label_space,
        raw_ids=table,
        depth_paths=depth_files(find_part(base / "depth", split) or base / "depth", pairs.names),
        notes=[*notes, *left_out_note([image_folder], picture_suffixes())],
        problems=pairs.problems,
        label_folder=str(label_folder),
    )
