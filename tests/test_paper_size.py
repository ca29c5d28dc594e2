"""The benchmark of the paper's size, with everything made tiny but the recipe's method and stages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "paper_size.py"
ITEMS = ["source", "step1", "step2", "predict-1", "predict-50"]
NETWORKS = ["--network.widths", "32,32,32,32", "--network.denoiser_widths", "32,32"]
SIZES = [word for side in ("source", "target", "crop") for word in (f"--size.{side}", "64x64")]
SCENES = [word for domain in ("source", "target", "val") for word in (f"--{domain}.generate.size", "64x128")]


@pytest.mark.slow
def test_every_item_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--", *NETWORKS, *SIZES, *SCENES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "ICCLD_CACHE": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    header, _, *rows = (line.strip("|").split("|") for line in done.stdout.splitlines())
    assert [cell.strip() for cell in header] == ["item", "set-up s", "seconds", "CPU s", "peak GiB"]
    assert [row[0].strip() for row in rows] == ITEMS
    for _, setup, wall, _, peak in rows:
        assert float(setup) > 0
        assert float(wall) > 0
        assert 0.1 < float(peak) < 4  # PyTorch itself takes the tenth
    assert done.stderr.count("predict-50: step ") == 50
    assert done.stderr.count("predict-1: step ") == 1
