"""What the study prints: one JSON object a line."""

from __future__ import annotations

import json
from typing import Any


def tell(what: str, **figures: Any) -> None:
    """One JSON line, numbers rounded."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4)
        return [short(each) for each in value] if isinstance(value, list) else value

    print(json.dumps({"what": what} | {key: short(value) for key, value in figures.items()}), flush=True)
