"""`iccld demo | adapt | report`: train a run, tell its story."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from iccld.adapting import train, train_adapter
from iccld.assembly.shapes import with_target_shape
from iccld.cli.run_folder import refuse_other_than_run
from iccld.config import Config, config_parser, dump_config, load_config, recipe_names
from iccld.errors import CheckpointError, ConfigError
from iccld.runs.adapter_config import STAGE, adapter_config
from iccld.share.names import is_shared

FIRST_RECIPES = ("demo", "own_to_own", "gta5_to_cityscapes")
"""What a newcomer wants: to see it work, to use own pictures, to compare with the field."""


def demo(arguments: Namespace, overrides: list[str]) -> int:
    """Recipe `demo` into `--out`; a second call goes on, or finds the run finished and writes the report again."""
    out: Path = arguments.out
    if not out.name:
        raise ConfigError(f"--out {out} names no folder for the run; use for example runs/demo")
    own = ["--runtime.out", str(out.parent), "--name", out.name, "--runtime.resume", "auto"]
    config = load_config("demo", [*own, *overrides])
    return _train(config, arguments.print_config)


def adapt(arguments: Namespace, overrides: list[str]) -> int:
    """Train the run of a recipe or file."""
    if arguments.help_settings:
        print(config_parser().format_help())
        return 0
    if arguments.base is not None:
        return _adapt_from(arguments, overrides)
    alone = [flag for flag in ("adapter", "stages", "stage", "overwrite") if getattr(arguments, flag)]
    if alone:
        raise ConfigError(f"--{alone[0]} goes with --from RUN, which gets an adapter; add it, or leave --{alone[0]} out")
    if arguments.recipe is None and arguments.config is None:
        others = ", ".join(name for name in recipe_names() if name not in FIRST_RECIPES)
        raise ConfigError(
            f"name a recipe: --recipe {' or --recipe '.join(FIRST_RECIPES)} (own_to_own: your own pictures); also {others}; "
            "or a file: --config FILE"
        )
    own = ["--name", arguments.name] if arguments.name is not None else []
    own += ["--network.encoder", arguments.encoder] if arguments.encoder is not None else []
    own += ["--runtime.resume", arguments.resume] if arguments.resume is not None else []
    own += ["--runtime.track", arguments.track] if arguments.track is not None else []
    config = load_config(arguments.recipe or arguments.config, [*overrides, *own])
    return _train(config, arguments.print_config, estimates=not arguments.no_estimate)


def _adapt_from(arguments: Namespace, overrides: list[str]) -> int:
    """Train an adapter beside a run."""
    if arguments.adapter is None:
        raise ConfigError(f"name the adapter, and {arguments.base} gets it beside its weights: --adapter night")
    if arguments.stages not in (None, STAGE):
        raise ConfigError(f"--stages is {arguments.stages}; an adapter is trained by {STAGE}, all else of the run stays as it is")
    refused = [flag for flag in ("name", "encoder") if getattr(arguments, flag) is not None]
    if refused:
        raise ConfigError(f"--{refused[0]} belongs to a run of its own; with --from leave it out")
    refuse_other_than_run(arguments.base, arguments.stage)
    if is_shared(arguments.base):
        raise ConfigError(f"{arguments.base} is a shared model, which tells of no source; an adapter needs the run itself")
    own = ["--runtime.resume", arguments.resume] if arguments.resume is not None else []
    config = adapter_config(arguments.base, arguments.adapter, [*overrides, *own])
    if arguments.print_config:
        print(dump_config(config), end="")
        return 0
    print(train_adapter(arguments.base, config, arguments.stage, arguments.overwrite))
    return 0


def report(arguments: Namespace, _: list[str]) -> int:
    """Write report.html of a run, finished or not; with --watch again and again until it is finished."""
    if not arguments.run.is_dir():
        raise CheckpointError(f"{arguments.run} is no folder; name a run such as runs/demo")
    if arguments.watch:
        from iccld.report.watch import watch

        return watch(arguments.run, arguments.every)
    from iccld.report import write_report

    print(write_report(arguments.run))
    return 0


def _train(config: Config, print_config: bool, estimates: bool = True) -> int:
    if print_config:
        print(dump_config(with_target_shape(config)), end="")
        return 0
    print(train(config, estimates) / "report.html")
    return 0
