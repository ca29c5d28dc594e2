"""The runner against processes that behave badly: isolated failures, an interruption, going on, a parent that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from iccld.errors import Preempted
from iccld.experiments.runner import run_units
from iccld.experiments.units import Unit, costs, is_finished, seconds_left, share_done, share_trained
from iccld.machine import available_cores

FAKE = (sys.executable, "-S", str(Path(__file__).with_name("fake_training.py")))


def unit(root: Path, name: str, needs: str | None = None, **behaviour: Any) -> Unit:
    run = root / "runs" / name
    return Unit(name, f"unit {name}", run, json.dumps({"run": str(run), **behaviour}), {"adapt": 4}, needs)


def starts(one: Unit) -> int:
    return len((one.run / "starts").read_text()) if (one.run / "starts").exists() else 0


def until(path: Path) -> None:
    """Wait for a file, at most ten seconds."""
    for _ in range(500):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} did not come")


def test_failures_are_told_and_stop_nothing_else(tmp_path: Path) -> None:
    units = [
        unit(tmp_path, "bad", fails=5),
        unit(tmp_path, "dependent", needs="bad"),
        unit(tmp_path, "killed", killed=True),
        unit(tmp_path, "silent", silent=True),
        unit(tmp_path, "good"),
    ]
    failures = run_units(units, tmp_path, FAKE)
    assert failures["bad"] == "the moon is not in range (exit code 5)"
    assert failures["dependent"] == "needs bad, which failed"
    assert failures["killed"].startswith("killed by SIGKILL, as a machine out of memory does")
    assert failures["silent"].startswith("exit code 0")
    assert "good" not in failures
    assert is_finished(units[-1])
    assert (tmp_path / "logs" / "bad.log").read_text() == "error: the moon is not in range\n"


def test_finished_units_are_skipped_and_failed_ones_tried_again(tmp_path: Path) -> None:
    units = [unit(tmp_path, "good"), unit(tmp_path, "bad", fails=2)]
    run_units(units, tmp_path, FAKE)
    repaired = [units[0], unit(tmp_path, "bad")]
    assert run_units(repaired, tmp_path, FAKE) == {}
    assert [starts(one) for one in units] == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fault_04_a_stop_is_handed_on_and_the_same_call_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    units = [unit(tmp_path, "first"), unit(tmp_path, "second", waits=True), unit(tmp_path, "third")]

    def stop() -> None:
        until(units[1].run / "waiting")
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Preempted, match="unit second"):
        run_units(units, tmp_path, FAKE)
    thread.join()
    assert [starts(one) for one in units] == [1, 1, 0]
    assert run_units(units, tmp_path, FAKE) == {}
    assert [starts(one) for one in units] == [1, 2, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_parent_takes_its_run_along(tmp_path: Path) -> None:
    one = unit(tmp_path, "alone", waits=True)
    code = (
        "import sys; from pathlib import Path; from iccld.experiments.runner import Unit, run_units\n"
        f"run_units([Unit('alone', 'alone', Path({str(one.run)!r}), {one.config!r}, {{'adapt': 4}})], Path({str(tmp_path)!r}), {FAKE!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    until_waiting = one.run / "waiting"
    for _ in range(30):
        if until_waiting.exists():
            break
        time.sleep(1)
    parent.kill()
    parent.wait()
    until(one.run / "saved")  # the child was asked to stop, and saved itself


def test_progress_is_read_off_the_metrics(tmp_path: Path) -> None:
    one = Unit("a", "a", tmp_path, "", {"step1": 30, "step2": 10})
    assert share_done(one) == 0.0
    (tmp_path / "metrics.jsonl").write_text('{"stage": "step1", "iteration": 12}\n{"stage": "st')
    assert share_done(one) == pytest.approx(12 / 40)
    (tmp_path / "metrics.jsonl").write_text('{"stage": "step1", "iteration": 30}\n{"stage": "step2", "iteration": 5}\n')
    assert share_done(one) == pytest.approx(35 / 40)
    (tmp_path / "summary.json").write_text(json.dumps({"stages": {"step1": {"iterations": 30}, "step2": {"iterations": 10}}}))
    assert share_done(one) == 1.0


def test_a_trained_unit_has_its_scores_before_it(tmp_path: Path) -> None:
    one = Unit("a", "a", tmp_path, "", {"step1": 30, "step2": 10}, seconds=100.0, scoring_seconds=40.0)
    (tmp_path / "metrics.jsonl").write_text('{"stage": "step2", "iteration": 10}\n')
    assert share_trained(one) == 1.0
    assert share_done(one) == pytest.approx(0.6)
    (tmp_path / "summary.json").write_text(json.dumps({"stages": {"step1": {"iterations": 30}, "step2": {"iterations": 10}}}))
    assert share_done(one) == 1.0


def test_seconds_left_goes_by_what_was_done_since_the_start() -> None:
    cost = {"a": 100.0, "b": 300.0, "c": 100.0}
    at_start = {"a": 1.0, "b": 0.0, "c": 0.0}
    # A third of b in 50 s is twice as fast as estimated: 200 + 100 left take 150 s.
    assert seconds_left(cost, at_start, {**at_start, "b": 1 / 3}, 50.0) == pytest.approx(150.0)
    assert seconds_left(cost, at_start, at_start, 50.0) is None


def test_costs_fall_back_to_iterations_where_one_estimate_is_missing(tmp_path: Path) -> None:
    known, unknown = (Unit(name, name, tmp_path, "", {"adapt": 7}, None, seconds) for name, seconds in (("a", 3.0), ("b", None)))
    assert costs([known]) == {"a": 3.0}
    assert costs([known, unknown]) == {"a": 7.0, "b": 7.0}


def test_several_at_a_time_wait_for_what_they_need_and_share_the_cores(tmp_path: Path) -> None:
    units = [unit(tmp_path, "source", meets="other"), unit(tmp_path, "adapted", needs="source"), unit(tmp_path, "other", meets="source")]
    assert run_units(units, tmp_path, FAKE, jobs=2) == {}
    assert all(is_finished(one) for one in units)
    began = {one.name: float((one.run / "began").read_text()) for one in units}
    assert began["other"] < began["adapted"]  # it needs nothing, so it did not wait its turn
    assert {(one.run / "threads").read_text() for one in units} == {str(max(1, available_cores() // 2))}


def test_fault_04_a_stop_is_handed_to_all_that_run(tmp_path: Path) -> None:
    units = [unit(tmp_path, name, waits=True) for name in ("first", "second", "third")]

    def stop() -> None:
        for one in units[:2]:
            until(one.run / "waiting")
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Preempted, match=r"unit (first, unit second|second, unit first), saved"):
        run_units(units, tmp_path, FAKE, jobs=2)
    thread.join()
    assert all((one.run / "saved").exists() for one in units[:2])
    assert [starts(one) for one in units] == [1, 1, 0]


def test_a_chain_of_needs_fails_as_a_whole(tmp_path: Path) -> None:
    units = [unit(tmp_path, "a", fails=2), unit(tmp_path, "b", needs="a"), unit(tmp_path, "c", needs="b")]
    assert list(run_units(units, tmp_path, FAKE, jobs=2)) == ["a", "b", "c"]
