"""Files -> Sample: `open_dataset` reads the layouts that people have, and plain folders, into one label space.  Torch-free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from iccld.data.carla import open_carla
from iccld.data.cityscapes import open_cityscapes
from iccld.data.dataset import Dataset, FileDataset
from iccld.data.finding import IMAGE_SUFFIXES
from iccld.data.folder import YAML_NAME, open_folder
from iccld.data.gta5 import open_gta5
from iccld.data.known import TABLES, open_known
from iccld.data.layouts import LAYOUTS, Layout, recognise
from iccld.data.mask_reader import MaskReader
from iccld.data.splits import find_part
from iccld.data.synthia import open_synthia
from iccld.errors import ConfigError, DataError
from iccld.labels import CITYSCAPES19, LabelSpace

FORMATS = ("auto", "gta5", "synthia", "synthia_seqs", "cityscapes", "folder", *dict.fromkeys(layout.format for layout in LAYOUTS), "carla")

__all__ = ["FORMATS", "IMAGE_SUFFIXES", "Dataset", "FileDataset", "MaskReader", "detect_format", "open_dataset"]


def open_dataset(
    path: str | Path,
    format: str = "auto",
    split: str = "train",
    label_space: LabelSpace = CITYSCAPES19,
    classes: str | Path | None = None,
    labels: bool = True,
    strict: bool = True,
    is_asked: bool = False,
) -> FileDataset:
    """Find a dataset's files and pair them; nothing is decoded yet.  Labels are absorbed into `label_space` when they are read.

    format: one of FORMATS; auto goes by the folders inside.  split: for layouts that have splits; others use all their files, unless
    `is_asked`: then a split that is not there is an error.  classes: the YAML of a plain folder, in place of its dataset.yaml.
    labels: False leaves masks alone, as for a target.  strict: False lists unpaired files in `.problems` instead of raising.  What the
    user should know is in `.notes`.
    DataError: a missing or empty folder, a wrong split, files without a partner, masks that would be taken for pictures.  ConfigError:
    an unknown format, an unusable YAML, label classes that do not fit `label_space`.
    """
    root = Path(path).expanduser()
    if format not in FORMATS:
        raise ConfigError(f"unknown format '{format}'; use one of {', '.join(FORMATS)}")
    if not root.exists():
        raise DataError(f"{root}: no such folder")
    if not root.is_dir():
        raise DataError(f"{root}: is a file; expected the folder of a dataset")
    yaml = Path(classes).expanduser() if classes is not None else None
    layout = _known_layout(root, format)
    if layout is not None:
        if layout.format == "carla" and yaml is None and not (root / YAML_NAME).is_file():
            return open_carla(root, layout, split, label_space, labels, strict, is_asked)
        if layout.format in TABLES and yaml is None:
            return open_known(root, layout, split, label_space, labels, strict, is_asked)
        if layout.format not in TABLES and yaml is None and not (root / YAML_NAME).is_file():
            return open_known(root, layout, split, label_space, labels, strict, is_asked)
        return replace(open_folder(root, split, label_space, yaml, labels, strict, is_asked, layout), layout=layout.title)
    found = format
    if format == "auto":
        found = "folder" if yaml is not None else detect_format(root, split)
    if yaml is not None and found != "folder":
        raise ConfigError(f"a classes file ({yaml}) goes with format folder, not {found}")
    if found == "gta5":
        return open_gta5(root, split, label_space, labels, strict, is_asked)
    if found in ("synthia", "synthia_seqs"):
        return open_synthia(root, split, label_space, labels, strict, is_asked, format)
    if found == "cityscapes":
        return open_cityscapes(root, split, label_space, labels, strict, is_asked)
    return open_folder(root, split, label_space, yaml, labels, strict, is_asked)


def detect_format(root: Path, split: str = "train") -> str:
    """The format whose folders lie below `root`, or below `root`/`split`; a plain folder when none do."""
    layout = recognise(root)
    if layout is not None:
        return layout.format
    for base in (root, find_part(root, split) or root / split):
        if (base / "leftImg8bit").is_dir():
            return "cityscapes"
        if (base / YAML_NAME).is_file() or (base / "masks").is_dir():
            return "folder"
        if (base / "RGB").is_dir() and (base / "GT").is_dir():
            return "synthia"
        if (base / "images").is_dir():
            return "gta5" if (base / "labels").is_dir() else "folder"
    return "folder"


def _known_layout(root: Path, format: str) -> Layout | None:
    """The recognised layout where it is to be read as one: found, or named.  ConfigError when another layout is named than lies there."""
    if format in ("gta5", "synthia", "synthia_seqs", "cityscapes", "folder"):
        return None
    layout = recognise(root)
    if format != "auto" and (layout is None or layout.format != format):
        meant = next((each for each in LAYOUTS if each.format == format), None)
        words = f"{meant.title} ({', '.join(meant.marks)})" if meant is not None else "a CARLA recording (rgb/ and semantic/, or the like)"
        raise ConfigError(f"{root}: is not laid out as {words}; leave the format out, or name another")
    return layout
