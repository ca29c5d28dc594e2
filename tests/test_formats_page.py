"""docs/formats.md says what is so: its tests exist, its versions are those of constraints.txt, and what is installed is of that version."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "formats.md"
NONE = "–"


class Row(NamedTuple):
    """One line of a table."""

    format: str
    does: str
    program: str
    version: str
    tests: str


def rows() -> list[Row]:
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"
    ]
    return [Row(*cells) for cells in found if cells[0] != "format" and not cells[0].startswith("---")]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


ROWS = rows()
EACH = pytest.mark.parametrize("row", ROWS, ids=[f"{row.format} by {row.program}" for row in ROWS])


def test_rows_are_found() -> None:
    """Were the page read wrongly, everything below would pass."""
    assert len(ROWS) > 40
    assert {"onnxruntime", "pycocotools", "safetensors", NONE} <= {row.program for row in ROWS}


@EACH
def test_tests_that_are_named_exist(row: Row) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row.tests)
    assert named, f"{row.format} names no test"
    for file, name in named:
        source = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{file} has no {name}"
        marks = source[: source.index(f"def {name}(")].rpartition("\n\n\n")[2]
        assert ("\n@pytest.mark.slow\n" in f"\n{marks}") == ("(slow)" in row.tests)


@EACH
def test_versions_are_those_of_the_constraints(row: Row) -> None:
    """A dependency has the version that is pinned; a program marked * is none, and is of the version that is installed, if it is."""
    if row.program == NONE:
        assert row.version == NONE
        return
    name, is_outside = row.program.removesuffix(" *"), row.program.endswith(" *")
    assert re.fullmatch(r"\d+(\.\w+)+", row.version)
    if not is_outside:
        assert pinned()[name] == row.version
        return
    assert name.lower() not in pinned()
    try:
        installed = version(name)
    except PackageNotFoundError:
        return  # not here, or no Python package
    assert installed == row.version


def test_every_extra_and_every_layout_has_its_row() -> None:
    """What is added later has to be entered: export formats, import formats, layouts, and the packages of the extras that bring formats."""
    from iccld.data.layouts import LAYOUTS
    from iccld.export.names import SUFFIXES
    from iccld.predict.exchange import FORMATS

    text = PAGE.read_text(encoding="utf-8").lower()
    for name in (*SUFFIXES, *FORMATS, *(layout.format for layout in LAYOUTS)):
        assert name.lower().replace("labelstudio", "label studio").replace("_", " ") in text, f"{name} is not in docs/formats.md"
