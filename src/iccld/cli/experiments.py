"""`iccld ablate | compare`: read the flags, hand them to `iccld.experiments`, print where the page lies."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iccld.adapting import refuse_unusable, refuse_unwritable
from iccld.assembly.shapes import with_target_shape
from iccld.config import Config, load_config
from iccld.errors import ConfigError
from iccld.methods import find_method

if TYPE_CHECKING:
    from iccld.experiments.experiment import Finished, Options


def ablate(arguments: Namespace, overrides: list[str]) -> int:
    """Table 1, or the grid of what may follow step 1."""
    given = {flag: value for flag in ("rows", "row", "iterations", "from") if (value := getattr(arguments, flag))}
    if arguments.grid is None and given:
        raise ConfigError(f"--{next(iter(given))} goes with --grid step2")
    if arguments.grid is not None:
        return _grid(arguments, overrides)
    config = _recipe(arguments, overrides)
    from iccld.experiments.ablate import ablate

    return _told(ablate(config, _options(arguments), (arguments.networks or "without,matched,with").split(",")))


def _grid(arguments: Namespace, overrides: list[str]) -> int:
    from iccld.experiments.formulations import chosen_rows

    rows = chosen_rows(arguments.rows, arguments.row or ())
    config = _recipe(arguments, overrides)
    from iccld.experiments.grid import ITERATIONS, Asked, grid

    asked = Asked(
        rows=rows,
        networks=(arguments.networks or "with").split(","),
        iterations=arguments.iterations or ITERATIONS,
        starts=[Path(run) for run in getattr(arguments, "from") or ()],
    )
    return _told(grid(config, _options(arguments), asked))


def compare(arguments: Namespace, overrides: list[str]) -> int:
    """Table 2."""
    config = _recipe(arguments, overrides)
    methods = None if arguments.methods == "all" else arguments.methods.split(",")
    for name in methods or ():
        find_method(name)
    from iccld.experiments.compare import compare

    return _told(compare(config, _options(arguments), methods, arguments.budget, arguments.budget_seconds, arguments.lend))


def _recipe(arguments: Namespace, overrides: Sequence[str]) -> Config:
    """The recipe with its overrides; what is wrong with it or with the folder is told before PyTorch is imported."""
    config = load_config(arguments.recipe or arguments.config, overrides)
    refuse_unusable(config)
    refuse_unwritable(arguments.out)
    return with_target_shape(config)


def _options(arguments: Namespace) -> Options:
    from iccld.experiments.experiment import Options

    return Options(
        out=arguments.out,
        seeds=arguments.seeds,
        block=arguments.block,
        jobs=arguments.jobs,
        estimates=not arguments.no_estimate,
        plan_only=arguments.plan,
    )


def _told(finished: Finished | None) -> int:
    if finished is not None:
        print(finished.page)
        finished.refuse_failures()
    return 0
