"""A run directory -> the predictor of one of its stages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.objects import make_parts, optimisations
from iccld.assembly.scoring import Asked, place, scoring_of_stage
from iccld.config import Config, read_config
from iccld.data.images import FULL_RANGE
from iccld.data.wide import Range
from iccld.errors import CheckpointError, ConfigError
from iccld.labels import LabelSpace, get_label_space
from iccld.methods.common.protocol import DiffusionMethod, Method, Stage
from iccld.predictor import Predictor
from iccld.runs.data import read_ranges
from iccld.training import checkpoint, snapshot
from iccld.training.allocator import keep_freed_memory

CONFIG = "config.yaml"
LABEL_SPACE = "label_space.yaml"
"""A copy of the user's own label space, so that a run is read without the file it was trained with."""


def load_predictor(
    run: Path,
    stage: str | None = None,
    weights: str | None = None,
    sampler_steps: int | None = None,
    device: str = "auto",
    asked: Asked | None = None,
) -> Predictor:
    """The predictor of the newest whole checkpoint of `stage` (by default the last stage trained), in evaluation mode.

    It predicts as the run was scored, but for what is `asked` for instead.  weights: "ema" or "model".  sampler_steps: DDIM steps of a
    diffusion stage.
    CheckpointError (exit code 4) when `run` is no run or has no such checkpoint; ConfigError for what a stage does not take.
    """
    return load_with_standing(run, stage, weights, sampler_steps, device, asked)[0]


@dataclass(frozen=True)
class Standing:
    """Which weights of a run were loaded, and how far the run has come."""

    stage: str
    iteration: int
    iterations: int
    """Of the stage, when it is finished."""
    weights: str
    is_finished: bool
    """Whether every stage of the run is."""
    wide: Range
    """The values of 16-bit target pictures that become black and white."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: {"stage", "iteration", "iterations", "weights", "finished"}."""
        return {
            "stage": self.stage,
            "iteration": self.iteration,
            "iterations": self.iterations,
            "weights": self.weights,
            "finished": self.is_finished,
        }

    def as_fields(self) -> dict[str, Any]:
        """The fields by their own names, without `wide`, which belongs to how pictures are read."""
        return {key: value for key, value in asdict(self).items() if key != "wide"}


def stages_of(config: Config, space: LabelSpace, folder: Path) -> dict[str, Stage]:
    """The stages of a run by name, in order.  folder: of the run, or one that holds what `keep_architecture` writes."""
    parts = make_parts(config, space, run=folder)
    stages = registered_method(config.method).stages(parts, method_settings(config, of_earlier_run=True), optimisations(config))
    return {each.name: each for each in stages}


def predictor_of(method: Method, weights: str, sampler_steps: int | None) -> Predictor:
    """A method's predictor; sampler_steps: of a diffusion stage, None for its own."""
    return method.predictor(weights, sampler_steps) if isinstance(method, DiffusionMethod) else method.predictor(weights)


def load_with_standing(
    run: Path,
    stage: str | None = None,
    weights: str | None = None,
    sampler_steps: int | None = None,
    device: str = "auto",
    asked: Asked | None = None,
) -> tuple[Predictor, Standing]:
    """What `load_predictor` gives, and where it stands."""
    run = Path(run)
    if not (run / CONFIG).is_file():
        raise CheckpointError(f"{run} is not a run: no {CONFIG} there; give the folder that `iccld adapt` wrote")
    loaded = checkpoint.load(checkpoint.find(run, stage))
    config = read_config(run / CONFIG)
    space = get_label_space(run / LABEL_SPACE if (run / LABEL_SPACE).is_file() else config.label_space)
    made = stages_of(config, space, run)
    if loaded.stage not in made:
        raise CheckpointError(f"{run}: has a checkpoint of stage {loaded.stage!r}, but {CONFIG} names the stages {sorted(made)}")
    asked = asked or Asked()
    scoring = asked.instead_of(scoring_of_stage(run, config, loaded.stage, device), device)
    method = made[loaded.stage].make_method(None)
    snapshot.restore_networks(method, loaded)
    keep_freed_memory()
    chosen = weights or method.headline_weights
    if sampler_steps is not None and not isinstance(method, DiffusionMethod):
        raise ConfigError(f"--sampler_steps goes with a diffusion stage; stage {loaded.stage} of {run} has none")
    predictor = predictor_of(method, chosen, sampler_steps)
    scoring.apply(predictor)
    if asked.size is not None:
        predictor.working_size = asked.size
    place(predictor, device)
    if asked.precision == "auto":
        from iccld.measure.formats import predicting_format  # what the other commands do without

        predictor.precision, predictor.channels_last = predicting_format(predictor)
        place(predictor, device)
    planned = {name: each.iterations for name, each in optimisations(config).items() if name in made}
    last = list(made)[-1]
    standing = Standing(
        stage=loaded.stage,
        iteration=loaded.iteration,
        iterations=planned[loaded.stage],
        weights=chosen,
        is_finished=checkpoint.iterations(checkpoint.stage_directory(run, last))[-1:] == [planned[last]],
        wide=(read_ranges(run) or {}).get("target", FULL_RANGE),
    )
    return predictor.eval(), standing
