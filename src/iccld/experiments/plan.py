"""Which runs an experiment consists of, and how long they will take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from iccld import measure
from iccld.config import Config, dump_config, read_config
from iccld.errors import ConfigError
from iccld.experiments.state import State, first_difference
from iccld.experiments.units import Unit, is_finished
from iccld.experiments.variants import source_run, to_train
from iccld.machine import available_cores
from iccld.progress import duration, say

RUNS, SOURCES = "runs", "source"
"""Folders of an experiment: its runs, and the source stages that they share."""


@dataclass(frozen=True)
class Planned:
    """One run to be: its configuration, what it is called, and the kind of run whose estimate it shares with other seeds."""

    config: Config
    title: str
    kind: str
    needs: str | None = None
    """The unit of the shared source stage that it starts from."""

    @property
    def run(self) -> Path:
        """Its directory."""
        return Path(self.config.runtime.out) / self.config.name


def source_plan(config: Config, out: Path, title: str, kind: str) -> Planned:
    """The shared source stage of a configuration."""
    return Planned(source_run(config, out / SOURCES), title, kind)


def needs_of(source: Planned) -> str:
    """The unit's name of a shared source stage."""
    return f"source-{source.config.name}"


def with_seed(config: Config, seed: int) -> Config:
    """The same recipe from another origin of randomness."""
    return replace(config, seed=seed)


def units_of(planned: Sequence[Planned], state: State, estimates: bool, jobs: int) -> list[Unit]:
    """Units, with estimated seconds where asked for; an equal run that is planned twice (a shared source) becomes one.

    ConfigError where a finished run was trained with other settings of its method than are planned, as an earlier release did.
    """
    found: dict[Path, Unit] = {}
    for one in planned:
        if one.run in found:
            continue
        is_source = one.config.source_checkpoint is None
        stages = to_train(one.config)
        times = state.remembered("times", one.kind, partial(_estimate, one, jobs)) if estimates else None
        name = f"source-{one.config.name}" if is_source else one.config.name
        unit = Unit(name, one.title, one.run, dump_config(one.config), stages, one.needs)
        if is_finished(unit):
            _require_same_settings(one)
        found[one.run] = unit if times is None else replace(unit, **times)
    return list(found.values())


def _require_same_settings(planned: Planned) -> None:
    """The rest of the configuration is the experiment's, which `State` compares."""
    if not (planned.run / "config.yaml").is_file():
        return  # whoever reads the run's scores says what is wrong with it
    before, now = (json.loads(json.dumps(config.settings)) for config in (read_config(planned.run / "config.yaml"), planned.config))
    difference = first_difference(before, now, "settings")
    if difference is not None:
        raise ConfigError(
            f"{planned.run} was trained with another {difference}; remove that folder to train it again, or choose another --out"
        )


def say_plan(units: Sequence[Unit], jobs: int) -> None:
    """One line a run, then what is left to do, `jobs` runs at a time."""
    left: list[Unit] = []
    for unit in units:
        done = is_finished(unit)
        left += [] if done else [unit]
        seconds = "" if unit.seconds is None else f", about {duration(unit.seconds)}"
        stages = " + ".join(f"{name} {iterations}" for name, iterations in unit.stages.items())
        say(f"  {unit.title}: {stages} iterations{', finished' if done else seconds}")
    known = [unit.seconds for unit in left if unit.seconds is not None]
    total = f", about {duration(max(sum(known) / jobs, *known))} in all" if left and len(known) == len(left) else ""
    say(f"plan: {len(units)} runs, {len(left)} to train{f', {jobs} at a time' if jobs > 1 else ''}{total}")


def at_a_time(asked: int | None, config: Config) -> int:
    """How many runs train side by side: what was asked for, otherwise one a core for compact networks on a CPU, and one elsewhere.

    Small networks gain little from a second thread, and much from a second run beside them.
    """
    if asked is not None:
        return asked
    is_small = config.network.is_small
    is_cpu = config.runtime.device == "cpu" or (config.runtime.device == "auto" and not torch.cuda.is_available())
    return available_cores() if is_small and is_cpu else 1


def on_its_share(config: Config, jobs: int) -> Config:
    """The configuration as one of `jobs` at a time computes it: with its share of the cores, for timing."""
    if jobs == 1 or config.runtime.threads:
        return config
    return replace(config, runtime=replace(config.runtime, threads=max(1, available_cores() // jobs)))


def _estimate(planned: Planned, jobs: int) -> dict[str, float] | None:
    """seconds and scoring_seconds of a unit, or None where the run cannot even be timed: its failure is told when it is trained."""
    try:
        estimate = measure.estimate(on_its_share(planned.config, jobs))
        return {key: round(estimate[key], 1) for key in ("seconds", "scoring_seconds")}
    except Exception as error:  # a method that fails must not stop the others, whatever it raises
        say(f"warning: {planned.title} could not be timed ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
        return None
