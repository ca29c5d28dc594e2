"""Files -> Sample: `open_dataset` reads GTA5, SYNTHIA, Cityscapes and plain folders into one label space.  Torch-free."""

from __future__ import annotations

from pathlib import Path

from iccld.data.cityscapes import open_cityscapes
from iccld.data.dataset import Dataset, FileDataset
from iccld.data.folder import YAML_NAME, open_folder
from iccld.data.gta5 import open_gta5
from iccld.data.images import IMAGE_SUFFIXES
from iccld.data.mask_reader import MaskReader
from iccld.data.synthia import open_synthia
from iccld.errors import ConfigError, DataError
from iccld.labels import CITYSCAPES19, LabelSpace

FORMATS = ("auto", "gta5", "synthia", "cityscapes", "folder")

__all__ = ["FORMATS", "IMAGE_SUFFIXES", "Dataset", "FileDataset", "MaskReader", "detect_format", "open_dataset"]


def open_dataset(
    path: str | Path,
    format: str = "auto",
    split: str = "train",
    label_space: LabelSpace = CITYSCAPES19,
    classes: str | Path | None = None,
    labels: bool = True,
    strict: bool = True,
) -> FileDataset:
    """Find a dataset's files and pair them; nothing is decoded yet.  Labels are absorbed into `label_space` when they are read.

    format: one of FORMATS; auto goes by the folders inside.  split: for layouts that have splits; others use all their files.
    classes: the YAML of a plain folder, in place of its dataset.yaml.  labels: False leaves masks alone, as for a target.
    strict: False lists unpaired files in `.problems` instead of raising.  What the user should know is in `.notes`.
    DataError: a missing or empty folder, a wrong split, files without a partner.  ConfigError: an unknown format, an unusable YAML, label
    classes that do not fit `label_space`.
    """
    root = Path(path).expanduser()
    if format not in FORMATS:
        raise ConfigError(f"unknown format '{format}'; use one of {', '.join(FORMATS)}")
    if not root.exists():
        raise DataError(f"{root}: no such folder")
    if not root.is_dir():
        raise DataError(f"{root}: is a file; expected the folder of a dataset")
    yaml = Path(classes).expanduser() if classes is not None else None
    found = format
    if format == "auto":
        found = "folder" if yaml is not None else detect_format(root, split)
    if yaml is not None and found != "folder":
        raise ConfigError(f"a classes file ({yaml}) goes with format folder, not {found}")
    if found == "gta5":
        return open_gta5(root, split, label_space, labels, strict)
    if found == "synthia":
        return open_synthia(root, split, label_space, labels, strict)
    if found == "cityscapes":
        return open_cityscapes(root, split, label_space, labels, strict)
    return open_folder(root, split, label_space, yaml, labels, strict)


def detect_format(root: Path, split: str = "train") -> str:
    """The format whose folders lie below `root`, or below `root`/`split`; a plain folder when none do."""
    for base in (root, root / split):
        if (base / "leftImg8bit").is_dir():
            return "cityscapes"
        if (base / YAML_NAME).is_file() or (base / "masks").is_dir():
            return "folder"
        if (base / "RGB").is_dir() and (base / "GT").is_dir():
            return "synthia"
        if (base / "images").is_dir():
            return "gta5" if (base / "labels").is_dir() else "folder"
    return "folder"
