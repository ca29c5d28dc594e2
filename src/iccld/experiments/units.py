"""What an experiment consists of: runs that are trained one by one, which of them are finished, and how long the others take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 1 << 16
"""How much of the end of metrics.jsonl is read for the position of a run."""


@dataclass(frozen=True)
class Unit:
    """One run of an experiment.

    name: unique, and a file name.  title: for people.  run: its directory.  config: its configuration as YAML.  stages: those it trains,
    with their iterations, in order.  needs: the unit whose source stage it starts from.  seconds: estimated, None where not
    estimated; scoring_seconds of them go into scores.
    """

    name: str
    title: str
    run: Path
    config: str
    stages: Mapping[str, int]
    needs: str | None = None
    seconds: float | None = None
    scoring_seconds: float = 0.0

    @property
    def iterations(self) -> int:
        """Training steps of all its stages."""
        return sum(self.stages.values())


def is_finished(unit: Unit) -> bool:
    """Whether every stage was trained to its end and scored; `iccld adapt` writes that last."""
    try:
        told = json.loads((unit.run / "summary.json").read_text(encoding="utf-8"))["stages"]
        return all(told[stage]["iterations"] == iterations for stage, iterations in unit.stages.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def share_done(unit: Unit) -> float:
    """Share of a unit's work that lies behind it, 0..1: its iterations, and once it is finished its scores."""
    if is_finished(unit):
        return 1.0
    scoring = unit.scoring_seconds / unit.seconds if unit.seconds else 0.0
    return (1 - scoring) * share_trained(unit)


def share_trained(unit: Unit) -> float:
    """Share of a unit's iterations that lie behind it, 0..1, read off the end of metrics.jsonl."""
    before = 0
    stage, iteration = _position(unit.run / "metrics.jsonl")
    for name, iterations in unit.stages.items():
        if name == stage:
            return (before + min(iteration, iterations)) / max(unit.iterations, 1)
        before += iterations
    return 0.0


def _position(metrics: Path) -> tuple[str, int]:
    """Stage and iteration of the last whole line; ("", 0) where there is none."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return "", 0
    for line in reversed(lines):
        try:
            record = json.loads(line)
            return str(record["stage"]), int(record["iteration"])
        except (ValueError, KeyError, TypeError):
            continue
    return "", 0


def costs(units: Sequence[Unit]) -> dict[str, float]:
    """Each unit's part of the work: estimated seconds, or iterations where not all were estimated."""
    if any(unit.seconds is None for unit in units):
        return {unit.name: float(unit.iterations) for unit in units}
    return {unit.name: unit.seconds or 0.0 for unit in units}


def seconds_left(cost: Mapping[str, float], at_start: Mapping[str, float], now: Mapping[str, float], elapsed: float) -> float | None:
    """Seconds until all units are done, if the rest goes on as what was done since the start; None before anything was.

    cost: of each unit, in any unit of work.  at_start, now: shares of them done, 0..1.  elapsed: seconds since the start.
    """
    done = sum(cost[name] * (now[name] - at_start[name]) for name in cost)
    left = sum(cost[name] * (1 - now[name]) for name in cost)
    return elapsed * left / done if done > 0 else None
