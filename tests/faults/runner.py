"""`make faults`: run every test named test_fault_NN_..., print one line a number, and the count that held.

    fault 07 held 3.2 s a checkpoint truncated or with flipped bits (27 tests)

A number without a test that ran is broken, and so is one whose tests crashed the process.  FAULTS=full enlarges the campaigns.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"test_fault_(\d\d)_")


def load_catalogue() -> dict[int, str]:
    """CATALOGUE of the file beside this one, which pytest's import mode keeps from being a package."""
    spec = importlib.util.spec_from_file_location("catalogue", Path(__file__).with_name("catalogue.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    catalogue: dict[int, str] = module.CATALOGUE
    return catalogue


def number_of(name: str) -> int | None:
    """`test_fault_07_damage[x]` -> 7; None for any other test."""
    match = NAME.match(name)
    return int(match[1]) if match else None


class Recorder:
    """A pytest plugin that keeps the tests of faults, in the order of their numbers, and writes each outcome as a line of JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @pytest.hookimpl(trylast=True)  # after the marks have taken out what does not run here, which is not planned then
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sorted by number; within a number by file, so that fixtures of a module are made once."""
        chosen = [(number, item) for item in items if (number := number_of(item.name)) is not None]
        items[:] = [item for _, item in sorted(chosen, key=lambda pair: (pair[0], str(pair[1].path)))]
        self.write({"planned": [number_of(item.name) for item in items]})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("::")[2]
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = (crash.message if crash else report.longreprtext).strip().splitlines()[:1] if report.failed else []
        outcome = {"number": number_of(name), "when": report.when, "outcome": report.outcome, "seconds": report.duration}
        figures = [str(value) for key, value in report.user_properties if key == "figure" and report.when == "call"]
        self.write({**outcome, "what": f"{report.nodeid} {' '.join(reason)}", "figures": figures})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.write({"unreadable": report.nodeid, "what": report.longreprtext.strip().splitlines()[-1]})

    def write(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


@dataclass
class Tally:
    """What became of one number's tests."""

    planned: int = 0
    passed: int = 0
    seconds: float = 0.0
    finished: int = 0
    failures: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    """What campaigns counted, by `record_property("figure", ...)`."""

    @property
    def is_done(self) -> bool:
        return self.finished >= self.planned

    def add(self, record: dict[str, Any]) -> None:
        """One phase (setup, call, teardown) of one test."""
        self.seconds += record["seconds"]
        self.passed += record["when"] == "call" and record["outcome"] == "passed"
        self.finished += record["when"] == "teardown"
        self.figures += record["figures"]
        if record["outcome"] == "failed":
            self.failures.append(record["what"])

    def line(self, number: int, what: str) -> tuple[bool, str]:
        """Whether the number held, and its line."""
        held = self.passed > 0 and not self.failures and self.is_done
        if not held:
            reason = self.failures[0] if self.failures else "its tests did not finish" if self.planned else "no test carries its number"
            reason = reason if self.passed or self.failures or not self.is_done or not self.planned else "all of its tests were skipped"
            what = f"{what}: {reason}"
        tests = ", ".join([f"{self.passed} test{'s' if self.passed != 1 else ''}", *self.figures])
        return held, f"fault {number:02d} {'held' if held else 'broken'} {self.seconds:.1f} s {what} ({tests})"


def outcomes(path: Path, process: subprocess.Popen[str]) -> Iterator[dict[str, Any] | None]:
    """Lines as they are written; None while there are no new ones, until the process has ended."""
    while not path.exists() and process.poll() is None:
        yield None
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        while True:
            ended = process.poll() is not None
            line = file.readline()
            if line.endswith("\n"):
                yield json.loads(line)
            elif ended:
                return
            else:
                yield None


def run(arguments: list[str]) -> int:
    """Run the tests in a process of their own, since some of them kill processes; print as numbers are finished."""
    catalogue = load_catalogue()
    tallies = {number: Tally() for number in catalogue}
    results: dict[int, tuple[bool, str]] = {}
    waiting = sorted(catalogue)
    with tempfile.TemporaryDirectory(prefix="iccld-faults-") as folder:
        path, log = Path(folder) / "outcomes.jsonl", Path(folder) / "log.txt"
        command = [sys.executable, __file__, "--record", str(path), *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))}
        with log.open("w") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True, env=environment)
            is_planned = False

            def settle(upto: int | None) -> None:
                while waiting and (upto is None or waiting[0] < upto):
                    number = waiting.pop(0)
                    results[number] = tallies[number].line(number, catalogue[number])
                    print(results[number][1], flush=True)

            for record in outcomes(path, process):
                if record is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.2)
                elif "unreadable" in record:
                    print(f"cannot be collected: {record['unreadable']} {record['what']}", flush=True)
                elif "planned" in record:
                    is_planned = True
                    for number in record["planned"]:
                        tallies.setdefault(number, Tally()).planned += 1
                elif record["number"] is not None:
                    settle(record["number"])
                    tallies[record["number"]].add(record)
            settle(None)
        if not is_planned:
            print(log.read_text(encoding="utf-8", errors="replace")[-4000:])
        num_held = sum(held for held, _ in results.values())
        if num_held < len(catalogue) and "--verbose" in sys.argv:
            print(log.read_text(encoding="utf-8", errors="replace"))
    print(f"{num_held}/{len(catalogue)} held")
    return 0 if num_held == len(catalogue) else 1


def record(path: Path, arguments: list[str]) -> int:
    """The body of the started process: pytest with the recorder, slow tests included."""
    marks = "" if shutil.which("nvidia-smi") else "not gpu"
    targets = [argument for argument in arguments if not argument.startswith("-")] or ["tests"]
    options = ["-m", marks, "-q", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    return int(pytest.main([*options, *targets], plugins=[Recorder(path)]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        sys.exit(record(Path(sys.argv[2]), sys.argv[3:]))
    sys.exit(run([argument for argument in sys.argv[1:] if argument != "--verbose"]))
