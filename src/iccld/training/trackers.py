"""The lines of metrics.jsonl, shown in TensorBoard or Weights & Biases as they are written.  Neither is imported before it is used.

A tracker never ends a training: what it cannot do it says once, and is left alone from then on.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from iccld.errors import ConfigError
from iccld.files import read_json, write_json
from iccld.progress import say

LEFT_OUT = frozenset({"stage", "iteration", "warning", "scoring", "domains", "weights", "split"})
"""Keys of a record that are no figures."""
WANDB_FILE = "wandb.json"
"""Keeps the run's name there, so that a resumed training goes on with it."""


class Tracker(Protocol):
    """Takes figures by name at a step, counted over all stages."""

    def log(self, figures: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def require_trackers(names: Sequence[str]) -> None:
    """ConfigError in one line for a tracker whose package is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f"runtime.track {name} needs {name}: pip install 'iccld[{name}]', or leave it out")


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """A line of metrics.jsonl -> its figures, named `stage/loss/source`, `stage/lr`, `stage/val/ema/miou`, `stage/val/ema/iou/road`.

    Lists, texts, nulls and what is not finite are left out.
    """
    stage, evaluation = record["stage"], record.get("eval")
    if isinstance(evaluation, Mapping):
        prefix, content = f"{stage}/{evaluation.get('split', 'val')}/{evaluation.get('weights', 'ema')}", evaluation
    else:
        prefix, content = stage, {("loss" if key == "losses" else key): value for key, value in record.items()}
    return dict(_flat(content, prefix))


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if key in LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}/{key}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}/{key}", float(value)


class TensorBoard:
    """Event files in <run>/tensorboard: `tensorboard --logdir runs`.  What a crash had written beyond its checkpoint is hidden."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "tensorboard"
        self._writer: Any = None

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Scalars at a step; the first one opens the file."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run of the project `iccld` (WANDB_PROJECT), in <run>/wandb.

    Without WANDB_API_KEY or WANDB_MODE it stays offline, and no account is asked for.
    """

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        self.run, self.settings = run, settings
        self._run: Any = None

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Figures at a step; the first ones open the run, or go on with it."""
        if self._run is None:
            self._run = self._open()
        self._run.log({**figures, "step": step})

    def _open(self) -> Any:
        import wandb

        name = read_json(self.run / WANDB_FILE).get("id") or secrets.token_hex(4)
        write_json(self.run / WANDB_FILE, {"id": name})
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        opened = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "iccld"),
            name=self.run.name,
            id=name,
            dir=str(self.run),
            config=json.loads(json.dumps(self.settings)),
            mode=mode,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        opened.define_metric("*", step_metric="step")  # a resumed run may repeat steps
        return opened

    def close(self) -> None:
        """Send or write what is left."""
        if self._run is not None:
            self._run.finish()


class Trackers:
    """All trackers of a run; `record` takes the lines of metrics.jsonl."""

    def __init__(self, names: Sequence[str], run: Path, settings: Mapping[str, Any], iterations: Mapping[str, int]) -> None:
        """iterations: of each stage, in order; steps count over all of them."""
        made: dict[str, Tracker] = {}
        for name in names:
            made[name] = TensorBoard(run) if name == "tensorboard" else WeightsAndBiases(run, settings)
        self.trackers = made
        self.before = {stage: sum(list(iterations.values())[:position]) for position, stage in enumerate(iterations)}

    def record(self, record: Mapping[str, Any]) -> None:
        """Show one line."""
        figures = figures_of(record)
        step = self.before.get(record["stage"], 0) + record["iteration"]
        for name in list(self.trackers) if figures else ():
            try:
                self.trackers[name].log(figures, step)
            except Exception as error:  # a full disk, a lost network, a program of another version: training is worth more
                self._leave(name, error)

    def close(self) -> None:
        """Let every tracker finish."""
        for name, tracker in list(self.trackers.items()):
            try:
                tracker.close()
            except Exception as error:
                self._leave(name, error)

    def _leave(self, name: str, error: Exception) -> None:
        del self.trackers[name]
        say(f"warning: {name} is left out from here on: {' '.join(str(error).split()) or type(error).__name__}")
