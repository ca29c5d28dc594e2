"""`benchmarks/adapters.py`: shares are of the longest step 1 of the same seeds, and starts are copied, not touched."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "adapters.py"


def item(kind: str, seed: int, gain: float, seconds: float, gib: float) -> dict:
    told = {
        "pair": "source_camvid",
        "kind": kind,
        "seed": seed,
        "before": 40.0,
        "miou": 40.0 + gain,
        "iterations": 100 if "-" in kind else 20,
    }
    return told | {"seconds": seconds + 1, "processor_seconds": seconds, "command_seconds": seconds + 10, "peak_memory_gib": gib}


def test_shares_are_of_the_same_seeds(script, tmp_path):
    rows = [item("step1-100", 0, 2.0, 100, 1.0), item("step1-100", 1, 4.0, 100, 1.0), item("default", 0, 1.0, 10, 0.5)]
    rows += [item("default", 1, 2.0, 20, 0.5), item("default", 2, 9.0, 10, 0.5)]  # no step 1 of seed 2 to hold it against
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.json").write_text(json.dumps(row))
    lines = script.table(tmp_path).splitlines()
    assert lines[2] == "| source_camvid | step1-100 | 2 | 40.00 | +3.00 (+2.00 to +4.00) | 101 | 100 | 110 | 1.00 | 100 % | 100 % | 100 % |"
    assert lines[3].endswith("| 50 % | 15 % | 50 % |")


def test_a_start_is_copied_and_its_seed_is_read(script, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text('{"seed": 4}')
    given = argparse.Namespace(out=tmp_path / "out", source=str(run), pairs="source_camvid", step1="30,60", adapters="default")
    items = script.planned(given)
    assert [(each.seed, each.kind, each.run) for each in items] == [
        (4, kind, tmp_path / "out" / "starts" / "source-4") for kind in ("step1-30", "step1-60", "default")
    ]
    assert [path.name for path in run.iterdir()] == ["summary.json"]
    given.pairs = "night"
    with pytest.raises(SystemExit, match="no pair night"):
        script.planned(given)
