"""What `iccld adapt` and `iccld.adapt` do: check what can be checked, estimate, train, write the report."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from iccld.assembly.chosen import check_method
from iccld.assembly.shapes import with_target_shape
from iccld.config import Config, require_data
from iccld.errors import CheckpointError, ConfigError
from iccld.labels import LabelSpace, get_label_space
from iccld.progress import duration, say
from iccld.training.trackers import require_trackers

if TYPE_CHECKING:
    from iccld.data import Dataset
    from iccld.predictor import Predictor


def train(config: Config, estimates: bool = True) -> Path:
    """Train a configuration's run and write its report; returns the run's folder.

    estimates: whether time, memory and disk are told first, from a few timed steps; not for a run that goes on.
    """
    refuse_unusable(config)
    config = with_target_shape(config)
    run = Path(config.runtime.out) / config.name
    if config.runtime.resume == "none" and (run / "config.yaml").exists():
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

    write_report(finished)
    return finished


def train_adapter(run: Path, config: Config, stage: str | None = None, overwrite: bool = False) -> Path:
    """Train an adapter beside a run (`runs.adapter_config` makes its configuration); returns the adapter's folder.

    stage: of the run, to start from.  overwrite: replaces an adapter of that name once the new one is whole.
    """
    refuse_unusable(config)
    refuse_unwritable(run / "adapters" / config.name)
    from iccld.doctor import require_matching_torchvision

    require_matching_torchvision()
    from iccld.runs.adapter import train_adapter

    return train_adapter(run, config, stage, overwrite)


def refuse_unusable(config: Config) -> None:
    """Before PyTorch is imported, and before anything is drawn, timed or written: what the configuration names must be there."""
    check_method(config)
    require_trackers(config.runtime.track)
    require_data(config)
    space = get_label_space(config.label_space)
    from iccld.assembly.domains import open_domain, open_extra

    for name, domain in (("source", config.source), ("target", config.target), ("val", config.val)):
        if domain.path is None:
            continue
        dataset = open_domain(domain, space, labels=name != "target", usual_split="val" if name == "val" else "train")
        holdout = config.source.holdout if name == "source" else 0
        if dataset is not None and holdout >= len(dataset):
            remedy = f"leave some to train on, e.g. {len(dataset) // 5}"
            raise ConfigError(f"source.holdout is {holdout} of {len(dataset)} pictures; {remedy}")
    open_extra(config.source, space)
    if config.source_checkpoint is not None and not Path(config.source_checkpoint).is_dir():
        raise CheckpointError(
            f"{config.source_checkpoint} is no folder; source_checkpoint takes a run or a checkpoint of its stage {config.checkpoint_stage}"
        )


def refuse_unwritable(run: Path) -> None:
    """Before anything is computed: a run that cannot be written is refused (fault 11)."""
    folder = run
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write {run}: {folder} is not a writable folder; choose another --runtime.out")


def save_stage_pictures(num_pictures: int, run: Path, stage: str, predictor: Predictor, shown: Dataset, space: LabelSpace) -> None:
    """Keep what a stage predicts on up to `num_pictures` pictures, spread evenly over the dataset, for the report."""
    from iccld.report.pictures import save_pictures

    count = min(num_pictures, len(shown))
    if count:
        save_pictures(run, stage, predictor, shown, space, [i * len(shown) // count for i in range(count)])


def memory_lines(config: Config) -> list[str]:
    """Device memory by component and stage, before a step is tried; compact networks need too little to tell."""
    if config.network.is_small:
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
