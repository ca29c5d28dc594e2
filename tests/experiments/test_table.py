"""Tables as values: numbers by hand, and the same figures in every format."""

from __future__ import annotations

import csv
import io
import math

import pytest

from iccld.experiments.table import (
    Column,
    Gain,
    Row,
    Spread,
    Table,
    as_csv,
    as_json,
    as_latex,
    as_markdown,
    best_rows,
    cell_text,
    is_best,
    spread,
    text_of,
)

MIOU = Column("miou", "mIoU %", best="highest")
GAIN = Column("gain", "Δ a_b")
SECONDS = Column("seconds", "seconds", 0, best="lowest")
ROWS = (
    Row("a", "A & B", {"miou": Spread(16.4, 0.25, 3), "gain": None, "seconds": 1234.4}, group="first half"),
    Row("b", "B", {"miou": Spread(16.42, None, 1), "gain": Gain(-1.5, 0.5, -2.25, -0.75, -3.0, 0.5, 2), "seconds": 20.0}, group="second"),
    Row("c", "C", {"miou": 99.0, "seconds": 1.0}, "reported", "second"),
    Row("d", "D", {"miou": "failed"}, "missing", "second", "out of memory"),
)
TABLE = Table("Scores", (MIOU, GAIN, SECONDS), ROWS, "method", ("A note.",))


def test_spread_is_mean_and_sample_deviation() -> None:
    assert spread([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(math.sqrt(7.0)), 3)  # deviations -2, -1, 3: 14 / 2
    assert spread([2.5, None]) == Spread(2.5, None, 1)
    assert spread([None]) is None


def test_a_difference_shows_the_interval_that_its_column_asks_for() -> None:
    wider, alone = Column("gain", "Δ a_b", over="seeds"), Row("e", "E", {"gain": Gain(1.0, None, 0.5, 1.5, None, None, 1)})
    assert cell_text(ROWS[1], GAIN) == "−1.5 ± 0.5 [−2.2, −0.8]"
    assert cell_text(ROWS[1], wider) == "−1.5 ± 0.5 [−3.0, 0.5]"
    assert cell_text(alone, wider) == "–"  # one seed cannot be drawn from


def test_a_ceiling_is_marked_and_never_the_best() -> None:
    ceiling = Row("f", "F", {"miou": 99.0}, "ceiling")
    assert best_rows((*ROWS, ceiling), MIOU) == best_rows(ROWS, MIOU)
    assert "| F (ceiling) | 99.0 |" in as_markdown(Table("t", (MIOU,), (ceiling,)))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (None, 1, "–"),
        ("n/a", 1, "n/a"),
        (12345, 1, "12,345"),
        (1234.56, 1, "1,234.6"),
        (Spread(16.44, 0.26, 2), 1, "16.4 ± 0.3"),
        (Spread(16.44, None, 1), 1, "16.4"),
        (Gain(1.66, 0.2, 0.9, 2.44, None, None, 2), 1, "+1.7 ± 0.2 [0.9, 2.4]"),
        (Gain(-0.04, None, -0.04, 0.04, None, None, 1), 1, "+0.0 [0.0, 0.0]"),
        (Gain(-1.5, None, -2.25, 0.5, None, None, 1), 2, "−1.50 [−2.25, 0.50]"),
    ],
)
def test_cells_as_text(value: object, digits: int, text: str) -> None:
    assert text_of(value, digits) == text  # type: ignore[arg-type]


def test_best_are_the_measured_rows_that_look_equal() -> None:
    worse = Row("w", "W", {"miou": 3.0})
    assert best_rows([*ROWS, worse], MIOU) == {0, 1}  # 16.40 and 16.42 are both shown as 16.4; 99 is reported, not measured
    assert best_rows(ROWS, SECONDS) == {1}
    assert best_rows(ROWS, GAIN) == set()
    assert best_rows(ROWS[:2], MIOU) == set()  # no two different ones
    assert best_rows(ROWS[:1], MIOU) == set()  # alone there is nothing to be better than
    assert is_best(TABLE) == {(1, "seconds")}


def test_markdown() -> None:
    assert as_markdown(TABLE).splitlines() == [
        "| method | mIoU % | Δ a_b | seconds |",
        "|---|---:|---:|---:|",
        "| **first half** | | | |",
        "| A & B | 16.4 ± 0.2 | – | 1,234 |",
        "| **second** | | | |",
        "| B | 16.4 | −1.5 ± 0.5 [−2.2, −0.8] | **20** |",
        "| C (reported) | 99.0 | – | 1 |",
        "| D | failed | – | – |",
        "",
        "D: out of memory",
        "",
        "A note.",
    ]


def test_csv_holds_every_row_once_with_unrounded_parts() -> None:
    other = Table("Cost", (MIOU, Column("extra", "x")), ROWS)
    lines = list(csv.DictReader(io.StringIO(as_csv([TABLE, other]))))
    assert [line["row"] for line in lines] == ["a", "b", "c", "d"]
    assert (lines[0]["miou"], lines[0]["miou_std"], lines[1]["miou_std"], lines[3]["miou"]) == ("16.4", "0.25", "", "failed")
    gain = {key: lines[1][key] for key in lines[1] if key.startswith("gain")}
    assert gain == {
        "gain": "-1.5",
        "gain_std": "0.5",
        "gain_low": "-2.25",
        "gain_high": "-0.75",
        "gain_seeds_low": "-3.0",
        "gain_seeds_high": "0.5",
    }
    assert (lines[2]["kind"], lines[3]["note"], lines[0]["extra"]) == ("reported", "out of memory", "")


def test_json_holds_plain_values() -> None:
    rows = as_json([TABLE])
    assert rows[0]["cells"]["miou"] == {"mean": 16.4, "std": 0.25, "count": 3}
    assert rows[1]["cells"]["gain"]["seeds_high"] == 0.5
    assert (rows[3]["kind"], rows[3]["note"], rows[3]["cells"]["gain"]) == ("missing", "out of memory", None)


def test_latex_escapes_and_prints_bold() -> None:
    lines = as_latex(TABLE).splitlines()
    assert "A \\& B & 16.4 $\\pm$ 0.2 & -- & 1,234 \\\\" in lines
    assert "B & 16.4 & $-$1.5 $\\pm$ 0.5 [$-$2.2, $-$0.8] & \\textbf{20} \\\\" in lines
    assert "method & mIoU \\% & $\\Delta$ a\\_b & seconds \\\\" in lines
    assert "\\multicolumn{4}{l}{\\textbf{second}} \\\\" in lines
