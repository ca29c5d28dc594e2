"""Execute notebooks from start to end and keep their outputs in them, small: `python docs/notebooks/execute.py [FILE ...]`.

Each runs in an empty folder of its own.  Its outputs are what the site shows (docs/conf.py executes nothing).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
TIMEOUT = 900
"""Seconds that a cell may take; generous, since a busy machine is slow."""


def execute(notebook: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, executed in `folder`.  CellExecutionError where a cell fails."""
    content = nbformat.read(notebook, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(content, timeout=TIMEOUT, kernel_name="python3", resources=place, coalesce_streams=True).execute()
    for cell in content.cells:
        cell.metadata.clear()  # when it ran
        if cell.cell_type == "code":
            cell.outputs = [small(output) for output in cell.outputs if output.get("name") != "stderr"]
    return content


def small(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A picture as JPEG alone, a fifth of its PNG."""
    if "image/jpeg" in output.get("data", {}):
        output.data = {"image/jpeg": output.data["image/jpeg"]}
    return output


def main() -> None:
    for notebook in map(Path, sys.argv[1:] or sorted(FOLDER.glob("*.ipynb"))):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(notebook, Path(folder)), notebook)
        print(notebook)


if __name__ == "__main__":
    main()
