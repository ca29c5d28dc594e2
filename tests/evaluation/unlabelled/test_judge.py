"""The whole judgement on made-up pixels whose truth is known."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as functional

from iccld.evaluation.unlabelled import Seen, answer, joined, judge, judged_voice, preferred
from iccld.evaluation.unlabelled.judge import Figure
from iccld.evaluation.unlabelled.seen import at_points, labelled_only, points_in

NUM_CLASSES = 4


def world(seed: int, skill: dict[str, float], pictures: int = 20, pixels: int = 500) -> Seen:
    """Voices that hear the truth through noise; the larger its skill, the clearer a voice hears."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(NUM_CLASSES, (pictures * pixels,), generator=generator)
    signal = functional.one_hot(truth, NUM_CLASSES)
    voices = {}
    for name, skilled in skill.items():
        noise = torch.randn(len(truth), NUM_CLASSES, generator=generator)
        voices[name] = (skilled * (skilled * signal + noise)).log_softmax(1)  # calibrated: the likelihood of unit noise
    return Seen(voices, torch.arange(pictures).repeat_interleave(pixels), truth)


def unlabelled(seen: Seen) -> Seen:
    return Seen(seen.voices, seen.picture)


@pytest.mark.parametrize(("before", "after"), [(1.0, 2.0), (2.0, 1.0)])
def test_estimate_equals_truth_where_the_voices_speak_alike(before: float, after: float) -> None:
    skill = {"source": before, "step1": after, "model": after}
    labelled, target = world(0, skill), world(1, skill)
    told = judge(labelled, unlabelled(target), ["source", "step1"], [0.25] * NUM_CLASSES)
    for stage in ("source", "step1"):
        accuracy, miou = told.figures(stage)
        true = 100 * float(target.right(stage).double().mean())
        assert accuracy.value == pytest.approx(true, abs=1.5)
        assert accuracy.low < true < accuracy.high
        assert miou.low < miou.value < miou.high
    gain = told.gain("source", "step1")[1]
    assert (gain.value > 5) is (after > before)
    assert answer(gain) == ("yes" if after > before else "no")


def test_judgement_reads_no_truth_of_the_target() -> None:
    skill = {"source": 1.0, "step1": 2.0}
    labelled, target = world(2, skill), world(3, skill)
    lie = Seen(target.voices, target.picture, torch.zeros_like(target.picture))
    shares = [0.25] * NUM_CLASSES
    assert judge(labelled, lie, ["source", "step1"], shares).told("abcd") == judge(labelled, target, ["source", "step1"], shares).told(
        "abcd"
    )


def test_told_is_json_and_names_classes() -> None:
    skill = {"source": 1.0, "step1": 2.0, "flip": 2.0}
    told = judge(world(4, skill), unlabelled(world(5, skill)), ["source", "step1"], [0.1, 0.2, 0.3, 0.4]).told(["a", "b", "c", "d"])
    assert json.loads(json.dumps(told)) == told
    assert told["class_shares"]["source"] == {"a": 10.0, "b": 20.0, "c": 30.0, "d": 40.0}
    assert set(told["agreement"]["target"]) == {"source", "flip"}
    assert set(told["stages"]["step1"]["iou"]) == {"a", "b", "c", "d"}
    assert told["gain"]["from"] == "source"


@pytest.mark.parametrize(
    ("figure", "expected"),
    [((3, 1, 5), "yes"), ((-3, -5, -1), "no"), ((1, -1, 3), "unknown"), ((-1, -3, 1), "unknown")],
)
def test_answer_depends_on_the_side_of_zero(figure: tuple[float, float, float], expected: str) -> None:
    assert answer(Figure(*figure)) == expected


def test_points_are_those_of_the_resized_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 5, 7, generator=generator)
    points = points_in(20, 30, 50, generator)
    whole = functional.interpolate(logits, size=(20, 30), mode="bilinear", align_corners=False)[0].log_softmax(0)
    expected = whole[:, points[:, 0], points[:, 1]].T
    assert torch.allclose(at_points(logits, points, (20, 30)), expected, atol=1e-5)


def test_joined_numbers_pictures_on_and_ignored_pixels_go() -> None:
    one = Seen({"a": torch.zeros(3, 2)}, torch.tensor([0, 0, 1]), torch.tensor([0, 255, 1]))
    both = joined([labelled_only(one), one])
    assert both.picture.tolist() == [0, 1, 2, 2, 3]
    assert both.num_pictures == 4
    with pytest.raises(ValueError, match="no pixels"):
        joined([])
    with pytest.raises(ValueError, match="others have none"):
        joined([one, Seen(one.voices, one.picture)])


def test_a_voice_that_has_become_sure_of_itself_is_not_believed_at_its_word() -> None:
    """On the target, self-training has doubled a voice's confidence and brought nothing: its gain is estimated well below its boast."""
    skill = {"source": 1.5, "step1": 1.5}
    labelled, target = world(6, skill), world(7, skill)
    surer = Seen({**target.voices, "step1": (3 * target.voices["step1"]).log_softmax(1)}, target.picture)
    true = 100 * float(target.right("step1").double().mean())
    estimate = judged_voice(labelled, surer, "step1", "source").scores()[0]
    by_itself = judged_voice(labelled, surer, "step1", "step1").scores()[0]
    assert true - 2 < estimate < by_itself - 2


@pytest.mark.parametrize(
    ("estimates", "expected"), [({100: 20.0, 200: 22.0}, 200), ({100: 22.0, 200: 21.7}, 200), ({100: 22.0, 200: 21.0}, 100)]
)
def test_the_last_of_equal_checkpoints_is_preferred(estimates: dict[int, float], expected: int) -> None:
    assert preferred(estimates) == expected
