"""Mutated PNG, JPEG, WebP, TIFF, GIF and BMP files through the readers: an array or a DataError, in 5 s and 1 GiB, and no crash.

The 5 s are of processor time, for each reader.  200 mutations by default; FAULTS=full reads 20,000.  One that fails is read again by
`python tests/fuzz/read_mutations.py FOLDER N N+1`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("read_mutations.py")
LARGEST = Path(__file__).with_name("read_at_limit.py")
IS_FULL = os.environ.get("FAULTS") == "full"
MUTATIONS = 20_000 if IS_FULL else 200
AT_ONCE = 2_000

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited and measured by Linux's means")


def run(folder: Path, first: int, last: int) -> tuple[int, int, list[str]]:
    """(read, refused, failures) of some mutations; a child that dies is started again behind the one that it died of."""
    read = refused = 0
    failures: list[str] = []
    while first < last:
        command = [sys.executable, "-W", "ignore", str(CHILD), str(folder), str(first), str(last)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        lines = done.stdout.splitlines()
        failures += [line for line in lines if line.startswith("mutation ")]
        if done.returncode == 0:
            counts = lines[-1].split()
            return read + int(counts[1]), refused + int(counts[2]), failures
        number = int((folder / "number").read_text()) if (folder / "number").exists() else first
        end = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit {done.returncode}: {done.stderr[-300:]}"
        failures.append(f"mutation {number}: {end}")
        first = number + 1
    return read, refused, failures


def test_fault_25_mutated_files_are_arrays_or_one_line(tmp_path: Path) -> None:
    read = refused = 0
    failures: list[str] = []
    for first in range(0, MUTATIONS, AT_ONCE):
        found = run(tmp_path, first, min(first + AT_ONCE, MUTATIONS))
        read, refused, failures = read + found[0], refused + found[1], failures + found[2]
    print(f"{MUTATIONS} mutations: {read} read, {refused} refused, {len(failures)} wrong")
    assert failures == []
    # The mutations reach both ends: many are seen as damage, and some leave a picture.
    assert read + refused == MUTATIONS
    assert min(read, refused) > MUTATIONS // 20


def test_fault_32_the_largest_pictures_and_promises_fit_a_gigabyte(tmp_path: Path) -> None:
    """What the limits let through is decoded in 1 GiB and 5 s; FAULTS=full adds whole pictures of the largest size to mere promises."""
    command = [sys.executable, "-W", "ignore", str(LARGEST), str(tmp_path), "full" if IS_FULL else "quick"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    outcomes = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
    assert len(outcomes) == (36 if IS_FULL else 13)
    wrong = {
        name: found
        for name, found in outcomes.items()
        if found != ("refused" if "promise" in name or name in ("text", "profile") else "read")
    }
    assert wrong == {}
