"""What several commands write: error lines of single files."""

from __future__ import annotations

import sys


def print_error(text: str) -> None:
    """One `error: …` line on stderr, for a file that does not stop the others."""
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
