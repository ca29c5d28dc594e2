"""The page while a run is trained."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from iccld.cli import main
from iccld.report.run import read_run
from iccld.report.watch import progress_words, watch
from iccld.training.lock import LOCK_NAME, is_locked, lock_run

PLAN = {"method": "iccld", "stages": {"source": {"iterations": 100}, "step1": {"iterations": 50}, "step2": {"iterations": 0}}}


def begin(run: Path) -> None:
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))


def train(run: Path, stage: str, *iterations: int, pace: float = 0.5) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for iteration in iterations:
            line = {"stage": stage, "iteration": iteration, "time": pace * iteration, "losses": {"source": 1.0}}
            file.write(json.dumps(line) + "\n")


def finish(run: Path, *stages: str) -> None:
    told = {stage: {"miou": 40.0, "weights": "ema", "iterations": PLAN["stages"][stage]["iterations"]} for stage in stages}  # type: ignore[index]
    summary = {"method": "iccld", "headline": {"stage": stages[-1], "weights": "ema", "miou": 40.0}, "stages": told}
    (run / "summary.json").write_text(json.dumps(summary))


def test_words_tell_the_stage_and_the_time_left_at_the_latest_pace(tmp_path: Path) -> None:
    begin(tmp_path)
    assert progress_words(read_run(tmp_path)) == "Being trained now: 0 of 100 iterations of stage source."
    train(tmp_path, "source", 10, 20)
    assert progress_words(read_run(tmp_path)).endswith(
        "20 of 100 iterations of stage source, about 1m05s of training left."
    )  # (80 + 50) / 2 s
    finish(tmp_path, "source")
    train(tmp_path, "step1", 10, 20, pace=2.0)
    assert progress_words(read_run(tmp_path)).endswith("20 of 50 iterations of stage step1, about 1m00s of training left.")
    train(tmp_path, "step1", 50, pace=2.0)
    assert "every stage has had its iterations" in progress_words(read_run(tmp_path))


def test_the_page_follows_the_training_and_ends_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, page = tmp_path / "run", tmp_path / "run" / "report.html"
    with ExitStack() as training:
        training.enter_context(lock_run(run))
        steps = iter(range(10))

        def pause(seconds: float) -> None:
            step = next(steps)
            if step == 0:  # it may be looked at before anything is written
                assert not page.exists()
                begin(run)
                train(run, "source", 10, 20)
            elif step == 1:
                assert '<meta http-equiv="refresh" content="7">' in page.read_text()
                assert "20 of 100 iterations of stage source" in page.read_text()
                page.unlink()
            elif step == 2:
                assert not page.exists()  # nothing new, nothing written
                train(run, "source", 30)
            elif step == 3:
                assert "30 of 100" in page.read_text()
                finish(run, "source", "step1")
                training.close()

        assert watch(run, 7, pause) == 0
    assert "refresh" not in page.read_text()
    assert capsys.readouterr().out == f"{page.resolve()}\n"
    assert next(steps) == 4


def test_a_training_that_ends_early_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path)
    train(tmp_path, "source", 10)
    assert main(["report", str(tmp_path), "--watch"]) == 4
    assert "is not finished, and nobody trains it" in capsys.readouterr().err
    assert (tmp_path / "report.html").is_file()


def test_a_lock_is_seen_and_left_alone(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with lock_run(tmp_path):
        assert is_locked(tmp_path)
        assert "process" in (tmp_path / LOCK_NAME).read_text()
    assert not is_locked(tmp_path)
    (tmp_path / LOCK_NAME).write_text("process 1 on another since start x\n")  # left by a process that was killed
    assert not is_locked(tmp_path)
    with lock_run(tmp_path):
        pass
