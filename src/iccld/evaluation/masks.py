"""Score anybody's masks: a folder of them, paired with a labelled split by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from iccld.errors import DataError
from iccld.evaluation.confusion import Confusion, Scores
from iccld.evaluation.evaluate import LabelledDataset, Observer
from iccld.labels import LabelSpace
from iccld.progress import progress

MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp"})
"""Lossless formats; a JPEG of ids is no mask."""
NAME_ENDINGS = (
    *("_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelTrainIds", "_labelIds", "_trainIds", "_train_ids"),
    *("_leftImg8bit", "_prediction", "_pred", "_mask"),
)
"""Endings that the field appends to a picture's name, taken off before names are compared."""


class MaskFiles(Protocol):
    """Turns mask files into (H, W) uint8 train ids; `find` may look at them all first to learn what they hold."""

    def find(self, paths: Sequence[Path]) -> None: ...
    def read(self, path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]: ...


def evaluate_predictions(
    folder: Path | str,
    dataset: LabelledDataset,
    label_space: LabelSpace,
    reader: MaskFiles,
    *,
    title: str = "Scoring masks",
    observe: Observer | None = None,
) -> Scores:
    """Score the masks in a folder (searched recursively) against every picture of a labelled split.

    reader: knows what the masks' values mean (`iccld.data.MaskReader`).  A mask belongs to the picture of its name; endings such as
    `_leftImg8bit` or `_pred` do not count.  Raises DataError for missing, doubled or unreadable masks, and for sizes unlike the truth's.
    """
    paths = pair_masks(Path(folder), dataset)
    reader.find(paths)
    confusion = Confusion(label_space.num_classes)
    with progress(title, total=len(paths)) as bar:
        for index, path in enumerate(paths):
            sample = dataset[index]
            if sample.label is None:
                raise DataError(f"{dataset.image_paths[index]}: no label to score against; evaluate needs a labelled split")
            prediction = reader.read(path, (sample.label.shape[0], sample.label.shape[1]))
            single = Confusion(label_space.num_classes)
            single.update(sample.label, prediction)
            confusion.merge(single)
            if observe is not None:
                observe(sample.name, single, prediction)
            bar.advance(1)
    return confusion.scores(label_space)


def pair_masks(folder: Path, dataset: LabelledDataset) -> list[Path]:
    """The mask of each picture, in the dataset's order.  A relative path that agrees wins over a file name that agrees."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of predictions")
    if len(dataset) == 0:
        raise DataError("nothing to score: the dataset has 0 images")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in MASK_SUFFIXES and path.is_file())
    by_path: dict[str, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for path in found:
        by_path.setdefault(plain_name(path.relative_to(folder).with_suffix("").as_posix()), []).append(path)
        by_stem.setdefault(plain_name(path.stem), []).append(path)
    pairs, missing = [], []
    for name, image_path in zip(dataset.names, dataset.image_paths, strict=True):
        stem = plain_name(Path(image_path).stem)
        matches = by_path.get(plain_name(name)) or by_stem.get(plain_name(Path(name).name)) or by_stem.get(stem) or []
        if len(matches) > 1:
            raise DataError(f"{folder}: {len(matches)} masks for picture {name}, such as {matches[0]} and {matches[1]}; keep one")
        if matches:
            pairs.append(matches[0])
        else:
            missing.append(name)
    if missing:
        counts = f"expected {len(dataset)} masks, found {len(pairs)} of them among {len(found)} files"
        raise DataError(f"{folder}: {counts}; missing: {_first(missing)}")
    _refuse_shared(pairs, dataset.names)
    return pairs


def plain_name(name: str) -> str:
    """A picture's or mask's name without the field's endings: `a_leftImg8bit` and `a_pred` are both `a`."""
    for ending in NAME_ENDINGS:
        if name.endswith(ending) and len(name) > len(ending):
            return plain_name(name[: -len(ending)])
    return name


def _refuse_shared(pairs: Sequence[Path], names: Sequence[str]) -> None:
    owner: dict[Path, str] = {}
    for path, name in zip(pairs, names, strict=True):
        if path in owner:
            raise DataError(f"{path}: the only mask for both {owner[path]} and {name}; keep their folders in the masks' paths")
        owner[path] = name


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
