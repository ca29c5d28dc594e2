"""Fault 4 on a cluster: the job script asks for a warning before the end, and for another job after exit code 75 alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "slurm" / "iccld.sbatch"


@pytest.mark.parametrize(
    ("code", "expected", "is_requeued"), [(0, 0, False), (75, 0, True), (2, 2, False), (5, 5, False), (137, 137, False)]
)
def test_fault_04_slurm_script_asks_for_another_job_after_75_alone(tmp_path: Path, code: int, expected: int, is_requeued: bool) -> None:
    for name, body in (("srun", f'echo "$@" > {tmp_path}/started; exit {code}'), ("scontrol", f'echo "$@" > {tmp_path}/asked')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "night"}
    assert subprocess.run(["bash", str(SCRIPT)], env=environment, check=False).returncode == expected
    assert (tmp_path / "started").read_text() == "iccld adapt --recipe demo --name night --resume auto\n"
    assert (tmp_path / "asked").exists() == is_requeued
    if is_requeued:
        assert (tmp_path / "asked").read_text() == "requeue 7\n"


def test_fault_04_slurm_script_asks_for_the_warning() -> None:
    directives = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --signal=USR1@120", "#SBATCH --requeue"} <= set(directives)
