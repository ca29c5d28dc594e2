"""Notebooks of docs/: committed with small outputs and no trace of a machine, and they run from start to end."""

from __future__ import annotations

import json
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 200_000
"""Bytes of a notebook with its outputs."""


def read(path: Path) -> Any:
    """The notebook as it lies there."""
    return json.loads(path.read_text(encoding="utf-8"))


def outputs(notebook: Any) -> str:
    """All text that its cells printed."""
    found = [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]
    return "".join("".join(output.get("text", "")) for output in found)


def test_notebooks_are_found() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["add-a-method", "first-adaptation"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_there_small_and_of_no_machine(path: Path) -> None:
    notebook = read(path)
    assert path.stat().st_size < LARGEST
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "run docs/notebooks/execute.py"
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds
    assert "% mIoU" in outputs(notebook)
    text = path.read_text(encoding="utf-8")
    assert not any(f'"/{place}/' in text or f" /{place}/" in text for place in ("home", "root", "tmp", "work", "Users"))


@pytest.mark.slow
@pytest.mark.skipif(any(find_spec(name) is None for name in ("nbclient", "nbformat", "ipykernel")), reason="needs the extra docs")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_start_to_end(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICCLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "work").mkdir()
    spec = spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    execute = module_from_spec(spec)
    spec.loader.exec_module(execute)
    done = execute.execute(path, tmp_path / "work")
    assert outputs(done).count("% mIoU") == outputs(read(path)).count("% mIoU")
    assert len(done.cells) == len(read(path)["cells"])
