"""What every experiment does: check, plan, train what is left, write the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iccld.config import Config, require_data
from iccld.doctor import require_matching_torchvision
from iccld.errors import ConfigError, IccldError
from iccld.experiments.document import Document, write_document
from iccld.experiments.page import require_jinja
from iccld.experiments.plan import Planned, say_plan, units_of
from iccld.experiments.runner import run_units
from iccld.experiments.state import State

READING = (
    "± is the sample standard deviation over seeds. A difference is paired: the same seeds on the same pictures; in brackets the 95 % "
    "interval over draws of pictures, with the seeds at hand. Where there are several seeds, the JSON and CSV files also hold the interval "
    "over draws of pictures and seeds; with two or three seeds it is coarse.",
    "An interval that holds 0 is no evidence of a difference. With many intervals, one in twenty misses by chance.",
    "Scores are of the last checkpoint, with the weights that the method declares. The best checkpoint was chosen on the pictures that "
    "score it, and stands beside it for orientation only.",
)
"""How to read any of the tables, a sentence or two each."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all experiments are asked for beside their recipe."""

    out: Path
    """Folder of runs and tables; a second call with the same one goes on."""
    seeds: Sequence[int] = (0, 1, 2)
    """Training seeds, each once."""
    block: int = 1
    """Neighbouring pictures that a draw of the intervals keeps together."""
    jobs: int | None = None
    """Runs at a time; None = one a core for compact networks on a CPU, otherwise one."""
    estimates: bool = True
    """Whether a few steps of each kind of run are timed for the plan."""
    plan_only: bool = False
    """Whether to stop when the plan is told."""


@dataclass(frozen=True)
class Finished:
    """page: where the tables can be read.  failures: the runs that failed, each with its reason."""

    page: Path
    failures: Mapping[str, str]

    def refuse_failures(self) -> None:
        """IccldError (exit code 1) when a run failed."""
        if self.failures:
            name, reason = next(iter(self.failures.items()))
            raise IccldError(
                f"{len(self.failures)} of the runs failed, first {name}: {reason}; the same command trains them again, and only them"
            )


def require_experiment(config: Config) -> None:
    """ConfigError, before anything is computed, where the recipe cannot be an experiment or a package that it takes is missing."""
    require_data(config)
    if config.target.truth:
        raise ConfigError(
            "target.truth gives training the target's labels, and no row of a table may see them: leave it out; iccld ablate --grid step2 "
            "has ceilings as rows of their own"
        )
    if not config.val.is_given:
        raise ConfigError("val.path is missing; an experiment scores its runs on labelled pictures of the target: add --val.path FOLDER")
    require_matching_torchvision()
    require_jinja()


def carry_out(
    planned: Sequence[Planned], state: State, options: Options, jobs: int, document: Callable[[Mapping[str, str]], Document]
) -> Finished | None:
    """Tell the plan, train what is left of it, write the document; None where the plan was all that was asked for.

    document: the names of failed runs with their reasons -> the tables.
    """
    units = units_of(planned, state, options.estimates, jobs)
    say_plan(units, jobs)
    if options.plan_only:
        return None
    state.save()
    failures = run_units(units, options.out, jobs=jobs)
    return Finished(write_document(document(failures), options.out)[-1], failures)
