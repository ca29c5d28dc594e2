"""`iccld demo | adapt | report`: train a run, tell its story."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from iccld.assembly.chosen import check_method
from iccld.config import Config, config_parser, dump_config, load_config, recipe_names, require_data
from iccld.errors import CheckpointError, ConfigError
from iccld.labels import LabelSpace, get_label_space
from iccld.progress import duration, say

if TYPE_CHECKING:
    from iccld.data import Dataset
    from iccld.predictor import Predictor


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
    if arguments.recipe is None and arguments.config is None:
        raise ConfigError(f"name a recipe (--recipe {' or '.join(recipe_names())}) or a file (--config FILE)")
    own = ["--name", arguments.name] if arguments.name is not None else []
    own += ["--network.encoder", arguments.encoder] if arguments.encoder is not None else []
    own += ["--runtime.resume", arguments.resume] if arguments.resume is not None else []
    config = load_config(arguments.recipe or arguments.config, [*overrides, *own])
    return _train(config, arguments.print_config, estimates=not arguments.no_estimate)


def report(arguments: Namespace, _: list[str]) -> int:
    """Write report.html of a run, finished or not."""
    if not arguments.run.is_dir():
        raise CheckpointError(f"{arguments.run} is no folder; name a run such as runs/demo")
    from iccld.report import write_report

    print(write_report(arguments.run))
    return 0


def _train(config: Config, print_config: bool, estimates: bool = True) -> int:
    if print_config:
        print(dump_config(config), end="")
        return 0
    refuse_unusable(config)
    run = Path(config.runtime.out) / config.name
    if config.runtime.resume == "none" and run.is_dir() and any(run.iterdir()):
        raise ConfigError(f"run {run} exists; go on with --resume auto, or choose another --name")
    refuse_unwritable(run)
    from iccld.doctor import require_matching_torchvision

    require_matching_torchvision()
    from iccld import measure, runs

    if estimates and not any((run / "checkpoints").glob("*/*/manifest.json")):  # a resumed run was estimated when it began
        for line in memory_lines(config):
            say(line)
        say(_estimate_line(measure.estimate(config)))
    finished = runs.adapt(config, partial(save_stage_pictures, config.evaluation.num_pictures))
    from iccld.report import write_report

    page = write_report(finished)
    print(page)
    return 0


def refuse_unusable(config: Config) -> None:
    """Before PyTorch is imported, and before anything is drawn, timed or written: what the configuration names must be there."""
    check_method(config)
    require_data(config)
    space = get_label_space(config.label_space)
    from iccld.data import open_dataset

    for domain, labels in ((config.source, True), (config.target, False), (config.val, True)):
        if domain.path is not None:
            open_dataset(domain.path, domain.format, domain.split, space, domain.classes, labels=labels)
    if config.source_checkpoint is not None and not Path(config.source_checkpoint).is_dir():
        raise CheckpointError(
            f"{config.source_checkpoint} is no folder; source_checkpoint takes a run, or one checkpoint of its stage source"
        )


def save_stage_pictures(num_pictures: int, run: Path, stage: str, predictor: Predictor, shown: Dataset, space: LabelSpace) -> None:
    """Keep what a stage predicts on up to `num_pictures` pictures, spread evenly over the dataset, for the report."""
    from iccld.report.pictures import save_pictures

    count = min(num_pictures, len(shown))
    if count:
        save_pictures(run, stage, predictor, shown, space, [i * len(shown) // count for i in range(count)])


def refuse_unwritable(run: Path) -> None:
    """Before anything is computed: a run that cannot be written is refused (fault 11)."""
    import os

    folder = run
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write {run}: {folder} is not a writable folder; choose another --runtime.out")


def memory_lines(config: Config) -> list[str]:
    """Device memory by component and stage, before a step is tried; compact networks need too little to tell."""
    if config.network.preset == "compact" and not config.network.encoder:
        return []
    from iccld.measure import stage_memory, takes_bf16

    return [str(stage) for stage in stage_memory(config, takes_bf16(config))]


def _estimate_line(estimate: dict[str, float]) -> str:
    """`measure.estimate` -> one sentence; what it does not know is left out."""
    parts = []
    if "seconds" in estimate:
        parts.append(f"about {duration(estimate['seconds'])}")
    parts += [f"{estimate[key]:.1f} GiB {what}" for key, what in (("memory_gib", "of memory"), ("disk_gib", "on disk")) if key in estimate]
    return f"estimate: {', '.join(parts)}" if parts else "estimate: not available"
