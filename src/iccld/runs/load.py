"""A run directory -> the predictor of one of its stages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iccld.assembly.objects import optimisations
from iccld.assembly.scoring import Asked, place, scoring_of_stage
from iccld.data.images import FULL_RANGE
from iccld.data.wide import Range
from iccld.errors import CheckpointError, ConfigError
from iccld.methods.common.protocol import DiffusionMethod
from iccld.models.efficientnet import keep_folded
from iccld.predictor import Predictor
from iccld.runs.adapted import load_adapted
from iccld.runs.base import CONFIG, open_run, predictor_of
from iccld.runs.data import read_ranges
from iccld.training import checkpoint, snapshot
from iccld.training.allocator import keep_freed_memory


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
    adapter: str | None = None
    """The adapter on top of these weights."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: {"stage", "iteration", "iterations", "weights", "finished"}, and "adapter" where there is one."""
        return {
            "stage": self.stage,
            "iteration": self.iteration,
            "iterations": self.iterations,
            "weights": self.weights,
            "finished": self.is_finished,
        } | ({} if self.adapter is None else {"adapter": self.adapter})

    def as_fields(self) -> dict[str, Any]:
        """The fields by their own names, without `wide`, which belongs to how pictures are read, and without an adapter that is none."""
        return {key: value for key, value in asdict(self).items() if key != "wide" and not (key == "adapter" and value is None)}


def load_with_standing(
    run: Path,
    stage: str | None = None,
    weights: str | None = None,
    sampler_steps: int | None = None,
    device: str = "auto",
    asked: Asked | None = None,
    adapter: str | None = None,
    iteration: int | None = None,
) -> tuple[Predictor, Standing]:
    """What `load_predictor` gives, and where it stands.

    adapter: one of the run's, which names stage and weights itself.  iteration: of another checkpoint of the stage than the newest.
    """
    run, asked = Path(run), asked or Asked()
    if adapter is not None:
        chosen = stage or weights or (None if iteration is None else f"--iteration {iteration}")
        predictor, standing = _with_adapter(run, adapter, chosen, sampler_steps, device, asked)
    else:
        predictor, standing = _of_stage(run, stage, iteration, weights, sampler_steps, device, asked)
    if asked.size is not None:
        predictor.working_size = asked.size
    return settled(predictor, asked, device), standing


def settled(predictor: Predictor, asked: Asked, device: str) -> Predictor:
    """On the device in evaluation mode, in the fastest number format where `auto` is asked for; nothing else is asked of it after that."""
    keep_freed_memory()
    place(predictor, device)
    if asked.precision == "auto":
        from iccld.measure.formats import predicting_format  # what the other commands do without

        predictor.precision, predictor.channels_last = predicting_format(predictor)
        place(predictor, device)
    keep_folded(predictor)
    return predictor.eval()


def _of_stage(
    run: Path, stage: str | None, iteration: int | None, weights: str | None, sampler_steps: int | None, device: str, asked: Asked
) -> tuple[Predictor, Standing]:
    opened = open_run(run)
    newest = checkpoint.find(run, stage)
    loaded = checkpoint.load(newest if iteration is None else _kept(newest.parent, iteration))
    if loaded.stage not in opened.stages:
        raise CheckpointError(f"{run}: has a checkpoint of stage {loaded.stage!r}, but {CONFIG} names the stages {sorted(opened.stages)}")
    scoring = asked.instead_of(scoring_of_stage(run, opened.config, loaded.stage, device), device)
    method = opened.stages[loaded.stage].make_method(None)
    snapshot.restore_networks(method, loaded)
    chosen = weights or method.headline_weights
    if sampler_steps is not None and not isinstance(method, DiffusionMethod):
        raise ConfigError(f"--sampler_steps goes with a diffusion stage; stage {loaded.stage} of {run} has none")
    predictor = predictor_of(method, chosen, sampler_steps)
    planned = {name: each.iterations for name, each in optimisations(opened.config).items() if name in opened.stages}
    last = list(opened.stages)[-1]
    standing = Standing(
        stage=loaded.stage,
        iteration=loaded.iteration,
        iterations=planned[loaded.stage],
        weights=chosen,
        is_finished=checkpoint.iterations(checkpoint.stage_directory(run, last))[-1:] == [planned[last]],
        wide=(read_ranges(run) or {}).get("target", FULL_RANGE),
    )
    return scoring.apply(predictor), standing


def _with_adapter(
    run: Path, name: str, chosen: str | None, sampler_steps: int | None, device: str, asked: Asked
) -> tuple[Predictor, Standing]:
    if chosen is not None:
        raise ConfigError(f"adapter {name!r} has weights of its own and names its stage itself; leave {chosen} out")
    predictor, adapter = load_adapted(run, name, sampler_steps, device, asked)
    standing = Standing(
        stage=adapter.about["base"]["stage"],
        iteration=adapter.about["base"]["iteration"],
        iterations=adapter.about["base"]["iteration"],
        weights=adapter.about["base"]["weights"],
        is_finished=True,
        wide=(read_ranges(adapter.path) or {}).get("target", FULL_RANGE),
        adapter=name,
    )
    return predictor, standing


def _kept(directory: Path, iteration: int) -> Path:
    """A stage's checkpoint of that iteration; CheckpointError with those that there are."""
    kept = checkpoint.iterations(directory)
    if iteration not in kept:
        raise CheckpointError(f"{directory} has no checkpoint of iteration {iteration}; it has {', '.join(map(str, kept))}")
    return checkpoint.find(directory / f"{iteration:08d}")
