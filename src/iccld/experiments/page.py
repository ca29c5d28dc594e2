"""An experiment's tables and figures on one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from iccld.errors import ConfigError
from iccld.experiments.table import Table, cell_text, grouped, is_best, row_title


@dataclass(frozen=True)
class Figure:
    """A picture on the disk with its caption."""

    path: Path
    title: str
    caption: str


def require_jinja() -> Any:
    """jinja2, or a ConfigError that says how to get it: asked for before hours are spent on training."""
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("the tables' page needs jinja2: pip install 'iccld[report]'") from error
    return jinja2


def render(
    title: str, lead: Sequence[str], tables: Sequence[Table], facts: Mapping[str, str], notes: Sequence[str], figures: Sequence[Figure]
) -> str:
    """The page as text.  Every value is escaped; pictures are inlined."""
    jinja2 = require_jinja()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style = resources.files("iccld.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    page = resources.files("iccld.experiments").joinpath("templates", "tables.html.j2").read_text(encoding="utf-8")
    text: str = environment.from_string(page).render(
        style=style,
        title=title,
        lead=lead,
        tables=[_laid_out(table) for table in tables],
        facts=facts,
        notes=notes,
        figures=[(figure, _inline(figure.path)) for figure in figures],
    )
    return text


def _laid_out(table: Table) -> dict[str, Any]:
    """A table as texts and marks: the template only writes them down."""
    bold = is_best(table)
    groups = []
    for group, positions in grouped(table.rows):
        rows = []
        for i in positions:
            row = table.rows[i]
            cells = [(cell_text(row, column), (i, column.key) in bold) for column in table.columns]
            rows.append({"title": row_title(row), "kind": row.kind, "cells": cells, "note": row.note})
        groups.append({"title": group, "rows": rows})
    columns = [(column.title, column.key.startswith("reported")) for column in table.columns]
    return {"title": table.title, "first": table.first, "columns": columns, "groups": groups, "notes": table.notes}


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
