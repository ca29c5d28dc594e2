"""`iccld ablate | compare`: read the flags, hand them to `iccld.experiments`, print where the page lies."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from iccld.cli.runs import refuse_unwritable
from iccld.config import Config, load_config, require_data

if TYPE_CHECKING:
    from iccld.experiments.experiment import Finished, Options


def ablate(arguments: Namespace, overrides: list[str]) -> int:
    """Table 1."""
    config = _recipe(arguments, overrides)
    from iccld.experiments.ablate import ablate

    return _told(ablate(config, _options(arguments), arguments.networks.split(",")))


def compare(arguments: Namespace, overrides: list[str]) -> int:
    """Table 2."""
    config = _recipe(arguments, overrides)
    from iccld.experiments.compare import compare

    methods = None if arguments.methods == "all" else arguments.methods.split(",")
    return _told(compare(config, _options(arguments), methods, arguments.budget, arguments.budget_seconds, arguments.lend))


def _recipe(arguments: Namespace, overrides: Sequence[str]) -> Config:
    """The recipe with its overrides; what is wrong with it or with the folder is told before PyTorch is imported."""
    config = load_config(arguments.recipe or arguments.config, overrides)
    require_data(config)
    refuse_unwritable(arguments.out)
    return config


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
