"""`make faults`: one line a number, and what makes a number broken."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

RUNNER = Path(__file__).with_name("runner.py")

TESTS = """
import os, signal, pytest
def test_fault_01_holds(): pass
@pytest.mark.parametrize("x", [1, 2])
def test_fault_02_breaks_once(x): assert x == 1, "two is too many"
def test_fault_04_is_skipped(): pytest.skip("no device")
def test_of_something_else(): raise AssertionError
def test_fault_39_holds(): pass
def test_fault_40_dies(): os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults_runner", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults_runner"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_every_number_has_one_line_and_only_what_ran_holds(tmp_path: Path, runner: ModuleType) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [sys.executable, str(RUNNER), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert [line.split()[1] for line in lines[:-1]] == [f"{number:02d}" for number in sorted(runner.load_catalogue())]
    verdicts = {int(line.split()[1]): line for line in lines[:-1]}
    assert {number for number, line in verdicts.items() if " held " in line} == {1, 39}
    assert "two is too many" in verdicts[2]
    assert "no test carries its number" in verdicts[3]
    assert "all of its tests were skipped" in verdicts[4]
    assert "did not finish" in verdicts[40]
    assert lines[-1] == f"2/{len(runner.load_catalogue())} held"


def test_every_number_of_a_test_is_in_the_catalogue(runner: ModuleType) -> None:
    """And no test hides from the runner behind another spelling of its number."""
    named = {
        line for path in RUNNER.parents[1].rglob("test_*.py") for line in path.read_text().splitlines() if line.startswith("def test_")
    }
    faults = [line.removeprefix("def ") for line in named if line.startswith(("def test_fault_", "def test_fault0", "def test_fault1"))]
    assert faults
    assert {runner.number_of(name) for name in faults} <= set(runner.load_catalogue())
    assert {*range(1, 61)} <= runner.load_catalogue().keys()
