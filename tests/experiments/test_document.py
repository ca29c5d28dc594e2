"""The five files of a table and the grid of pictures: whole, self-contained, without a date."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.experiments.document import Document, write_document
from iccld.experiments.figures import Shown, write_grid
from iccld.experiments.page import Figure
from iccld.experiments.table import Column, Row, Spread, Table
from iccld.report.gallery import palette_image

COLUMNS = (Column("miou", "mIoU %", best="highest"), Column("reported_gta5", "reported GTA5"))
ROWS = (
    Row("a", "<b>A</b>", {"miou": Spread(12.34, 0.5, 2), "reported_gta5": 70.0}),
    Row("b", "B", {"miou": Spread(11.0, 0.5, 2)}),
    Row("q", "Q", {"miou": 99.0}, "reported"),
)


def kept_pictures(run: Path, stage: str, colour: int) -> Path:
    """A run with one picture of 20 x 40 and one mask of it."""
    folder = run / "pictures"
    folder.mkdir(parents=True)
    (run / "config.yaml").write_text("recipe: r\n")
    palette = [[10, 20, 30], [200, 100, 50]]
    Image.new("RGB", (40, 20), (90, 90, 90)).save(folder / "0_image.jpg")
    palette_image(np.zeros((20, 40), dtype=np.uint8), palette).save(folder / "0_truth.png")
    palette_image(np.full((20, 40), colour, dtype=np.uint8), palette).save(folder / f"0_{stage}.png")
    space = {"names": ["road", "sky"], "palette": palette}
    (folder / "index.json").write_text(json.dumps({"names": ["x"], "stages": [stage], "label_space": space}))
    return run


@pytest.fixture
def written(tmp_path: Path) -> Path:
    columns = [
        Shown("with connection", kept_pictures(tmp_path / "r", "step1", 1), "step1"),
        Shown("absent", tmp_path / "none", "step1"),
    ]
    grid = write_grid(tmp_path / "figures" / "figure4.png", columns, width=40)
    assert grid is not None
    facts = {"commit": "c0ffee", "protocol": {"num_images": 3}, "seeds": [0, 1]}
    tables = [Table("Scores", COLUMNS, ROWS, "method", ("A table's note.",))]
    figure = Figure(grid, "Figure 4", "Picture and truth")
    paths = write_document(Document("table1", "A & B", ["What was done."], tables, facts, ["How to read."], [figure]), tmp_path)
    assert [path.name for path in paths] == ["table1.json", "table1.csv", "table1.md", "table1.tex", "table1.html"]
    return tmp_path


def test_all_formats_hold_the_figures(written: Path) -> None:
    for ending in ("csv", "md", "tex", "html"):
        assert "12.3" in (written / f"table1.{ending}").read_text(encoding="utf-8"), ending
    told = json.loads((written / "table1.json").read_text(encoding="utf-8"))
    assert (told["commit"], told["seeds"], told["rows"][0]["cells"]["miou"]["mean"]) == ("c0ffee", [0, 1], 12.34)


def test_writing_again_changes_no_byte(written: Path, tmp_path: Path) -> None:
    tables = [Table("Scores", COLUMNS, ROWS, "method")]
    document = Document("again", "T", [], tables, {}, [])
    first = [path.read_bytes() for path in write_document(document, tmp_path)]
    assert first == [path.read_bytes() for path in write_document(document, tmp_path)]


def test_page_is_escaped_marked_and_needs_nothing_else(written: Path) -> None:
    page = (written / "table1.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;A&lt;/b&gt;" in page
    assert re.search(r'<td class="num best">12.3 ± 0.5</td>', page)
    assert "Q (reported)" in page
    assert '<th scope="col" class="num quoted">reported GTA5</th>' in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert [link[:22] for link in links] == ["data:image/png;base64,"]
    assert "@import" not in page
    assert "http" not in page


def test_grid_shows_picture_truth_and_predictions(written: Path) -> None:
    sheet = np.asarray(Image.open(written / "figures" / "figure4.png").convert("RGB"))
    columns = [sheet[:, 6 + i * 46 + 20] for i in range(3)]  # middles of picture, truth, prediction; the absent run has no column
    assert any((abs(column.astype(int) - 90) < 6).all(axis=1).sum() >= 15 for column in columns[:1])
    assert (columns[1] == (10, 20, 30)).all(axis=1).sum() >= 20
    assert (columns[2] == (200, 100, 50)).all(axis=1).sum() >= 20


def test_grid_of_runs_without_pictures_is_none(tmp_path: Path) -> None:
    assert write_grid(tmp_path / "x.png", [Shown("a", tmp_path, "step1")]) is None
    assert not (tmp_path / "x.png").exists()
