"""What several commands write: error lines of single files, JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def print_error(text: str) -> None:
    """One `error: …` line on stderr, for a file that does not stop the others."""
    print(f"error: {' '.join(text.split())}", file=sys.stderr)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON, whole or not at all; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
