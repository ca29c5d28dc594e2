"""Training shown in other programs: which figures, at which steps, and what happens when such a program fails."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from iccld.errors import ConfigError
from iccld.training import trackers
from iccld.training.trackers import TensorBoard, Trackers, WeightsAndBiases, figures_of, require_trackers

LINE = {"stage": "step1", "iteration": 10, "time": 2.5, "losses": {"source": 0.5, "mixed": None}, "lr": 1e-3, "histogram": [0.1, 0.9]}
SCORE = {"stage": "step1", "iteration": 10, "eval": {"weights": "ema", "split": "val", "miou": 40.0, "iou": {"road": 80.0, "car": None}}}


def test_figures_of_a_line_are_its_finite_numbers_by_name() -> None:
    assert figures_of(LINE) == {"step1/time": 2.5, "step1/loss/source": 0.5, "step1/lr": 1e-3}
    assert figures_of(SCORE) == {"step1/val/ema/miou": 40.0, "step1/val/ema/iou/road": 80.0}
    assert figures_of({"stage": "a", "iteration": 1, "warning": "words", "x": math.nan, "flag": True}) == {}


def test_an_absent_tracker_is_one_line_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    require_trackers([])
    with pytest.raises(ConfigError, match=r"needs wandb: pip install 'iccld\[wandb\]'"):
        require_trackers(["wandb"])


class Kept:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []
        self.is_closed = False

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self.logged.append((dict(figures), step))

    def close(self) -> None:
        self.is_closed = True


class Failing(Kept):
    def log(self, figures: Mapping[str, float], step: int) -> None:
        raise OSError("no space left")


def test_steps_count_over_all_stages_and_a_failing_tracker_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, kept = Trackers((), tmp_path, {}, {"source": 100, "step1": 50}), Kept()
    shown.trackers = {"bad": Failing(), "good": kept}
    shown.record(LINE)
    shown.record({"stage": "step1", "iteration": 20, "warning": "nothing to draw"})
    shown.record(SCORE)
    shown.close()
    assert [step for _, step in kept.logged] == [110, 110]
    assert kept.is_closed
    assert capsys.readouterr().err == "warning: bad is left out from here on: no space left\n"


def test_tensorboard_reads_what_was_written_and_a_resume_hides_what_a_crash_left(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in ((10, 20, 30), (20, 30)):  # killed after 30, gone on from a checkpoint at 10
        board = TensorBoard(tmp_path)
        for step in steps:
            board.log({"source/loss/source": step / 10 + len(steps)}, step)
        board.close()
    reader = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    found = [(event.step, event.value) for event in reader.Scalars("source/loss/source")]
    assert found == [(10, 4.0), (20, 4.0), (30, 5.0)]


@pytest.mark.parametrize(
    ("environment", "mode"),
    [({}, "offline"), ({"WANDB_API_KEY": "x"}, "online"), ({"WANDB_API_KEY": "x", "WANDB_MODE": "disabled"}, "disabled")],
)
def test_wandb_stays_offline_unless_asked_and_goes_on_with_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], mode: str
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    opened: list[dict[str, Any]] = []
    logged: list[dict[str, float]] = []
    fake = ModuleType("wandb")
    run = SimpleNamespace(log=logged.append, define_metric=lambda *_, **__: None, finish=lambda: None)
    vars(fake).update(init=lambda **options: (opened.append(options), run)[1], Settings=lambda **options: options)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for step in (5, 6):
        tracker = WeightsAndBiases(tmp_path, {"sizes": (1, 2)})
        tracker.log({"a": 1.0}, step)
        tracker.close()
    assert [options["mode"] for options in opened] == [mode, mode]
    assert opened[0]["id"] == opened[1]["id"]
    assert (opened[0]["project"], opened[0]["dir"], opened[0]["config"]) == ("iccld", str(tmp_path), {"sizes": [1, 2]})
    assert logged == [{"a": 1.0, "step": 5}, {"a": 1.0, "step": 6}]


@pytest.mark.slow
def test_wandb_writes_offline_without_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    tracker = WeightsAndBiases(tmp_path, {})
    tracker.log({"source/loss/source": 1.0}, 1)
    tracker.close()
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert file.stat().st_size > 0
