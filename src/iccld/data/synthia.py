"""SYNTHIA on disk: `RGB/`, `GT/LABELS/` (16-bit RGB PNG, class in red), and `Depth/` (16-bit PNG, centimetres).

RAND-CITYSCAPES and the sequences (SYNTHIA-SEQS) number their classes differently: 12 is motorcycle in the one and lane marking in the
other.  They are told apart by the ids that the masks hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iccld.data.dataset import FileDataset, absorbed_table, left_out_note, named_files, pair_files, unique_names
from iccld.data.finding import find_files, picture_suffixes
from iccld.data.images import read_png_u16
from iccld.data.splits import find_part, refuse_missing_split, split_folder
from iccld.labels import CITYSCAPES19, SYNTHIA_IDS, SYNTHIA_KNOWN, LabelSpace, raw_id_table

PNG = frozenset({".png"})


SEQS_NAMES = (
    *("sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car", "traffic sign", "person", "bicycle"),
    "traffic light",
)
SEQS_IDS = {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7, 9: 8, 10: 9, 11: 10, 12: 2, 15: 11}
"""SYNTHIA-SEQS -> positions in SEQS_NAMES; 12 is lane marking, which is road."""
SEQS_KNOWN = frozenset({*range(13), 13, 14, 15})
"""Void (0) and the reserved 13 and 14 are ignored."""
ONLY_RAND = frozenset({13, 14, *range(16, 23)})
"""Ids that the sequences do not use."""
LOOKED_AT = 8
"""Masks that are looked at to tell the two apart."""
LANE = 12


def are_sequences(label_files: Sequence[Path]) -> bool:
    """Whether masks are numbered as SYNTHIA-SEQS: a sample holds no id that is RAND-CITYSCAPES' alone, and lane marking in most of it.

    A motorcycle is in few pictures of RAND-CITYSCAPES, and hardly any of them is without the ids from 16 on.
    """
    step = max(1, len(label_files) // LOOKED_AT)
    found = [set(np.unique(read_synthia_mask(path)).tolist()) for path in list(label_files)[::step][:LOOKED_AT]]
    return bool(found) and not any(ids & ONLY_RAND for ids in found) and 2 * sum(LANE in ids for ids in found) > len(found)


def read_synthia_mask(path: Path) -> npt.NDArray[Any]:
    """(H, W) uint16 raw ids: the red channel; green holds instances."""
    return read_png_u16(path)[..., 0]


def open_synthia(
    root: Path,
    split: str,
    label_space: LabelSpace,
    labels: bool = True,
    strict: bool = True,
    is_asked: bool = False,
    format: str = "auto",
) -> FileDataset:
    """The dataset below `root` (or `root`/`split`), its labels absorbed into `label_space`.  `GT/LABELS/` and `Depth/` are optional.

    format: synthia (RAND-CITYSCAPES), synthia_seqs, or auto, by what the masks hold.

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
    table, notes, is_sequences = raw_id_table({}, ()), list[str](), False
    if use_labels:
        looks_like_sequences = are_sequences([path for path in pairs.label_paths if path is not None])
        is_sequences = format == "synthia_seqs" or (format == "auto" and looks_like_sequences)
        if is_sequences:
            table, notes = absorbed_table(SEQS_IDS, SEQS_KNOWN, SEQS_NAMES, label_space)
        else:
            table, notes = absorbed_table(SYNTHIA_IDS, SYNTHIA_KNOWN, CITYSCAPES19.names, label_space)
        if format == "synthia" and looks_like_sequences:
            notes.append(f"warning: {root}: its masks look like SYNTHIA-SEQS', where 12 is lane marking; set the format to synthia_seqs")
    return FileDataset(
        root=root,
        format="synthia_seqs" if is_sequences else "synthia",
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
