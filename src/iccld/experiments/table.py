"""Tables as values: rows and columns in, JSON, Markdown, CSV and LaTeX out.  Pure: no files, no runs.

A figure is written as text in one place (`text_of`), so that all formats say the same; the best of a column is bold in all of them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Kind = Literal["measured", "reported", "missing", "ceiling"]
NOTHING = "–"


@dataclass(frozen=True)
class Spread:
    """Mean over seeds.  std: sample standard deviation (n - 1), None for one seed."""

    mean: float
    std: float | None
    count: int


@dataclass(frozen=True)
class Gain:
    """A paired difference: mean over seeds with its interval over pictures, and over pictures and seeds where there are several."""

    mean: float
    std: float | None
    low: float
    high: float
    seeds_low: float | None
    seeds_high: float | None
    count: int


Value = None | str | int | float | Spread | Gain


@dataclass(frozen=True)
class Column:
    """key: in JSON and CSV.  title: for people.  digits: after the point.  best: which figure is bold."""

    key: str
    title: str
    digits: int = 1
    best: Literal["highest", "lowest"] | None = None
    has_std: bool = True
    """Whether people see the deviation of a spread; JSON and CSV always hold it."""
    over: Literal["pictures", "seeds"] = "pictures"
    """Which interval of a difference people see, over draws of pictures or of pictures and seeds; JSON and CSV hold both."""


@dataclass(frozen=True)
class Row:
    """kind: `measured` here, `reported` by a paper, `missing` (failed, n/a), or a `ceiling`, no rival.  group: rows of one heading."""

    key: str
    title: str
    cells: Mapping[str, Value]
    kind: Kind = "measured"
    group: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Columns of rows.  Several tables may show different columns of the same rows."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    first: str = ""
    """Heading of the rows' titles."""
    notes: Sequence[str] = field(default_factory=tuple)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and sample standard deviation of the values that there are; None without any."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return Spread(mean, None, 1)
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1)), len(known))


def figure_of(value: Value) -> float | None:
    """The number that a cell is compared by, None for text and nothing."""
    if isinstance(value, Spread | Gain):
        return value.mean
    return None if value is None or isinstance(value, str) else float(value)


def text_of(value: Value, digits: int = 1) -> str:
    """A cell as people read it: `16.4 ± 0.3`, `+1.7 ± 0.2 [0.9, 2.4]`, `1,234`, or a dash."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if isinstance(value, Spread):
        return _number(value.mean, digits) + ("" if value.std is None else f" ± {_number(value.std, digits)}")
    if isinstance(value, Gain):
        std = "" if value.std is None else f" ± {_number(value.std, digits)}"
        sign = "+" if value.mean >= 0 or _number(value.mean, digits) == _number(0.0, digits) else ""
        return f"{sign}{_number(value.mean, digits)}{std} [{_number(value.low, digits)}, {_number(value.high, digits)}]"
    return _number(value, digits)


def cell_text(row: Row, column: Column) -> str:
    """What a row says in a column."""
    value = row.cells.get(column.key)
    if isinstance(value, Gain) and column.over == "seeds":
        if value.seeds_low is None or value.seeds_high is None:
            return NOTHING
        value = replace(value, low=value.seeds_low, high=value.seeds_high)
    return text_of(value.mean if isinstance(value, Spread) and not column.has_std else value, column.digits)


def _number(value: float, digits: int) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    rounded = round(value, digits) + 0.0  # no minus before a nought
    return f"{rounded:,.{digits}f}".replace("-", "−")


def best_rows(rows: Sequence[Row], column: Column) -> set[int]:
    """Positions of the measured rows with the column's best figure, as it is shown: equal texts are all best."""
    if column.best is None:
        return set()
    figures = {i: figure_of(row.cells.get(column.key)) for i, row in enumerate(rows) if row.kind == "measured"}
    found = {i: figure for i, figure in figures.items() if figure is not None}
    if len({round(figure, column.digits) for figure in found.values()}) < 2:
        return set()  # nothing to tell apart
    best = (max if column.best == "highest" else min)(found.values())
    return {i for i, figure in found.items() if round(figure, column.digits) == round(best, column.digits)}


def is_best(table: Table) -> set[tuple[int, str]]:
    """(row position, column key) of every bold cell."""
    return {(i, column.key) for column in table.columns for i in best_rows(table.rows, column)}


def grouped(rows: Sequence[Row]) -> list[tuple[str, list[int]]]:
    """Headings with the positions of their rows, in order of appearance."""
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.group, []).append(i)
    return list(groups.items())


def row_title(row: Row) -> str:
    """The title with its mark: reported figures never look measured, nor a ceiling like a method."""
    return f"{row.title} ({row.kind})" if row.kind in ("reported", "ceiling") else row.title


# --- formats -------------------------------------------------------------------------------------------------------------


def as_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Plain values: every row once, with the cells of all tables that show it, unrounded."""
    found = []
    for row in _rows_of(tables):
        cells = {key: asdict(value) if isinstance(value, Spread | Gain) else value for key, value in row.cells.items()}
        head = {"row": row.key, "title": row.title, "group": row.group, "kind": row.kind, "note": row.note}
        found.append({**head, "cells": {key: cells.get(key) for key in _columns_of(tables, row)}})
    return found


def as_markdown(table: Table) -> str:
    """A pipe table; the headings of groups are bold lines of their own."""
    bold = is_best(table)
    lines = [
        "| " + " | ".join(_pipe(word) for word in (table.first, *(column.title for column in table.columns))) + " |",
        "|---|" + "---:|" * len(table.columns),
    ]
    for group, positions in grouped(table.rows):
        if group:
            lines.append(f"| **{_pipe(group)}** |" + " |" * len(table.columns))
        for i in positions:
            row = table.rows[i]
            texts = [cell_text(row, column) for column in table.columns]
            cells = [f"**{text}**" if (i, column.key) in bold else text for text, column in zip(texts, table.columns, strict=True)]
            lines.append("| " + " | ".join(_pipe(word) for word in (row_title(row), *cells)) + " |")
    notes = "".join(f"\n{note}\n" for note in [*_row_notes(table), *table.notes])
    return "\n".join(lines) + "\n" + notes


def as_csv(tables: Sequence[Table]) -> str:
    """Every row once, with the columns of all tables; a spread fills two columns, a difference six.  Numbers are unrounded."""
    rows = _rows_of(tables)
    columns = list(dict.fromkeys(column.key for table in tables for column in table.columns))
    parts = {key: _parts(key, [row.cells.get(key) for row in rows]) for key in columns}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["group", "row", "kind", *(name for key in columns for name in parts[key]), "note"])
    for row in rows:
        values = [part for key in columns for part in _values(key, row.cells.get(key), parts[key])]
        writer.writerow([row.group, row.key, row.kind, *values, row.note])
    return stream.getvalue()


def as_latex(table: Table) -> str:
    """A booktabs tabular."""
    bold = is_best(table)
    lines = [
        f"% {table.title}; needs \\usepackage{{booktabs}}",
        "\\begin{tabular}{l" + "r" * len(table.columns) + "}",
        "\\toprule",
        " & ".join(_tex(word) for word in (table.first, *(column.title for column in table.columns))) + " \\\\",
        "\\midrule",
    ]
    for group, positions in grouped(table.rows):
        if group:
            lines.append(f"\\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\\textbf{{{_tex(group)}}}}} \\\\")
        for i in positions:
            row = table.rows[i]
            texts = [(_tex(cell_text(row, column)), (i, column.key) in bold) for column in table.columns]
            cells = [f"\\textbf{{{text}}}" if is_bold else text for text, is_bold in texts]
            lines.append(" & ".join([_tex(row_title(row)), *cells]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _rows_of(tables: Sequence[Table]) -> list[Row]:
    """Each row once; two rows are the same when they are one object."""
    return list({id(row): row for table in tables for row in table.rows}.values())


def _columns_of(tables: Sequence[Table], row: Row) -> list[str]:
    return list(dict.fromkeys(column.key for table in tables if any(row is other for other in table.rows) for column in table.columns))


def _row_notes(table: Table) -> list[str]:
    return [f"{row_title(row)}: {row.note}" for row in table.rows if row.note]


def _parts(key: str, values: Sequence[Value]) -> list[str]:
    """Names of the CSV columns that one column needs."""
    if any(isinstance(value, Gain) for value in values):
        return [f"{key}{part}" for part in ("", "_std", "_low", "_high", "_seeds_low", "_seeds_high")]
    return [key, f"{key}_std"] if any(isinstance(value, Spread) for value in values) else [key]


def _values(key: str, value: Value, parts: Sequence[str]) -> list[str]:
    fields: Mapping[str, Any] = {**asdict(value), "": value.mean} if isinstance(value, Spread | Gain) else {"": value}
    found = [fields.get(part.removeprefix(key).removeprefix("_")) for part in parts]
    return ["" if item is None else str(item) for item in found]


def _pipe(text: str) -> str:
    return text.replace("|", "\\|")


_TEX = {
    "\\": "\\textbackslash{}",
    "%": "\\%",
    "&": "\\&",
    "_": "\\_",
    "#": "\\#",
    "$": "\\$",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "−": "$-$",
    "–": "--",
    "→": "$\\rightarrow$",
    "Δ": "$\\Delta$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)
