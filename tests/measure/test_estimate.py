"""The estimate counts what a run will score, at the speed of one picture of each stage's predictor."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from iccld import measure
from iccld.config import load_config
from iccld.diffusion import DdimSampler
from iccld.models.segmenter import DiffusionSegmenter
from iccld.predictor import Predictor

from ..workshop import Workshop

room = sys.modules["iccld.measure.estimate"]  # `iccld.measure.estimate` itself is the function


def config(workshop: Workshop, *changes: str) -> Any:
    file = workshop.root / "estimated.yaml"
    workshop.write(file)
    return load_config(str(file), ["--runtime.evaluate_every", "2", *changes])


@pytest.fixture
def a_second_a_picture(monkeypatch: pytest.MonkeyPatch) -> list[Predictor]:
    """Every prediction takes a second, and no step takes any time; returns the predictors that were timed."""
    timed: list[Predictor] = []
    monkeypatch.setattr(room, "_mean_step_seconds", lambda *_: 0.0)
    monkeypatch.setattr(room, "seconds_per_picture", lambda predictor, size: timed.append(predictor) or 1.0)
    return timed


def test_every_scored_picture_is_counted(workshop: Workshop, a_second_a_picture: list[Predictor]) -> None:
    told = measure.estimate(config(workshop, "--settings.noise", "everywhere", "--settings.denoise_at_inference", "true"))
    # Two val pictures: once on the way, at the end with either weights; two held-out ones: once on the way, once at the end.
    stage = 2 * (1 + 2) + 2 * (1 + 1)
    # Step 2 also: 16 pictures for the gap, 64 of each domain for their distance, two val pictures with 1 and with 2 DDIM steps.
    assert told["scoring_seconds"] == 3 * stage + (16 + 2 * 64) + 2 * 2
    assert told["seconds"] == pytest.approx(told["scoring_seconds"] * 1.05)
    networks = [predictor.network for predictor in a_second_a_picture]
    samplers = [network.sampler for network in networks if isinstance(network, DiffusionSegmenter)]
    assert {sampler.num_steps for sampler in samplers if isinstance(sampler, DdimSampler)} == {1, 2}


def test_a_step_2_that_predicts_without_its_denoiser_is_scored_like_any_stage(
    workshop: Workshop, a_second_a_picture: list[Predictor]
) -> None:
    assert measure.estimate(config(workshop))["scoring_seconds"] == 3 * (2 * (1 + 2) + 2 * (1 + 1))


def test_what_has_no_labels_is_not_scored(workshop: Workshop, a_second_a_picture: list[Predictor]) -> None:
    told = measure.estimate(config(workshop, "--val.path", "null", "--source.holdout", "0", "--stages.step2.iterations", "0"))
    assert told["scoring_seconds"] == 0


def test_the_predictor_is_timed_as_it_is_scored(workshop: Workshop, a_second_a_picture: list[Predictor]) -> None:
    measure.estimate(config(workshop, "--evaluation.window", "32x64", "--evaluation.stride", "16"))
    assert {(predictor.window, predictor.stride) for predictor in a_second_a_picture} == {((32, 64), 16)}


def test_steps_and_scores_take_time(workshop: Workshop) -> None:
    told = measure.estimate(config(workshop))
    assert 0 < told["scoring_seconds"] < told["seconds"]
    assert told["memory_gib"] > 0
    assert told["disk_gib"] > 0
