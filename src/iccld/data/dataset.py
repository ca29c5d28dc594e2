"""A dataset of files: names, paths, and one `Sample` at a time, its labels already in the label space that was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from iccld.batch import Sample
from iccld.data import finding, images
from iccld.errors import DataError
from iccld.labels import LabelSpace, RawIdTable, raw_id_table

UInt8Array = npt.NDArray[np.uint8]
DEPTH_SUFFIXES = frozenset({".png", ".npy"})
"""16-bit PNG in centimetres, or NumPy arrays in metres (`images.read_depth`)."""


@runtime_checkable
class Dataset(Protocol):
    """What the rooms above may ask of a dataset.  Everything per image has the same length and order."""

    names: list[str]
    image_paths: list[Path]
    label_paths: list[Path | None]
    label_space: LabelSpace
    notes: list[str]

    @property
    def has_labels(self) -> bool: ...

    @property
    def has_depth(self) -> bool: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def read_image(self, index: int) -> UInt8Array: ...

    def read_label(self, index: int) -> UInt8Array: ...

    def read_depth(self, index: int) -> npt.NDArray[np.float32]: ...

    def subset(self, indices: Sequence[int]) -> Dataset: ...


@dataclass
class FileDataset:
    """Pictures on disk with optional masks and depth.  Files are read when asked for, at their full size."""

    root: Path
    format: str
    """One of FORMATS but auto."""
    names: list[str]
    """Unique: the path below the image folder without suffix."""
    image_paths: list[Path]
    label_paths: list[Path | None]
    label_space: LabelSpace
    """Of the labels that are handed out, after absorption."""
    raw_ids: RawIdTable
    """Ids as stored -> train ids of `label_space`."""
    depth_paths: list[Path | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Warnings for the user: classes that nobody absorbs, assumptions about ids."""
    problems: list[str] = field(default_factory=list)
    """Unpaired files, when the dataset was opened with strict=False; empty otherwise."""
    label_folder: str = ""
    """Where labels were expected, for messages."""
    read_mask: Callable[[Path], npt.NDArray[Any]] = images.read_palette_indices
    wide: tuple[int, int] = images.FULL_RANGE
    """The values of 16-bit pictures that become black and white."""
    layout: str = ""
    """What the layout is called, where that says more than `format`."""

    def __post_init__(self) -> None:
        self.depth_paths = self.depth_paths or [None] * len(self.image_paths)

    @property
    def has_labels(self) -> bool:
        """Whether every picture has a mask."""
        return len(self) > 0 and all(path is not None for path in self.label_paths)

    @property
    def has_depth(self) -> bool:
        """Whether every picture has a depth map."""
        return len(self) > 0 and all(path is not None for path in self.depth_paths)

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitem__(self, index: int) -> Sample:
        """Sample at full size.  DataError for unreadable files, unknown ids, or maps of another size than the picture."""
        image = self.read_image(index)
        label = None if self.label_paths[index] is None else self.read_label(index)
        depth = None if self.depth_paths[index] is None else self.read_depth(index)
        for path, values in ((self.label_paths[index], label), (self.depth_paths[index], depth)):
            if values is not None and values.shape != image.shape[:2]:
                raise DataError(size_mismatch(self.image_paths[index], image.shape, path, values.shape))
        return Sample(image, label, depth, self.names[index], index)

    def read_image(self, index: int) -> UInt8Array:
        """(H, W, 3) uint8 RGB."""
        return images.read_image(self.image_paths[index], self.wide)

    def read_label(self, index: int) -> UInt8Array:
        """(H, W) uint8 train ids of `label_space`, 255 = ignore.  DataError without a mask or with an unknown id."""
        path = self.label_paths[index]
        if path is None:
            raise DataError(f"{self.image_paths[index]}: has no labels; expected a mask in {self.label_folder or self.root}")
        return self.raw_ids.apply(self.read_mask(path), path)

    def read_depth(self, index: int) -> npt.NDArray[np.float32]:
        """(H, W) float32 metres.  DataError without a depth map."""
        path = self.depth_paths[index]
        if path is None:
            raise DataError(f"{self.image_paths[index]}: has no depth map, which this method needs")
        return images.read_depth(path)

    def subset(self, indices: Sequence[int]) -> FileDataset:
        """The pictures at these positions, renumbered from 0."""
        return replace(
            self,
            names=[self.names[i] for i in indices],
            image_paths=[self.image_paths[i] for i in indices],
            label_paths=[self.label_paths[i] for i in indices],
            depth_paths=[self.depth_paths[i] for i in indices],
        )


def depth_files(folder: Path, names: Sequence[str], ending: str = "") -> list[Path | None]:
    """The depth map of each picture below `folder`, by its name and `ending`; None where there is none."""
    found = unique_names(finding.find_files(folder, DEPTH_SUFFIXES), folder)
    return [found.get(f"{name}{ending}") for name in names]


def size_mismatch(image_path: Path, image_shape: tuple[int, ...], other_path: Path | None, other_shape: tuple[int, ...]) -> str:
    """One line naming a picture and a map of another size (WxH)."""
    return f"{image_path}: is {image_shape[1]}x{image_shape[0]}, but {other_path} is {other_shape[1]}x{other_shape[0]}"


@dataclass(frozen=True)
class Pairing:
    """Pictures with their masks (None where missing), and one line for each set of files without a partner."""

    names: list[str]
    image_paths: list[Path]
    label_paths: list[Path | None]
    problems: list[str]


def pair_files(
    root: Path,
    image_files: dict[str, Path],
    label_files: dict[str, Path] | None,
    label_folder: Path,
    strict: bool,
    label_suffix: str = ".png",
) -> Pairing:
    """Join pictures and masks by name.  `label_files` None: unlabelled.

    strict: DataError, naming the counts and the first file without a partner; otherwise they are listed in `problems`.
    """
    names = list(image_files)
    if label_files is None:
        return Pairing(names, list(image_files.values()), [None] * len(names), [])
    without_mask = [name for name in names if name not in label_files]
    without_image = [name for name in label_files if name not in image_files]
    counts = f"{root}: expected {len(names)} masks for {len(names)} pictures, found {len(label_files)}"
    if strict and without_mask:
        raise DataError(f"{counts}; no mask {label_folder / (without_mask[0] + label_suffix)}{_more(without_mask)}")
    if strict and without_image:
        raise DataError(f"{counts}; no picture for mask {label_files[without_image[0]]}{_more(without_image)}")
    problems = [f"{image_files[name]}: unpaired, no mask {label_folder / (name + label_suffix)}" for name in without_mask]
    problems += [f"{label_files[name]}: unpaired, no picture for this mask" for name in without_image]
    return Pairing(names, list(image_files.values()), [label_files.get(name) for name in names], problems)


def named_files(folder: Path, suffixes: frozenset[str], what: str) -> dict[str, Path]:
    """Name -> file below `folder`, sorted.  Two files that differ in their suffix alone keep it in their names.

    DataError when the folder is missing or holds no such file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected {what} there")
    files = finding.find_files(folder, suffixes)
    if not files:
        skipped = "".join(f"; {note}" for note in left_out_note([folder], suffixes))
        raise DataError(f"{folder}: expected {what} ({', '.join(sorted(suffixes))}), found 0{skipped}")
    return unique_names(files, folder)


def left_out_note(folders: Sequence[Path], suffixes: frozenset[str]) -> list[str]:
    """A sentence on the files below the folders that are not read, counted by their suffix; none where all are."""
    counts: Counter[str] = Counter()
    for folder in folders:
        counts += Counter(path.suffix.lower() or "no suffix" for path in finding.other_files(folder, suffixes))
    if not counts:
        return []
    listed = ", ".join(f"{suffix} {count}" if len(counts) > 1 else suffix for suffix, count in counts.most_common())
    total = counts.total()
    note = f"{', '.join(map(str, folders[:2]))}: {total} file{'s' if total > 1 else ''} skipped ({listed})"
    if any(suffix in finding.HEIF_SUFFIXES for suffix in counts):
        note += "; pip install 'iccld[heif]' reads HEIC and AVIF"
    if any(suffix in finding.VIDEO_SUFFIXES for suffix in counts):
        note += "; iccld predict reads videos, training does not: save their frames as pictures"
    return [note]


def unique_names(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Name (path below `folder` without suffix) -> file; a suffix stays where it alone tells two files apart.

    DataError when two files still share a name: one of them would be lost.
    """
    names = [finding.relative_name(path, folder) for path in files]
    uses = Counter(names)
    return join_names((name + path.suffix if uses[name] > 1 else name, path) for name, path in zip(names, files, strict=True))


def join_names(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Name -> file.  DataError for a name given twice: 'a.png' and 'a.png.tif' beside 'a.jpg', or one name in two forms of Unicode."""
    files: dict[str, Path] = {}
    for name, path in named:
        if name in files:
            raise DataError(f"{path}: shares the name '{name}' with {files[name]}; rename one, or both would be taken for the same")
        files[name] = path
    return files


def absorbed_table(
    mapping: Mapping[int, int],
    known: Iterable[int],
    finer_names: Sequence[str],
    space: LabelSpace,
    labelled: Sequence[str] | None = None,
) -> tuple[RawIdTable, list[str]]:
    """Raw ids -> finer train ids -> train ids of `space`, and a note when some finer classes are absorbed by none (they are ignored).

    labelled: the finer classes that are labelled wherever they occur; the others say nothing, and become IGNORE.
    ConfigError when the classes do not fit together (LabelSpace.absorption).
    """
    absorption, unabsorbed = space.absorption(finer_names, labelled)
    if labelled is not None:
        unabsorbed = [name for name in unabsorbed if name in labelled]
    notes = [f"label space '{space.name}' absorbs no {', '.join(unabsorbed)}: ignored (255)"] if unabsorbed else []
    return raw_id_table(mapping, known).then(absorption), notes


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
