"""One confusion matrix over a whole split, and the intersection over union that is read off it (numpy only).

Rows are truth, columns predictions; one column more than rows holds predictions of no class, which count as errors on labelled pixels
as in the official Cityscapes evaluator.  A split has one matrix: the mean of per-image IoUs is another number and is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from iccld.errors import ConfigError, DataError
from iccld.labels import IGNORE, LabelSpace


@dataclass(frozen=True)
class Scores:
    """What a split scored.  Every share is in percent, 0..100.

    miou: mean over the classes that occur in truth or predictions.  iou: class name -> IoU, None where the class occurs in neither.
    pixel_accuracy: share of the labelled pixels predicted right.  num_images: pictures in the matrix.
    """

    miou: float
    iou: dict[str, float | None]
    pixel_accuracy: float
    num_images: int

    def subset(self, names: Sequence[str]) -> Scores:
        """Keep the named classes' IoUs and average those: SYNTHIA's convention (a), where the other classes stay in the truth.

        With the IoUs of the dropped classes at zero, 16 of 19 classes give mIoU19 * 19/16.  Raises ConfigError for a class that is not
        scored, DataError when none of the named classes occurs.
        """
        unknown = [name for name in names if name not in self.iou]
        if unknown:
            raise ConfigError(f"class {unknown[0]!r} was not scored; scored are: {', '.join(self.iou)}")
        iou = {name: self.iou[name] for name in names}
        present = [value for value in iou.values() if value is not None]
        if not present:
            raise DataError(f"none of the {len(names)} classes to average occurs in the ground truth or the predictions")
        return Scores(sum(present) / len(present), iou, self.pixel_accuracy, self.num_images)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: {"miou", "iou", "pixel_accuracy", "num_images"}."""
        return {"miou": self.miou, "iou": dict(self.iou), "pixel_accuracy": self.pixel_accuracy, "num_images": self.num_images}


class Confusion:
    """Accumulates the confusion of pictures; the order and grouping of the updates do not matter.

    matrix: (K, K + 1) int64 pixel counts, [truth, prediction]; column K holds predictions of no class.
    """

    def __init__(self, num_classes: int) -> None:
        if not 1 <= num_classes < IGNORE:
            raise ConfigError(f"a confusion matrix needs 1 to {IGNORE - 1} classes, not {num_classes}")
        self.num_classes = num_classes
        self.matrix: npt.NDArray[np.int64] = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
        self.num_images = 0

    def update(self, truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8]) -> None:
        """Add one picture: (H, W), (H, W) uint8 train ids.  Truth 255 is not scored; a prediction of K or more is an error everywhere else.

        Raises DataError when the shapes differ or the truth holds an id between K and 254.
        """
        if truth.shape != prediction.shape:
            raise DataError(f"ground truth is {_size(truth)} but the prediction is {_size(prediction)}; resize the logits, then argmax")
        if truth.dtype != np.uint8 or prediction.dtype != np.uint8:
            raise DataError(f"confusion takes uint8 train ids, not {truth.dtype} and {prediction.dtype}")
        columns = self.num_classes + 1
        # All 256 truth values get a row, so that one pass both counts and reveals ids outside the table; 254 * 255 + 254 fits 16 bits.
        cell = truth.astype(np.uint16)  # (H, W)
        cell *= np.uint16(columns)
        cell += np.minimum(prediction, self.num_classes)
        counts = np.bincount(cell.ravel(), minlength=256 * columns).reshape(256, columns)  # (256, K + 1)
        strays = np.flatnonzero(counts[self.num_classes : IGNORE].any(axis=1))
        if strays.size:
            stray = self.num_classes + int(strays[0])
            raise DataError(f"ground truth holds id {stray}, but there are {self.num_classes} classes and {IGNORE}; check the ids' mapping")
        self.matrix += counts[: self.num_classes]
        self.num_images += 1

    def merge(self, other: Confusion) -> None:
        """Add another accumulator's pictures to this one, as after scoring parts of a split on several devices."""
        if other.num_classes != self.num_classes:
            raise ConfigError(f"cannot merge confusions of {self.num_classes} and {other.num_classes} classes")
        self.matrix += other.matrix
        self.num_images += other.num_images

    def subset(self, label_space: LabelSpace, names: Sequence[str]) -> Confusion:
        """The confusion among the named classes with the others ignored in the truth: SYNTHIA's convention (b).

        Pixels predicted as a class that was dropped count as predictions of no class.
        """
        self._check(label_space)
        unknown = [name for name in names if name not in label_space.names]
        if unknown:
            raise ConfigError(f"label space {label_space.name} has no class {unknown[0]!r}; it has: {', '.join(label_space.names)}")
        kept = [list(label_space.names).index(name) for name in names]
        result = Confusion(len(kept))
        rows = self.matrix[kept]  # (K', K + 1)
        result.matrix[:, :-1] = rows[:, kept]
        result.matrix[:, -1] = rows.sum(axis=1) - rows[:, kept].sum(axis=1)
        result.num_images = self.num_images
        return result

    def iou(self) -> npt.NDArray[np.float64]:
        """(K,) IoU = TP / (TP + FP + FN) in 0..1; NaN for a class in neither truth nor predictions."""
        return iou_of(self.matrix)

    def scores(self, label_space: LabelSpace) -> Scores:
        """Read the scores off the matrix.  Raises ConfigError for another number of classes, DataError without a labelled pixel."""
        self._check(label_space)
        return scores_of_names(self, label_space.names)

    def _check(self, label_space: LabelSpace) -> None:
        if label_space.num_classes != self.num_classes:
            raise ConfigError(f"{self.num_classes} classes were counted, but {label_space.name} has {label_space.num_classes}")


def iou_of(matrix: npt.NDArray[np.integer[Any] | np.floating[Any]]) -> npt.NDArray[np.float64]:
    """(..., K, K + 1) counts -> (..., K) IoU in 0..1, NaN where a class occurs in neither truth nor predictions."""
    square = matrix[..., :, :-1].astype(np.float64)  # (..., K, K)
    true_positive = np.diagonal(square, axis1=-2, axis2=-1)  # (..., K)
    union = matrix.sum(axis=-1) + square.sum(axis=-2) - true_positive  # truth + predictions - both
    iou: npt.NDArray[np.float64] = np.divide(true_positive, union, out=np.full(union.shape, np.nan), where=union > 0)
    return iou


def scores_of_names(confusion: Confusion, names: Sequence[str]) -> Scores:
    """Scores with the K classes named in order, for confusions of a part of a label space."""
    total = int(confusion.matrix.sum())
    if total == 0:
        raise DataError(f"no labelled pixel in {confusion.num_images} images: the ground truth is all {IGNORE}; check the ids' mapping")
    iou = 100.0 * confusion.iou()
    by_name = {name: None if np.isnan(value) else float(value) for name, value in zip(names, iou, strict=True)}
    accuracy = 100.0 * float(np.trace(confusion.matrix[:, :-1])) / total
    return Scores(float(np.nanmean(iou)), by_name, accuracy, confusion.num_images)


def _size(array: npt.NDArray[Any]) -> str:
    return "x".join(str(side) for side in array.shape)
