"""What `iccld ablate` and `iccld compare` share: the recipe, the plan with its time, the training, the document."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iccld.adapting import refuse_unusable, refuse_unwritable
from iccld.cli.output import write_json
from iccld.cli.run_folder import read_json
from iccld.config import Config, comparable, dump_config, load_config
from iccld.errors import ConfigError, IccldError
from iccld.machine import available_cores
from iccld.progress import duration, say

if TYPE_CHECKING:
    from iccld.experiments import Unit
    from iccld.experiments.document import Document

RUNS, SOURCES = "runs", "source"
"""Folders of an experiment: its runs, and the source stages that they share."""

READING = (
    "± is the sample standard deviation over seeds. A difference is paired: the same seeds on the same pictures; in brackets the 95 % "
    "interval over draws of pictures, with the seeds at hand. Where there are several seeds, the JSON and CSV files also hold the interval "
    "over draws of pictures and seeds; with two or three seeds it is coarse.",
    "An interval that holds 0 is no evidence of a difference. With many intervals, one in twenty misses by chance.",
    "Scores are of the last checkpoint, with the weights that the method declares. The best checkpoint was chosen on the pictures that "
    "score it, and stands beside it for orientation only.",
)


@dataclass(frozen=True)
class Planned:
    """One run to be: its configuration, what it is called, and the kind of run whose estimate it shares with other seeds."""

    config: Config
    title: str
    kind: str
    needs: str | None = None

    @property
    def run(self) -> Path:
        """Its directory."""
        return Path(self.config.runtime.out) / self.config.name


def open_recipe(arguments: Namespace, overrides: Sequence[str]) -> Config:
    """The recipe with its overrides, checked for what an experiment needs before anything is computed."""
    config = load_config(arguments.recipe or arguments.config, overrides)
    refuse_unusable(config)
    if not config.val.is_given:
        raise ConfigError("val.path is missing; an experiment scores its runs on labelled pictures of the target: add --val.path FOLDER")
    refuse_unwritable(arguments.out)
    from iccld.doctor import require_matching_torchvision
    from iccld.experiments.page import require_jinja

    require_matching_torchvision()
    require_jinja()
    return config


def hold(out: Path) -> AbstractContextManager[None]:
    """One experiment at a time in a folder, so that two never train the same source stage."""
    from iccld.training.lock import lock_run

    return lock_run(out)


def source_plan(config: Config, out: Path, title: str, kind: str) -> Planned:
    """The shared source stage of a configuration."""
    from iccld.runs.variants import source_run

    return Planned(source_run(config, out / SOURCES), title, kind)


class State:
    """What an experiment remembers between calls, in OUT/<command>.json: its settings, estimates, and iterations fixed by time."""

    def __init__(self, out: Path, command: str, config: Config, more: Mapping[str, Any]) -> None:
        """ConfigError when the folder holds the experiment with other settings."""
        self.path = out / f"{command}.json"
        kept = comparable(config)
        for name in ("recipe", "name", "seed", "runtime", "source_checkpoint"):
            kept.pop(name)
        settings = json.loads(json.dumps({**kept, **more}))
        self.values = read_json(self.path) or {"settings": settings}
        difference = _first_difference(self.values["settings"], settings)
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


def units_of(planned: Sequence[Planned], state: State, no_estimate: bool, jobs: int) -> list[Unit]:
    """Units with estimated seconds; an equal run that is planned twice (a shared source) becomes one."""
    from iccld.experiments import Unit
    from iccld.runs.variants import after_source

    found: dict[Path, Unit] = {}
    for one in planned:
        is_source = one.config.source_checkpoint is None
        stages = {"source": one.config.stages["source"].iterations} if is_source else after_source(one.config)
        times = None if no_estimate else state.remembered("times", one.kind, partial(_estimate, one, jobs))
        name = f"source-{one.config.name}" if is_source else one.config.name
        unit = Unit(name, one.title, one.run, dump_config(one.config), stages, one.needs)
        found.setdefault(one.run, unit if times is None else replace(unit, **times))
    return list(found.values())


def needs_of(source: Planned) -> str:
    """The unit's name of a shared source stage."""
    return f"source-{source.config.name}"


def say_plan(units: Sequence[Unit], jobs: int) -> None:
    """One line a run, then what is left to do, `jobs` runs at a time."""
    from iccld.experiments.units import is_finished

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
    import torch

    is_small = config.network.preset == "compact" and not config.network.encoder
    is_cpu = config.runtime.device == "cpu" or (config.runtime.device == "auto" and not torch.cuda.is_available())
    return available_cores() if is_small and is_cpu else 1


def on_its_share(config: Config, jobs: int) -> Config:
    """The configuration as one of `jobs` at a time computes it: with its share of the cores, for timing."""
    if jobs == 1 or config.runtime.threads:
        return config
    return replace(config, runtime=replace(config.runtime, threads=max(1, available_cores() // jobs)))


def train(units: Sequence[Unit], out: Path, jobs: int) -> dict[str, str]:
    """Train what is left, `jobs` at a time; returns the units that failed with their reasons."""
    from iccld.experiments import run_units

    return run_units(units, out, jobs=jobs)


def finish(document: Document, out: Path, failures: Mapping[str, str]) -> int:
    """Write the tables and print where the page lies; IccldError (exit code 1) when a run failed."""
    from iccld.experiments.document import write_document

    print(write_document(document, out)[-1])
    if failures:
        name, reason = next(iter(failures.items()))
        raise IccldError(f"{len(failures)} of the runs failed, first {name}: {reason}; the same command trains them again, and only them")
    return 0


def _estimate(planned: Planned, jobs: int) -> dict[str, float] | None:
    """seconds and scoring_seconds of a unit, or None where the run cannot even be timed: its failure is told when it is trained."""
    from iccld import measure

    try:
        estimate = measure.estimate(on_its_share(planned.config, jobs))
        return {key: round(estimate[key], 1) for key in ("seconds", "scoring_seconds")}
    except Exception as error:  # a method that fails must not stop the others, whatever it raises
        say(f"warning: {planned.title} could not be timed ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
        return None


def _first_difference(before: Any, now: Any, key: str = "") -> str | None:
    """`stages.step1.iterations: 300 there, 200 now`; None where both are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in before.keys() | now.keys():
            found = _first_difference(before.get(name), now.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    return None if before == now else f"{key}: {before} there, {now} now"


def with_seed(config: Config, seed: int) -> Config:
    """The same recipe from another origin of randomness."""
    return replace(config, seed=seed)
