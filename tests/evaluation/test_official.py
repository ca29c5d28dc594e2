"""Parity with the benchmark's own evaluator (cityscapesScripts 2.3.0, evalPixelLevelSemanticLabeling) on generated pairs of label files.

The package is no dependency: it asks for a backport of `typing` and for half a dozen packages of its visualisations.  Its formula is
stated again below, pixel by pixel; where it can be imported (`pip install --no-deps cityscapesScripts pyquaternion`), it is asked too.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.data import MaskReader, open_dataset
from iccld.evaluation import Scores, evaluate_predictions
from iccld.labels import CITYSCAPES19, CITYSCAPES_IDS, CITYSCAPES_KNOWN

NAMES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light", 20: "traffic sign",
    21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
    32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""The labels that helpers/labels.py does not ignore in evaluation, by id."""
TOLERANCE = 1e-9


def official_iou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float | None]:
    """IoU in percent as the benchmark defines it: TP / (TP + FP + FN), counted over all pictures; pixels of ignored truth do not count."""
    counted: Counter[tuple[int, int]] = Counter()
    for truth, prediction in pairs:
        counted.update(zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    iou: dict[str, float | None] = {}
    for label, name in NAMES.items():
        hit = counted[label, label]
        missed = sum(count for (truth, predicted), count in counted.items() if truth == label and predicted != label)
        false = sum(count for (truth, predicted), count in counted.items() if truth != label and truth in NAMES and predicted == label)
        iou[name] = 100.0 * hit / (hit + missed + false) if hit + missed + false else None
    return iou


def write_pairs(root: Path, seed: int, ids: list[int], num: int = 3) -> tuple[list[Path], list[Path], list[tuple[np.ndarray, np.ndarray]]]:
    """A Cityscapes split with labelIds, and a folder of predicted ids: mostly right, wrong in blocks, sometimes of a void id."""
    rng = np.random.default_rng(seed)
    truths, predictions, pairs = [], [], []
    for number in range(num):
        size = (int(rng.integers(20, 40)), int(rng.integers(20, 60)))
        truth = rng.choice(ids, size=size).astype(np.uint8)
        prediction = np.where(rng.random(size) < 0.6, truth, rng.integers(0, 34, size)).astype(np.uint8)
        prediction[:5, :7] = rng.integers(0, 7)
        name = f"aachen_{number:06d}_000019"
        for folder, ending, values in (
            ("leftImg8bit", "leftImg8bit", np.zeros((*size, 3), np.uint8)),
            ("gtFine", "gtFine_labelIds", truth),
        ):
            path = root / folder / "val" / "aachen" / f"{name}_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
        truths.append(path)
        predictions.append(root / "predicted" / f"{name}_pred_labelIds.png")
        predictions[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(prediction).save(predictions[-1])
        pairs.append((truth, prediction))
    return truths, predictions, pairs


def ours(root: Path) -> Scores:
    return evaluate_predictions(root / "predicted", open_dataset(root, "cityscapes", "val"), CITYSCAPES19, MaskReader(CITYSCAPES19, "raw"))


def assert_equal(scores: Scores, iou: dict[str, float | None]) -> None:
    assert scores.iou.keys() == iou.keys()
    for name, value in iou.items():
        assert scores.iou[name] == (None if value is None else pytest.approx(value, rel=0, abs=TOLERANCE)), name
    present = [value for value in iou.values() if value is not None]
    assert scores.miou == pytest.approx(sum(present) / len(present), rel=0, abs=TOLERANCE)


LABELS = [list(range(34)), [0, 3, 7, 8, 11, 21, 26], [4, 23], list(NAMES)]


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_the_official_formula(tmp_path: Path, seed: int) -> None:
    _, _, pairs = write_pairs(tmp_path, seed, LABELS[seed])
    assert_equal(ours(tmp_path), official_iou(pairs))


def test_a_prediction_of_void_on_valid_truth_is_an_error_and_on_void_truth_nothing(tmp_path: Path) -> None:
    """Two of six road pixels are called `ego vehicle` and `trailer`: IoU 4/6, and nobody else's false positive."""
    _, predictions, _ = write_pairs(tmp_path, 0, [7], num=1)
    truth = np.array([[7, 7, 7, 7, 7, 7, 0, 10, 0, 0]], np.uint8)
    Image.fromarray(truth).save(tmp_path / "gtFine/val/aachen/aachen_000000_000019_gtFine_labelIds.png")
    Image.fromarray(np.zeros((1, 10, 3), np.uint8)).save(tmp_path / "leftImg8bit/val/aachen/aachen_000000_000019_leftImg8bit.png")
    prediction = np.array([[7, 7, 7, 7, 1, 30, 7, 26, 26, 0]], np.uint8)
    Image.fromarray(prediction).save(predictions[0])
    scores = ours(tmp_path)
    assert scores.iou["road"] == pytest.approx(100 * 4 / 6)
    assert scores.iou["car"] is None
    assert_equal(scores, official_iou([(truth, prediction)]))


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_the_official_evaluator(tmp_path: Path, seed: int) -> None:
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    truths, predictions, _ = write_pairs(tmp_path, seed, LABELS[seed])
    official.args.evalInstLevelScore, official.args.JSONOutput, official.args.quiet = False, False, True
    with contextlib.redirect_stdout(io.StringIO()):
        told = official.evaluateImgLists([str(path) for path in predictions], [str(path) for path in truths], official.args)
    iou = {name: None if np.isnan(told["classScores"][name]) else 100 * told["classScores"][name] for name in NAMES.values()}
    scores = ours(tmp_path)
    assert_equal(scores, iou)
    assert scores.miou == pytest.approx(100 * told["averageScoreClasses"], rel=0, abs=TOLERANCE)


def test_ids_are_those_of_the_official_table() -> None:
    official = pytest.importorskip("cityscapesscripts.helpers.labels")
    named = [label for label in official.labels if label.id >= 0]
    assert {label.id: label.trainId for label in named if not label.ignoreInEval} == CITYSCAPES_IDS
    assert {label.id: label.name for label in named if not label.ignoreInEval} == NAMES
    assert {label.id for label in official.labels} | {34} == CITYSCAPES_KNOWN  # GTA5 has one more
    colors = {label.name: label.color for label in named}
    assert [each.color for each in CITYSCAPES19.classes] == [colors[name] for name in CITYSCAPES19.names]
