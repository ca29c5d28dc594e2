"""A run is read as it was scored: precision, window and stride; anything else is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from iccld.cli import main
from iccld.machine import BF16_SWITCH
from iccld.runs import load_predictor, scores

Labels = dict[str, npt.NDArray[np.uint8]]
STAGES = ("source", "step1", "step2")


class Scored(NamedTuple):
    """A finished run, and the labels (H, W) that its own scoring gave to each validation picture, by stage."""

    run: Path
    labels: dict[str, Labels]
    precision: str

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.run / "summary.json").read_text()))


@pytest.fixture(scope="module", params=["off", "on"], ids=["no_bf16", "bf16"])
def scored(request: pytest.FixtureRequest, workshop: Any) -> Scored:
    """A run in windows whose precision is the machine's own choice, on a CPU without bf16 and on one with it."""
    kept: dict[str, Labels] = {}
    plain = scores.evaluate

    def watched(predict: Any, dataset: Any, space: Any, *, title: str, observe: Any = None, **options: Any) -> Any:
        stage = title.removeprefix("Scoring ").split()[0]
        is_headline = title.endswith("(ema, val)")

        def keep(name: str, single: Any, prediction: npt.NDArray[np.uint8]) -> None:
            if is_headline:
                kept.setdefault(stage, {})[name] = prediction
            if observe is not None:
                observe(name, single, prediction)

        return plain(predict, dataset, space, title=title, observe=keep, **options)

    name = f"scored-{request.param}"
    changes = {
        "evaluation": {"compare_steps": [1], "num_pictures": 0, "window": "32x64", "stride": 16},
        "runtime": {**workshop.settings["runtime"], "precision": "auto"},
        "stages": {stage: {"iterations": 2} for stage in STAGES},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BF16_SWITCH, request.param)
        patch.setattr(scores, "evaluate", watched)
        assert workshop.adapt(name, changes, "--no_estimate") == 0
    return Scored(workshop.runs / name, kept, "bf16" if request.param == "on" else "fp32")


@pytest.fixture
def score(scored: Scored, workshop: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`iccld evaluate` with these flags -> what it writes."""

    def call(*flags: str, run: Path = scored.run) -> dict[str, Any]:
        out = tmp_path / "scores.json"
        assert main(["evaluate", str(run), "--data", str(workshop.data.val), "--split", "val", "--json", str(out), *flags]) == 0
        return dict(json.loads(out.read_text()))

    return call


@pytest.mark.parametrize("stage", STAGES)
def test_fault_56_evaluate_repeats_the_runs_own_score_to_the_last_digit(scored: Scored, score: Any, stage: str, has_bf16: bool) -> None:
    """Also on the other kind of machine than the one that scored it: has_bf16 is the reader's."""
    told = score("--stage", stage)
    assert (told["miou"], told["iou"]) == (scored.summary["stages"][stage]["miou"], scored.summary["stages"][stage]["iou"])
    protocol = told["protocol"]
    assert (protocol["precision"], protocol["window"]) == (scored.precision, "32x64 stride 16")


@pytest.mark.parametrize("stage", STAGES)
def test_fault_56_predict_writes_the_labels_that_were_scored(
    scored: Scored, workshop: Any, tmp_path: Path, stage: str, has_bf16: bool
) -> None:
    pictures = sorted(workshop.data.val.rglob("*_leftImg8bit.png"))
    out = tmp_path / "out"
    assert main(["predict", str(scored.run), *map(str, pictures), "--out", str(out), "--stage", stage]) == 0
    written = {path.stem: np.asarray(Image.open(path)) for path in (out / "train_ids").rglob("*.png")}
    expected = scored.labels[stage]
    assert len(written) == len(expected) == 2
    for name, labels in expected.items():
        (found,) = (image for stem, image in written.items() if stem.startswith(Path(name).name))
        assert np.array_equal(found, labels), name


def test_fault_56_a_notebook_predicts_what_the_command_line_predicts(scored: Scored, has_bf16: bool) -> None:
    predictor = load_predictor(scored.run, "step1", device="cpu")
    assert (predictor.precision, predictor.window, predictor.stride) == (scored.precision, (32, 64), 16)


def test_another_precision_window_or_stride_is_a_flag(scored: Scored, score: Any, has_bf16: bool) -> None:
    own = score("--stage", "step1")
    other = "fp32" if scored.precision == "bf16" else "bf16"
    flags = (("--precision", other), ("--window", "whole"), ("--window", "64x96"), ("--stride", "32"))
    told = [score("--stage", "step1", *each) for each in flags]
    assert [each["protocol"]["precision"] for each in told] == [other, *[scored.precision] * 3]
    assert [each["protocol"]["window"] for each in told] == ["32x64 stride 16", "whole", "64x96 stride half", "32x64 stride 32"]
    precise, whole, covered, coarse = (each["iou"] for each in told)
    assert whole == covered
    assert len({json.dumps(each) for each in (own["iou"], precise, whole, coarse)}) == 4
    automatic = score("--stage", "step1", "--precision", "auto")
    assert automatic["protocol"]["precision"] == ("bf16" if has_bf16 else "fp32")


def test_reading_in_a_precision_that_this_machine_emulates_is_told(
    scored: Scored, score: Any, has_bf16: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    score("--stage", "step1")
    assert ("emulates it" in capsys.readouterr().err) == (scored.precision == "bf16" and not has_bf16)
    score("--stage", "step1", "--precision", "fp32")
    assert "emulates it" not in capsys.readouterr().err


def test_a_run_of_an_earlier_release_is_read_by_its_environment_and_configuration(
    scored: Scored, score: Any, tmp_path: Path, has_bf16: bool
) -> None:
    """Its summary does not say how it was scored.  Where environment.json is gone too, `auto` is this machine's."""
    earlier = tmp_path / "earlier"
    shutil.copytree(scored.run, earlier)
    summary = scored.summary
    for stage in summary["stages"].values():
        del stage["scoring"]
    (earlier / "summary.json").write_text(json.dumps(summary))
    told = score("--stage", "step1", run=earlier)
    assert told["miou"] == summary["stages"]["step1"]["miou"]
    assert (told["protocol"]["precision"], told["protocol"]["window"]) == (scored.precision, "32x64 stride 16")
    (earlier / "environment.json").unlink()
    assert score("--stage", "step1", run=earlier)["protocol"]["precision"] == ("bf16" if has_bf16 else "fp32")


def test_a_resume_that_would_score_otherwise_leaves_finished_stages_as_they_were_scored(
    scored: Scored, score: Any, workshop: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(workshop, "runs", tmp_path)
    shutil.copytree(scored.run, tmp_path / scored.run.name)
    config = ["--config", str(scored.run / "config.yaml"), "--runtime.out", str(tmp_path), "--resume", "auto"]
    assert main(["adapt", *config, "--evaluation.window", "whole", "--evaluation.stride", "0"]) == 0
    told = score("--stage", "step2", run=tmp_path / scored.run.name)
    assert told["miou"] == scored.summary["stages"]["step2"]["miou"]
    summary = json.loads((tmp_path / scored.run.name / "summary.json").read_text())
    assert summary["protocol"] == scored.summary["protocol"]


def test_scoring_that_a_later_release_wrote_is_refused_in_one_line(
    scored: Scored, workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = tmp_path / "later"
    shutil.copytree(scored.run, later)
    summary = scored.summary
    summary["stages"]["step2"]["scoring"]["mirrored"] = True
    (later / "summary.json").write_text(json.dumps(summary))
    capsys.readouterr()
    assert main(["evaluate", str(later), "--data", str(workshop.data.val), "--split", "val"]) == 4
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "mirrored" in line
    assert "summary.json" in line


def test_predictions_in_another_precision_are_made_again(scored: Scored, workshop: Any, tmp_path: Path, capsys: Any) -> None:
    picture, *_ = sorted(workshop.data.val.rglob("*_leftImg8bit.png"))
    command = ["predict", str(scored.run), str(picture), "--out", str(tmp_path / "out"), "--stage", "step1"]
    told = []
    for flags in ((), (), ("--precision", "fp32" if scored.precision == "bf16" else "bf16")):
        assert main([*command, *flags]) == 0
        told.append([line for line in capsys.readouterr().err.splitlines() if "done before" in line and "failed" in line][-1])
    assert [line.split(",")[0] for line in told] == ["1 predicted", "0 predicted", "1 predicted"]
