"""Rows of Tables 1 and 2 from runs written by hand; what papers report, against itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iccld.errors import CheckpointError, DataError
from iccld.experiments import reported, table1, table2
from iccld.experiments.outcome import paired_gain, provenance, read_outcome
from iccld.experiments.table import Gain, Spread, is_best

WEAK = [(5, 6), (6, 5), (4, 7)]
MIDDLE = [(6, 7), (7, 6), (6, 8)]
STRONG = [(9, 9), (9, 8), (10, 9)]


def test_outcome_sums_the_stages_after_source(tmp_path: Path, by_hand: Any) -> None:
    run = by_hand.write_run(tmp_path / "r", {"source": WEAK, "step1": MIDDLE, "step2": STRONG})
    last, first = read_outcome(run, "step2"), read_outcome(run, "step1")
    assert (last.iterations, last.source_iterations, last.seconds, first.iterations, first.seconds) == (20, 10, 120.0, 10, 60.0)
    assert last.miou == pytest.approx(by_hand.miou(STRONG))
    assert read_outcome(run, "source").iterations == 0
    with pytest.raises(CheckpointError, match="stage 'adapt'"):
        read_outcome(run, "adapt")


def test_gain_is_paired_over_seeds_and_pictures(tmp_path: Path, by_hand: Any) -> None:
    base = {s: read_outcome(by_hand.write_run(tmp_path / f"b{s}", {"adapt": WEAK}), "adapt") for s in (0, 1)}
    other = {0: read_outcome(by_hand.write_run(tmp_path / "o0", {"adapt": MIDDLE}), "adapt")}
    other[1] = read_outcome(by_hand.write_run(tmp_path / "o1", {"adapt": STRONG}), "adapt")
    small, large = by_hand.miou(MIDDLE) - by_hand.miou(WEAK), by_hand.miou(STRONG) - by_hand.miou(WEAK)
    gain = paired_gain(base, other, 1)
    assert isinstance(gain, Gain)
    assert gain.mean == pytest.approx((small + large) / 2)
    assert gain.std == pytest.approx((large - small) / 2**0.5)
    assert gain.low < gain.mean < gain.high
    assert gain.seeds_low is not None
    assert gain.seeds_high is not None
    assert gain.seeds_low < gain.low  # a draw of seed 0 alone
    assert gain.seeds_high > gain.high
    alone = paired_gain({0: base[0]}, other, 1)
    assert alone is not None
    assert (alone.count, alone.std, alone.seeds_low) == (1, None, None)
    assert alone.mean == pytest.approx(small)
    assert paired_gain({2: base[0]}, other, 1) is None


def test_gain_over_other_pictures_is_refused(tmp_path: Path, by_hand: Any) -> None:
    first = {0: read_outcome(by_hand.write_run(tmp_path / "a", {"adapt": WEAK}), "adapt")}
    second = {0: read_outcome(by_hand.write_run(tmp_path / "b", {"adapt": WEAK[:2]}), "adapt")}
    with pytest.raises(DataError, match="different pictures"):
        paired_gain(first, second, 1)


def test_table1_pairs_every_row_with_its_base(tmp_path: Path, by_hand: Any) -> None:
    hits = {"without": (WEAK, WEAK, MIDDLE), "with": (MIDDLE, MIDDLE, STRONG)}
    sources = {}
    for variant, (step1, control, step2) in hits.items():
        sources[variant, 0] = by_hand.write_run(tmp_path / "source" / variant, {"source": WEAK})
        by_hand.write_run(tmp_path / "runs" / table1.run_name(variant, 0), {"source": WEAK, "step1": step1, "step2": step2})
        if variant == "with":
            by_hand.write_run(tmp_path / "runs" / table1.run_name(variant, 0, True), {"source": WEAK, "step1": control})
    rows = table1.read_rows(table1.places(tmp_path, sources, list(hits), (0,)))
    table = table1.tables(rows, (0,), {"without-0-control": "killed"}, 1)[0]
    cells = {row.key: row.cells for row in table.rows}
    assert list(cells) == [f"{variant}/{row}" for variant in hits for row in ("source", "step1", "control", "step2")]
    assert cells["with/step2"]["over_control"].mean == pytest.approx(by_hand.miou(STRONG) - by_hand.miou(MIDDLE))  # type: ignore[union-attr]
    assert cells["with/step1"]["over_without"].mean == pytest.approx(by_hand.miou(MIDDLE) - by_hand.miou(WEAK))  # type: ignore[union-attr]
    assert cells["with/control"]["over_step1"].mean == 0.0  # type: ignore[union-attr]
    assert cells["without/step2"]["over_control"] is None
    assert cells["with/step2"]["miou"] == Spread(pytest.approx(by_hand.miou(STRONG)), None, 1)
    assert (cells["with/step2"]["iterations"], cells["with/step2"]["after_source"]) == (30, 20)
    assert (cells["with/step2"]["reported_gta5"], cells["without/step1"]["reported_synthia"]) == (74.4, 42.7)
    missing = next(row for row in table.rows if row.key == "without/control")
    assert (missing.kind, missing.note) == ("missing", "seed 0: killed")


def test_table2_says_failed_and_not_applicable(tmp_path: Path, by_hand: Any) -> None:
    hits = {"source_only": WEAK, "dacs": MIDDLE, "iccld": STRONG}
    outcomes: dict[str, Any] = {
        method: table2.read_outcomes({0: by_hand.write_run(tmp_path / method, {"source": WEAK, "adapt": hit})}, "adapt")
        for method, hit in hits.items()
    }
    outcomes |= {"mic": table2.read_outcomes({0: tmp_path / "nothing"}, "adapt"), "corda": {}}
    tables = table2.tables(outcomes, (0,), {"mic-0": "a bug"}, {"corda": "needs depth"}, 1)
    rows = {row.key: row for row in tables[0].rows}
    assert (rows["mic"].cells["miou"], rows["mic"].note) == ("failed", "seed 0: a bug")
    assert (rows["corda"].cells["miou"], rows["corda"].note) == ("n/a", "needs depth")
    assert rows["source_only"].cells["over_source_only"] is None
    assert rows["dacs"].cells["over_source_only"].mean == pytest.approx(by_hand.miou(MIDDLE) - by_hand.miou(WEAK))  # type: ignore[union-attr]
    assert rows["dacs"].cells["over_iccld"].mean == pytest.approx(by_hand.miou(MIDDLE) - by_hand.miou(STRONG))  # type: ignore[union-attr]
    assert rows["dacs"].cells["reported_gta5"] == 52.1
    weights = next(table for table in tables if table.title == "mIoU of trained and of averaged weights")
    dacs = next(row.cells for row in weights.rows if row.key == "dacs")
    assert [dacs[column.key] for column in weights.columns[1:]] == [
        Spread(pytest.approx(by_hand.miou(MIDDLE) - lag), None, 1)  # type: ignore[arg-type]
        for lag in (2, 0)
    ]
    assert [table.title for table in tables[-2:]] == ["As reported: GTA5 → Cityscapes", "As reported: SYNTHIA → Cityscapes"]
    assert {row.kind for row in tables[-1].rows} == {"reported"}


def test_provenance_names_every_commit_once(tmp_path: Path, by_hand: Any) -> None:
    runs = [by_hand.write_run(tmp_path / name, {"adapt": WEAK}) for name in "ab"]
    assert provenance(runs)["commit"] == "c0ffee"
    (runs[1] / "summary.json").write_text((runs[1] / "summary.json").read_text().replace("c0ffee", "decaf"))
    assert provenance(runs)["commit"] == ["c0ffee", "decaf"]


@pytest.mark.parametrize("method", [name for name in reported.MIOU if reported.class_iou(name)])
def test_reported_classes_average_to_the_reported_mean(method: str) -> None:
    for place, (name, count) in enumerate((("GTA5", 19), ("SYNTHIA", 16))):
        iou = [value for value in reported.class_iou(method)[name].values() if value is not None]
        if (method, name) != ("adaptsegnet", "SYNTHIA"):  # its 13 classes have no mean of 37.2, as the note says
            assert len(iou) == count
            assert sum(iou) / count == pytest.approx(reported.MIOU[method][place], abs=0.11)


def test_costs_are_of_the_processor_too_and_no_time_is_bold(tmp_path: Path, by_hand: Any) -> None:
    """Two runs side by side double the seconds on the wall, not those of the processor."""
    measured = [(60.0, 59.0, 4.0, 3.9), (130.0, 61.0, 41.0, 4.1)]
    keys = ("seconds", "processor_seconds", "milliseconds_per_image", "processor_milliseconds_per_image")
    runs = [
        by_hand.write_run(tmp_path / str(seed), {"source": WEAK, "adapt": MIDDLE}, **dict(zip(keys, values, strict=True)))
        for seed, values in enumerate(measured)
    ]
    outcomes = {
        "source": {seed: read_outcome(run, "source") for seed, run in enumerate(runs)},
        "dacs": {seed: read_outcome(run, "adapt") for seed, run in enumerate(runs)},
    }
    cost = next(table for table in table2.tables(outcomes, [0, 1], {}, {}, 1) if table.title == "Cost")
    start, row = cost.rows
    assert row.cells["seconds"] == Spread(95.0, pytest.approx(49.5, abs=0.01), 2)
    assert row.cells["processor_seconds"] == Spread(60.0, pytest.approx(1.414, abs=0.001), 2)
    assert row.cells["processor_milliseconds"] == Spread(4.0, pytest.approx(0.141, abs=0.001), 2)
    assert "seconds" not in start.cells  # what it took to train is no cost after source
    assert {key for _, key in is_best(cost)} <= {"peak_memory_gib", "parameters"}


def test_a_cost_that_one_seed_does_not_tell_is_not_told_of_the_row(tmp_path: Path, by_hand: Any) -> None:
    """The mean of one seed of an earlier release and one of this one would be the latter's alone."""
    old, new = (
        by_hand.write_run(tmp_path / "0", {"adapt": WEAK}),
        by_hand.write_run(tmp_path / "1", {"adapt": WEAK}, processor_seconds=50.0),
    )
    (row,) = table2.tables({"dacs": {0: read_outcome(old, "adapt"), 1: read_outcome(new, "adapt")}}, [0, 1], {}, {}, 1)[0].rows
    assert row.cells["processor_seconds"] is None
    assert row.cells["seconds"] == Spread(60.0, 0.0, 2)


def test_a_cost_that_no_run_tells_has_no_column(tmp_path: Path, by_hand: Any) -> None:
    """Runs of earlier releases tell no processor time, those on a GPU none of a prediction."""
    run = by_hand.write_run(tmp_path / "r", {"source": WEAK, "step1": MIDDLE, "step2": STRONG}, processor_milliseconds_per_image=None)
    rows = {("with", row): {0: read_outcome(run, stage)} for row, stage in (("source", "source"), ("step1", "step1"), ("step2", "step2"))}
    cost = next(table for table in table1.tables(rows, [0], {}, 1) if table.title == "Cost")
    assert [column.key for column in cost.columns] == [
        *("iterations", "after_source", "seconds", "peak_memory_gib", "parameters", "milliseconds")
    ]
    assert [row.cells.get("seconds") for row in cost.rows] == [None, Spread(60.0, None, 1), Spread(120.0, None, 1)]
