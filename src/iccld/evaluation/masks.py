"""Score anybody's masks: a folder of index PNGs, paired with a labelled split by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from iccld.errors import ConfigError, DataError
from iccld.evaluation.confusion import Confusion, Scores
from iccld.evaluation.evaluate import LabelledDataset, Observer
from iccld.labels import CITYSCAPES19, CITYSCAPES_IDS, CITYSCAPES_KNOWN, LabelSpace, RawIdTable, raw_id_table
from iccld.progress import progress

MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp"})
"""Lossless formats; a JPEG of ids is no mask."""
NAME_ENDINGS = (
    *("_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelTrainIds", "_labelIds", "_trainIds", "_train_ids"),
    *("_leftImg8bit", "_prediction", "_pred", "_mask"),
)
"""Endings that the field appends to a picture's name, taken off before names are compared."""


def evaluate_predictions(
    folder: Path | str,
    dataset: LabelledDataset,
    label_space: LabelSpace,
    *,
    ids: Literal["train", "raw"] = "train",
    raw_table: RawIdTable | None = None,
    title: str = "Scoring masks",
    observe: Observer | None = None,
) -> Scores:
    """Score the masks in a folder (searched recursively) against every picture of a labelled split.

    ids: "train" for 0..K-1, where any other value is an error of the prediction; "raw" for ids that raw_table turns into train ids
    (default: Cityscapes' labelIds, absorbed into the label space).  A mask belongs to the picture of its name; endings such as
    `_leftImg8bit` or `_pred` do not count.  Raises DataError for missing, ambiguous or unreadable masks, and for sizes unlike the truth's.
    """
    if ids not in ("train", "raw"):
        raise ConfigError(f"ids of masks are train or raw, not {ids!r}")
    table = None
    if ids == "raw":
        table = raw_table or raw_id_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN).then(label_space.absorption(CITYSCAPES19.names)[0])
    paths = pair_masks(Path(folder), dataset)
    confusion = Confusion(label_space.num_classes)
    with progress(title, total=len(paths)) as bar:
        for index, path in enumerate(paths):
            sample = dataset[index]
            if sample.label is None:
                raise DataError(f"{dataset.image_paths[index]}: no label to score against; evaluate needs a labelled split")
            prediction = read_prediction(path, (sample.label.shape[0], sample.label.shape[1]), table)
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


def read_prediction(path: Path, size: tuple[int, int], table: RawIdTable | None) -> npt.NDArray[np.uint8]:
    """A mask file -> (H, W) uint8 train ids, 255 for ids of no class; palette files give their indices.

    Without a table the file holds train ids.  DataError for another size, for colours, and for what is no picture.
    """
    try:
        with Image.open(path) as image:
            # The size is in the header: a wrong or enormous file is refused before it is decoded.
            if (image.height, image.width) != size:
                sizes = f"mask is {image.height}x{image.width}, its ground truth {size[0]}x{size[1]}"
                raise DataError(f"{path}: {sizes}; write masks at the ground truth's size")
            if image.mode not in ("L", "P", "I", "I;16", "I;16B"):
                raise DataError(f"{path}: mode {image.mode} is a picture, not ids; write 8- or 16-bit grey or palette PNG")
            values = np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a mask: {' '.join(str(error).split())}") from error
    if table is not None:
        return table.apply(values, path)
    if values.dtype == np.uint8:
        return values
    return np.where((values >= 0) & (values < 255), values, 255).astype(np.uint8)


def _refuse_shared(pairs: Sequence[Path], names: Sequence[str]) -> None:
    owner: dict[Path, str] = {}
    for path, name in zip(pairs, names, strict=True):
        if path in owner:
            raise DataError(f"{path}: the only mask for both {owner[path]} and {name}; keep their folders in the masks' paths")
        owner[path] = name


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
