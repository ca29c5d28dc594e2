"""Confusion and IoU against brute force, and the conventions of PROTOCOL."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iccld.errors import ConfigError, DataError
from iccld.evaluation import Confusion, Scores
from iccld.labels import LabelClass, LabelSpace

SPACE = LabelSpace("four", tuple(LabelClass(name, (i, i, i)) for i, name in enumerate(["a", "b", "c", "d"])))


def brute_force(truths, predictions, num_classes):
    """IoU per class from sets of pixels, None when absent; the slow, obvious way."""
    truth = np.concatenate([t.ravel() for t in truths])
    prediction = np.concatenate([p.ravel() for p in predictions])
    valid = [i for i in range(truth.size) if truth[i] != 255]
    iou = []
    for c in range(num_classes):
        is_truth = {i for i in valid if truth[i] == c}
        is_predicted = {i for i in valid if prediction[i] == c}
        union = is_truth | is_predicted
        iou.append(100.0 * len(is_truth & is_predicted) / len(union) if union else None)
    return iou


@st.composite
def splits(draw):
    count = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    shapes = [(int(generator.integers(1, 6)), int(generator.integers(1, 6))) for _ in range(count)]
    truths = [generator.choice([0, 1, 2, 3, 255], size=shape).astype(np.uint8) for shape in shapes]
    predictions = [generator.choice([0, 1, 2, 3, 4, 7, 254, 255], size=shape).astype(np.uint8) for shape in shapes]
    truths[0][0, 0] = 0
    return truths, predictions, draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))


@settings(max_examples=60, deadline=None)
@given(splits())
def test_miou_equals_brute_force_under_any_batch_split(split):
    truths, predictions, owners = split
    parts = [Confusion(4) for _ in range(3)]
    for truth, prediction, owner in zip(truths, predictions, owners, strict=True):
        parts[owner].update(truth, prediction)
    whole = Confusion(4)
    for part in parts:
        whole.merge(part)
    scores = whole.scores(SPACE)
    expected = brute_force(truths, predictions, 4)
    assert list(scores.iou.values()) == pytest.approx(expected)
    assert scores.miou == pytest.approx(np.mean([value for value in expected if value is not None]))
    assert scores.num_images == len(truths)
    truth, prediction = np.concatenate([t.ravel() for t in truths]), np.concatenate([p.ravel() for p in predictions])
    assert scores.pixel_accuracy == pytest.approx(100.0 * np.mean((truth == prediction)[truth != 255]))


def test_confusion_counts_void_predictions_as_errors_on_valid_truth_only():
    confusion = Confusion(4)
    confusion.update(np.array([[0, 0, 0, 255]], np.uint8), np.array([[0, 255, 4, 255]], np.uint8))
    assert confusion.matrix[0].tolist() == [1, 0, 0, 0, 2]
    assert confusion.matrix.sum() == 3
    scores = confusion.scores(SPACE)
    assert scores.iou == {"a": pytest.approx(100 / 3), "b": None, "c": None, "d": None}
    assert scores.miou == pytest.approx(100 / 3)


def test_scores_average_over_classes_in_truth_or_predictions():
    confusion = Confusion(4)
    confusion.update(np.array([[0, 0]], np.uint8), np.array([[0, 2]], np.uint8))
    scores = confusion.scores(SPACE)
    assert scores.iou == {"a": 50.0, "b": None, "c": 0.0, "d": None}
    assert scores.miou == 25.0


@pytest.mark.parametrize("stray", [4, 100, 254])
def test_confusion_refuses_truth_ids_outside_the_table(stray):
    with pytest.raises(DataError, match=f"id {stray}"):
        Confusion(4).update(np.array([[0, stray]], np.uint8), np.zeros((1, 2), np.uint8))


def test_confusion_refuses_other_shapes_types_and_class_counts():
    with pytest.raises(DataError, match="2x3"):
        Confusion(4).update(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))
    with pytest.raises(DataError, match="uint8"):
        Confusion(4).update(np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.int64))
    with pytest.raises(ConfigError):
        Confusion(4).merge(Confusion(5))
    with pytest.raises(ConfigError):
        Confusion(5).scores(SPACE)
    with pytest.raises(ConfigError):
        Confusion(0)
    with pytest.raises(DataError, match="no labelled pixel"):
        Confusion(4).scores(SPACE)


def test_confusion_of_254_classes_fits_its_cells():
    confusion = Confusion(254)
    confusion.update(np.array([[253, 253, 255]], np.uint8), np.array([[253, 254, 255]], np.uint8))
    assert confusion.matrix[253, 253] == 1
    assert confusion.matrix[253, 254] == 1
    assert confusion.matrix.sum() == 2


def test_subset_counts_predictions_of_dropped_classes_as_void():
    confusion = Confusion(4)
    confusion.matrix[:] = np.arange(20).reshape(4, 5)
    part = confusion.subset(SPACE, ["a", "c"])
    assert part.matrix.tolist() == [[0, 2, 1 + 3 + 4], [10, 12, 11 + 13 + 14]]
    with pytest.raises(ConfigError, match="'x'"):
        confusion.subset(SPACE, ["x"])


def test_scores_subset_names_unknown_and_absent_classes():
    scores = Scores(50.0, {"a": 50.0, "b": None}, 60.0, 1)
    assert scores.subset(["a", "b"]).miou == 50.0
    assert scores.as_dict() == {"miou": 50.0, "iou": {"a": 50.0, "b": None}, "pixel_accuracy": 60.0, "num_images": 1}
    with pytest.raises(ConfigError, match="'z'"):
        scores.subset(["z"])
    with pytest.raises(DataError, match="none of"):
        scores.subset(["b"])
