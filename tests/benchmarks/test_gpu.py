"""`benchmarks/gpu.sh` at tiny size on the CPU: every row is measured, and a failing item becomes a row of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(out: Path, *arguments: str) -> dict:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--device", "cpu", "--out", str(out), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "gpu.md").read_text(encoding="utf-8").strip() == done.stdout.strip()
    return json.loads((out / "gpu.json").read_text(encoding="utf-8"))


def test_a_recipe_is_measured_and_an_unknown_one_is_told(tmp_path):
    told = bench(tmp_path, "--recipes", "gta5_to_cityscapes_daformer", "no_such_recipe", "--skip", "sampling", "tests", "compile")
    measured, failed = told["stages"]
    assert (measured["recipe"], measured["stage"]) == ("gta5_to_cityscapes_daformer", "adapt")
    assert measured["seconds"] > 0
    assert measured["tflop"] > 0
    assert failed["recipe"] == "no_such_recipe"
    assert "no_such_recipe" in failed["note"]


@pytest.mark.slow
def test_everything_is_measured_within_the_budget(tmp_path):
    told = bench(tmp_path, "--budget", "400", "--skip", "tests", "compile")
    assert all("seconds" in row for row in told["stages"])
    assert {row["stage"] for row in told["stages"] if row["recipe"].endswith("_paper")} == {"source", "step1", "step2"}
    assert [row["steps"] for row in told["sampling"]] == [1, 50]
