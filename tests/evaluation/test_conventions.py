"""19, 16 and 13 classes from one matrix, under SYNTHIA's two conventions."""

import numpy as np
import pytest

from iccld.errors import ConfigError
from iccld.evaluation import Confusion, all_means, convention_of, own_means, synthia_scores
from iccld.labels import CAMVID11, CITYSCAPES13, CITYSCAPES16, CITYSCAPES19

DROPPED = [CITYSCAPES19.names.index(name) for name in ("terrain", "truck", "train")]


def random_confusion(num_classes: int, zeroed: list[int], seed: int = 0) -> Confusion:
    """A confusion whose `zeroed` classes are never predicted, as SYNTHIA's three."""
    confusion = Confusion(num_classes)
    confusion.matrix += np.random.default_rng(seed).integers(1, 1000, size=confusion.matrix.shape)
    confusion.matrix[:, zeroed] = 0
    confusion.matrix[:, -1] = 0
    return confusion


def test_synthia_convention_a_is_miou19_times_19_over_16():
    confusion = random_confusion(19, DROPPED)
    scores19 = confusion.scores(CITYSCAPES19)
    scores = synthia_scores(confusion, CITYSCAPES19, "a")
    assert scores["16"].miou == pytest.approx(scores19.miou * 19 / 16)
    assert tuple(scores["16"].iou) == CITYSCAPES16.names
    assert len(scores["13"].iou) == 13
    assert "pole" not in scores["13"].iou


def test_synthia_convention_b_ignores_the_three_classes_in_the_truth():
    confusion = random_confusion(19, DROPPED)
    kept = [c for c in range(19) if c not in DROPPED]
    direct = Confusion(16)
    direct.matrix[:, :16] = confusion.matrix[np.ix_(kept, kept)]
    expected = direct.scores(CITYSCAPES16)
    scores = synthia_scores(confusion, CITYSCAPES19, "b")
    assert scores["16"].iou == pytest.approx(expected.iou)
    assert scores["16"].miou > synthia_scores(confusion, CITYSCAPES19, "a")["16"].miou
    assert scores["13"].miou == pytest.approx(np.mean([v for n, v in expected.iou.items() if n not in ("wall", "fence", "pole")]))
    assert synthia_scores(direct, CITYSCAPES16, "b")["16"].miou == pytest.approx(expected.miou)


def test_synthia_convention_a_needs_the_19_way_head():
    assert convention_of(CITYSCAPES19) == "a"
    assert (convention_of(CITYSCAPES16), convention_of(CITYSCAPES13), convention_of(CAMVID11)) == ("b", "b", None)
    with pytest.raises(ConfigError, match="convention \\(a\\) scores a 19-way head"):
        synthia_scores(random_confusion(16, []), CITYSCAPES16, "a")
    with pytest.raises(ConfigError, match="are not all in label space camvid11"):
        synthia_scores(random_confusion(11, []), CAMVID11, "b")
    with pytest.raises(ConfigError, match="is a or b"):
        synthia_scores(random_confusion(19, []), CITYSCAPES19, "c")


@pytest.mark.parametrize("zeroed", [DROPPED, []])
def test_means_of_a_19_way_head_side_by_side(zeroed):
    confusion = random_confusion(19, zeroed)
    scores = confusion.scores(CITYSCAPES19)
    means = all_means(confusion, CITYSCAPES19)
    assert means["a"]["19"] == pytest.approx(scores.miou)
    for convention in ("a", "b"):
        expected = synthia_scores(confusion, CITYSCAPES19, convention)
        assert {count: means[convention][count] for count in ("16", "13")} == {c: pytest.approx(s.miou) for c, s in expected.items()}
    assert "19" not in means["b"]
    assert own_means(scores.iou, CITYSCAPES19) == {"a": means["a"]}


def test_means_of_a_16_way_head_are_convention_b():
    confusion = random_confusion(16, [])
    means = all_means(confusion, CITYSCAPES16)
    assert means == {"b": {"16": pytest.approx(confusion.scores(CITYSCAPES16).miou), "13": means["b"]["13"]}}
    assert means["b"]["13"] == pytest.approx(synthia_scores(confusion, CITYSCAPES16, "b")["13"].miou)
    assert all_means(random_confusion(13, []), CITYSCAPES13).keys() == {"b"}
    assert all_means(random_confusion(11, []), CAMVID11) == {}


def test_means_of_classes_that_do_not_occur():
    """Where the truth holds nothing but terrain, (b) has nothing to average; where one class is absent, the others are averaged."""
    confusion = Confusion(19)
    confusion.matrix[9, 9] = 5
    means = all_means(confusion, CITYSCAPES19)
    assert means == {"a": {"19": 100.0, "16": None, "13": None}, "b": {"16": None, "13": None}}
    confusion.matrix[0, 0], confusion.matrix[0, 1] = 3, 1
    assert all_means(confusion, CITYSCAPES19)["a"] == {"19": pytest.approx(175 / 3), "16": pytest.approx(37.5), "13": pytest.approx(37.5)}
