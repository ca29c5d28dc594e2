"""Tables on disk: one JSON, CSV, Markdown, LaTeX and HTML file each, the same figures in all of them and no date in any."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iccld.experiments.page import Figure, render
from iccld.experiments.table import Table, as_csv, as_json, as_latex, as_markdown
from iccld.files import write_atomically


@dataclass(frozen=True)
class Document:
    """name: of the files.  lead: what was done, in sentences.  facts: where the figures come from.  notes: how to read them."""

    name: str
    title: str
    lead: Sequence[str]
    tables: Sequence[Table]
    facts: Mapping[str, Any]
    notes: Sequence[str]
    figures: Sequence[Figure] = ()


def write_document(document: Document, out: Path) -> list[Path]:
    """Write all formats into a folder; returns the paths, the page last."""
    told = {"title": document.title, **document.facts, "rows": as_json(document.tables), "notes": list(document.notes)}
    heading = "\n\n".join([f"# {document.title}", *document.lead])
    facts = "\n".join(f"- {key}: {fact_text(value)}" for key, value in document.facts.items())
    notes = "\n".join(f"- {note}" for note in document.notes)
    sections = "\n".join(f"## {table.title}\n\n{as_markdown(table)}" for table in document.tables)
    pictures = "\n".join(f"![{figure.title}](figures/{figure.path.name})\n" for figure in document.figures)
    latex = "\n".join(as_latex(table) for table in document.tables)
    contents = {
        "json": json.dumps(told, indent=2, ensure_ascii=False) + "\n",
        "csv": as_csv(document.tables),
        "md": f"{heading}\n\n{sections}\n{pictures}\n## How to read it\n\n{notes}\n\n## Where it comes from\n\n{facts}\n",
        "tex": f"% {document.title}\n{latex}",
        "html": render(document.title, document.lead, document.tables, _flat(document.facts), document.notes, document.figures),
    }
    return [_write(out / f"{document.name}.{ending}", text) for ending, text in contents.items()]


def fact_text(value: Any) -> str:
    """A fact on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {fact_text(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(fact_text(part) for part in value)
    return str(value)


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    return {key: fact_text(value) for key, value in facts.items()}


def _write(path: Path, text: str) -> Path:
    write_atomically(path, text)
    return path
