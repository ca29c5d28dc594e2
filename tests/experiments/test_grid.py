"""`iccld ablate --grid step2` on tiny runs: one start, the same batches, paired differences, ceilings that are marked, going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from iccld.cli import main


def words(recipe: Path, out: Path, *more: str) -> list[str]:
    base = ["ablate", "--grid", "step2", "--config", str(recipe), "--seeds", "3", "--iterations", "2", "--out", str(out), "--no_estimate"]
    return [*base, *more]


def table(out: Path) -> dict[str, Any]:
    return {row["row"]: row for row in json.loads((out / "grid.json").read_text())["rows"]}


def test_a_grid(recipe: Path, here: list[str], tmp_path: Path) -> None:
    out = tmp_path / "grid"
    assert main(words(recipe, out)) == 0
    print(out, here)
    print((out / "grid.md").read_text())
    raise AssertionError
