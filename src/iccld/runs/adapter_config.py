"""What an adapter is trained with: the run's own configuration, another target, and step 2 of `iccld` alone.  No PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iccld.config import Config, load_config, read_config
from iccld.config.network import OF_THE_DENOISER
from iccld.errors import ConfigError
from iccld.runs.adapter_folder import check_name

METHOD, STAGE = "iccld", "step2"

SCHEDULE: Mapping[str, Any] = {"iterations": 240, "learning_rate": 3e-4}
"""Of step 2, where no other is asked for; everything else as `Optimisation` has it."""

SETTINGS: Mapping[str, Any] = {
    "fill": "mean",
    "mask_ratio": 0.0,
    "kept_views": 60,
    "labels": "own",
    "label_scales": (1.0, 1.5),  # of `labels views`, where that is asked for
    "label_flip": False,
}
"""Of step 2, where no others are asked for: the decoder alone, on views whose features are computed once, with labels of its own average.

Labels of views count in full, right or wrong: at night they cost a model points, where labels weighed by confidence bring some
(docs/adapters.md).
"""

KEPT = ("threshold", "style_probability", "style_share")
"""Settings that a run of `iccld` hands on: how its pictures are seen."""


def adapter_config(run: Path, name: str, overrides: Sequence[str] = ()) -> Config:
    """The run's configuration with the adapter's in place of target, validation, method and stages, and then the overrides.

    ConfigError for a name that is no file name, and for overrides of what the run's weights were made with.
    """
    check_name(name)
    own = read_config(run / "config.yaml")
    space = run / "label_space.yaml"
    kept = {key: value for key, value in own.settings.items() if key in KEPT} if own.method == METHOD else {}
    replaced: dict[str, Any] = {
        "recipe": own.recipe,
        "name": name,
        "method": METHOD,
        "settings": {**kept, **SETTINGS},
        "source_checkpoint": None,
        "label_space": str(space) if space.is_file() else own.label_space,
        "target": {},
        "val": {},
        "stages": {"source": {"iterations": 0}, "step1": {"iterations": 0}, STAGE: dict(SCHEDULE)},
        "runtime": {**asdict(own.runtime), "devices": 1, "evaluate_every": 0, "resume": "none"},
    }
    config = load_config(run / "config.yaml", overrides, replaced)
    _refuse_unfit(config, own, run, replaced)
    return config


def _refuse_unfit(config: Config, own: Config, run: Path, replaced: Mapping[str, Any]) -> None:
    """ConfigError for settings that an adapter cannot have."""
    if not config.target.is_given:
        raise ConfigError("an adapter needs pictures of the new target: add --target.path FOLDER")
    if config.target.truth:
        raise ConfigError("target.truth would show the adapter the target's labels, and its gain would be none: leave it out")
    changed = [key for key, value in asdict(config.network).items() if key not in OF_THE_DENOISER and value != getattr(own.network, key)]
    if changed:
        raise ConfigError(f"network.{changed[0]} belongs to the weights of {run}; an adapter cannot change it, leave it out")
    if config.settings.get("train_encoder"):
        raise ConfigError(f"settings.train_encoder changes the encoder, which {run} and its other adapters share; leave it out")
    for key in ("method", "label_space", "source_checkpoint", "name"):
        if getattr(config, key) != replaced[key]:
            raise ConfigError(f"{key} belongs to {run} and its adapter; leave --{key} out")
    trained = [stage for stage, optimisation in config.stages.items() if optimisation.iterations]
    if trained != [STAGE]:
        raise ConfigError(f"an adapter is trained by stage {STAGE} alone, not by {', '.join(trained)}; leave the others' iterations out")
    if config.runtime.devices > 1:
        raise ConfigError(f"runtime.devices is {config.runtime.devices}; an adapter is trained on one device, leave it out")
