"""metrics.jsonl: one line per log interval and per evaluation, consistent with the checkpoint after every resume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from iccld.files import write_atomically


class Stopwatch:
    """Seconds of training, on the wall and of the processor, on top of those of earlier starts; it runs from its making on.

    before: what it began with; the processor's are None where an earlier start did not count them.
    """

    def __init__(self, seconds: float = 0.0, processor_seconds: float | None = 0.0) -> None:
        self.before = seconds, processor_seconds
        self._started = time.monotonic(), time.process_time()

    @property
    def now(self) -> tuple[float, float | None]:
        """On the wall, and of all threads of this process."""
        wall, processor = self.before
        return wall + time.monotonic() - self._started[0], None if processor is None else processor + time.process_time() - self._started[1]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stand still meanwhile, whatever is raised."""
        began = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            now = time.monotonic(), time.process_time()
            self._started = self._started[0] + now[0] - began[0], self._started[1] + now[1] - began[1]


class Metrics:
    """Appends to a run's metrics.jsonl, line by line; on opening it drops the lines that training is about to write again."""

    def __init__(self, path: Path, stage: str, iteration: int = 0, evaluated: int | None = None) -> None:
        """Open for a stage that has `iteration` iterations behind it, the last of them evaluated at `evaluated`."""
        self.path = path
        self.stage = stage
        self._truncate(iteration, iteration if evaluated is None else evaluated)
        self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line; numbers that are not finite become null, which JSON readers understand."""
        self._file.write(json.dumps({"stage": self.stage, **_without_nan(dict(record))}, allow_nan=False) + "\n")

    def sync(self) -> None:
        """Force the lines to the disk; called before a checkpoint that counts on them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _truncate(self, iteration: int, evaluated: int) -> None:
        if not self.path.exists():
            return
        kept, dropped = [], False
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                record = json.loads(line)
                limit = evaluated if "eval" in record else iteration
                is_kept = line.endswith("\n") and (record["stage"] != self.stage or record["iteration"] <= limit)
            except (json.JSONDecodeError, KeyError, TypeError):
                is_kept = False  # cut short by a crash
            dropped |= not is_kept
            if is_kept:
                kept.append(line)
        if dropped:
            write_atomically(self.path, "".join(kept))


class RunningMeans:
    """Means of what `Method.step` returns since the last log line, kept on the device so that no step waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's values, each () or (K,); values that are not finite are left out of the mean."""
        for name, value in values.items():
            value = value.detach().float()
            is_finite = torch.isfinite(value)
            value = torch.where(is_finite, value, 0.0)
            if name in self._sums:
                self._sums[name] = self._sums[name] + value
                self._counts[name] = self._counts[name] + is_finite
            else:
                self._sums[name], self._counts[name] = value, is_finite.to(torch.int64)

    def means(self) -> dict[str, float | list[float]]:
        """The means so far as numbers or lists of them, NaN where nothing finite was seen; waits for the device."""
        return {name: (total / self._counts[name]).tolist() for name, total in self._sums.items()}

    def reset(self) -> None:
        """Start over."""
        self._sums, self._counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """The sums and counts."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take back what `state_dict` gave, onto the device."""
        self._sums = {name: tensor.to(device) for name, tensor in state["sums"].items()}
        self._counts = {name: tensor.to(device) for name, tensor in state["counts"].items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
