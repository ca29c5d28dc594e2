"""What an experiment remembers between calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from iccld.config import Config, comparable
from iccld.errors import ConfigError
from iccld.files import read_json, write_json

FREE = ("recipe", "name", "seed", "runtime", "source_checkpoint")
"""Settings in which two calls for one folder may differ."""


class State:
    """OUT/<command>.json: the experiment's settings, the estimates, and the iterations that a budget in seconds was turned into."""

    def __init__(self, out: Path, command: str, config: Config, more: Mapping[str, Any]) -> None:
        """ConfigError when the folder holds the experiment with other settings.  more: settings of the command's own."""
        self.path = out / f"{command}.json"
        kept = comparable(config)
        for name in FREE:
            kept.pop(name)
        settings = json.loads(json.dumps({**kept, **more}))
        self.values = read_json(self.path) or {"settings": settings}
        difference = first_difference(self.values["settings"], settings)
        if difference is not None:
            raise ConfigError(f"{out} holds this experiment with another {difference}; choose another --out, or the same settings")

    def save(self) -> None:
        """Write it, whole or not at all."""
        write_json(self.path, self.values)

    def remembered(self, group: str, key: str, make: Callable[[], Any]) -> Any:
        """The value of an earlier call, or a new one, kept at once."""
        known = self.values.setdefault(group, {})
        if key not in known:
            known[key] = make()
            self.save()
        return known[key]


def first_difference(before: Any, now: Any, key: str = "") -> str | None:
    """`stages.step1.iterations: 300 there, 200 now`; None where both are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            found = first_difference(before.get(name), now.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    return None if before == now else f"{key}: {before} there, {now} now"
