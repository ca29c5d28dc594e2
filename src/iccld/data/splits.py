"""Parts of a data set: `train`, `val` and `test` under the names that people give them."""

from __future__ import annotations

from pathlib import Path

from iccld.errors import DataError

SYNONYMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Part -> the names of its folder.  Names compare without case."""
_PART_OF = {name: part for part, names in SYNONYMS.items() for name in names}


def part_of(name: str) -> str:
    """`Training` -> `train`; a name that means no known part stays as it is."""
    return _PART_OF.get(name.casefold(), name)


def parts_in(folder: Path) -> list[str]:
    """Names of the subfolders that are parts of a data set, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name.casefold() in _PART_OF and path.is_dir())


def find_part(folder: Path, split: str) -> Path | None:
    """The subfolder of that very name, or the one whose name means the same part; None where there is neither."""
    if (folder / split).is_dir():
        return folder / split
    named = [name for name in parts_in(folder) if part_of(name) == part_of(split)]
    return folder / named[0] if named else None


def split_folder(folder: Path, split: str) -> Path:
    """The part of `folder` that `split` names; `folder` itself where it is not divided into train, val or test.

    DataError, naming the parts that exist, when it is divided but has no such part.
    """
    part = find_part(folder, split)
    if part is None and (found := parts_in(folder)):
        raise DataError(f"{folder}: expected a split '{split}', found {', '.join(found)}")
    return part or folder


def refuse_missing_split(root: Path, image_folder: Path, split: str) -> None:
    """DataError when a split was asked for and `image_folder`, which is to be read, is no part of that name.

    Without this a data set that is not divided would be taken whole: training pictures scored, labelled ones adapted to.
    """
    names = {part_of(name) for name in (*image_folder.parts[len(root.parts) :], root.name)}
    if part_of(split) in names or split in names:
        return
    folders = sorted(path.name for path in image_folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = f"found {', '.join(folders[:8])}" + (", …" if len(folders) > 8 else "") if folders else "it has no parts"
    remedy = "leave --split out to take everything, or name a folder that is there"
    raise DataError(f"{image_folder}: expected a split '{split}', {listed}; {remedy}")
