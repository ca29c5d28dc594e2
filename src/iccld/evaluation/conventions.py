"""The 19, 16 and 13 classes of Cityscapes that the field averages over, and the two ways to get from one to the other.

SYNTHIA labels no terrain, truck and train.  (a) a 19-way head scored on all 19 classes, of whose IoUs 16 are averaged (DAFormer, HRDA,
MIC); where the three are at zero, that is mIoU19 * 19/16.  (b) the three ignored in the ground truth, as a 16-way head is scored (CBST,
ProDA).  (b) drops the pixels on which a 16-way head must err, and is the higher one.  The 13 leave out wall, fence and pole besides,
without retraining and without ignoring them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from iccld.errors import ConfigError
from iccld.evaluation.confusion import Confusion, Scores, scores_of_names
from iccld.labels import CITYSCAPES13, CITYSCAPES16, CITYSCAPES19, LabelSpace

Convention = Literal["a", "b"]
Means = dict[str, dict[str, float | None]]
"""Convention -> number of classes ("19", "16", "13") -> mIoU in percent, None where none of the classes occurs."""


def convention_of(label_space: LabelSpace) -> Convention | None:
    """The convention under which a head with these classes is scored by itself; None for classes other than Cityscapes'."""
    if set(label_space.names) == set(CITYSCAPES19.names):
        return "a"
    return "b" if set(label_space.names) in (set(CITYSCAPES16.names), set(CITYSCAPES13.names)) else None


def own_means(iou: Mapping[str, float | None], label_space: LabelSpace) -> Means:
    """The means under a head's own convention, of its classes' IoU: {"a": {"19", "16", "13"}}, or {"b": {"16", "13"}}.

    {} for classes other than Cityscapes'.
    """
    convention = convention_of(label_space)
    return {} if convention is None else {convention: _means(iou)}


def all_means(confusion: Confusion, label_space: LabelSpace) -> Means:
    """The means under every convention that a head allows: (a) and (b) for 19 classes, (b) for 16 and 13, {} for others."""
    means = own_means(confusion.scores(label_space).iou, label_space)
    if "a" in means:
        kept = 100.0 * confusion.subset(label_space, CITYSCAPES16.names).iou()  # (16,)
        means["b"] = _means({name: None if np.isnan(iou) else float(iou) for name, iou in zip(CITYSCAPES16.names, kept, strict=True)})
    return means


def synthia_scores(confusion: Confusion, label_space: LabelSpace, convention: Convention = "a") -> dict[str, Scores]:
    """The 16- and 13-class scores of a model adapted from SYNTHIA: {"16": Scores, "13": Scores}; they differ between conventions.

    Raises ConfigError for other classes than Cityscapes' 19 or 16, and for (a) of a 16-way head, which never saw the other three.
    """
    if convention not in ("a", "b"):
        raise ConfigError(f"SYNTHIA's convention is a or b, not {convention!r}")
    if not set(CITYSCAPES16.names) <= set(label_space.names):
        raise ConfigError(f"SYNTHIA's 16 and 13 classes are not all in label space {label_space.name}; use cityscapes19 or cityscapes16")
    if convention == "a" and convention_of(label_space) != "a":
        raise ConfigError(f"convention (a) scores a 19-way head, and {label_space.name} has {label_space.num_classes} classes; use (b)")
    if convention == "a":
        scores = confusion.scores(label_space)
    else:
        scores = scores_of_names(confusion.subset(label_space, CITYSCAPES16.names), CITYSCAPES16.names)
    return {"16": scores.subset(CITYSCAPES16.names), "13": scores.subset(CITYSCAPES13.names)}


def _means(iou: Mapping[str, float | None]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for space in (CITYSCAPES19, CITYSCAPES16, CITYSCAPES13):
        if set(space.names) <= set(iou):
            present = [value for name in space.names if (value := iou[name]) is not None]
            means[str(space.num_classes)] = sum(present) / len(present) if present else None
    return means
