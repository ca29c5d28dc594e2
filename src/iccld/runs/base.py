"""A run as others start from it: its configuration, its stages, and the plain encoder and decoder that an adapter sits on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.objects import make_parts, optimisations
from iccld.config import Config, read_config
from iccld.errors import CheckpointError
from iccld.labels import LabelSpace, get_label_space
from iccld.methods.common.parts import Parts
from iccld.methods.common.protocol import DiffusionMethod, Method, Stage
from iccld.models import DiffusionSegmenter, Segmenter
from iccld.predictor import Predictor
from iccld.progress import say
from iccld.training import checkpoint, snapshot

CONFIG = "config.yaml"
LABEL_SPACE = "label_space.yaml"
"""A copy of the user's own label space, so that a run is read without the file it was trained with."""


def stages_of(config: Config, space: LabelSpace, folder: Path) -> dict[str, Stage]:
    """The stages of a run by name, in order.  folder: of the run, or one that holds what `keep_architecture` writes."""
    parts = make_parts(config, space, run=folder)
    stages = registered_method(config.method).stages(parts, method_settings(config, of_earlier_run=True), optimisations(config))
    return {each.name: each for each in stages}


def predictor_of(method: Method, weights: str, sampler_steps: int | None) -> Predictor:
    """A method's predictor; sampler_steps: of a diffusion stage, None for its own."""
    return method.predictor(weights, sampler_steps) if isinstance(method, DiffusionMethod) else method.predictor(weights)


class Opened(NamedTuple):
    """What a run's folder says before any weights are read."""

    config: Config
    space: LabelSpace
    parts: Parts
    stages: dict[str, Stage]


def open_run(run: Path) -> Opened:
    """CheckpointError when the folder is no run."""
    if not (run / CONFIG).is_file():
        raise CheckpointError(f"{run} is not a run: no {CONFIG} there; give the folder that `iccld adapt` wrote")
    config = read_config(run / CONFIG)
    space = get_label_space(run / LABEL_SPACE if (run / LABEL_SPACE).is_file() else config.label_space)
    return Opened(config, space, make_parts(config, space, run=run), stages_of(config, space, run))


@dataclass(frozen=True)
class Base:
    """The stage of a run that an adapter belongs to."""

    segmenter: Segmenter
    parts: Parts
    stage: str
    iteration: int
    weights: str
    """ema or model: those that the stage's method declares."""
    sha256: str
    """Of the checkpoint's file of these weights."""

    @property
    def reference(self) -> dict[str, Any]:
        """What adapter.json says of it."""
        return {"stage": self.stage, "iteration": self.iteration, "weights": self.weights, "sha256": self.sha256}

    def predictor(self) -> Predictor:
        """The run's own answer, as an adapter starts from it."""
        return self.parts.predictor(self.segmenter)


def open_base(run: Path, stage: str | None = None, iteration: int | None = None) -> Base:
    """The weights of a stage, by default of the last one trained that has a plain encoder and decoder (`Segmenter`).

    iteration: of which they are wanted, where its checkpoint is still there; by default the newest whole one.
    CheckpointError when the folder is no run, has no such checkpoint, or no stage with such a network.
    """
    opened = open_run(run)
    saved = checkpoint.saved_stages(run) if stage is None else [checkpoint.find(run, stage).parent.name]
    unfit: list[str] = []
    for name in reversed(saved):
        if name not in opened.stages:
            raise CheckpointError(f"{run}: has a checkpoint of stage {name!r}, but {CONFIG} names the stages {sorted(opened.stages)}")
        wanted = checkpoint.stage_directory(run, name) / f"{iteration or 0:08d}"
        loaded = checkpoint.load(wanted if iteration is not None and wanted.is_dir() else checkpoint.find(run, name))
        method = opened.stages[name].make_method(None)
        snapshot.restore_networks(method, loaded)
        weights = method.headline_weights
        network = method.predictor(weights).network
        if isinstance(network, Segmenter):
            if unfit:
                say(f"{run}: starting from stage {name}; an adapter needs a plain encoder and decoder, which {', '.join(unfit)} lacks")
            sha256 = checkpoint.verify(loaded.path, read_all=False)["files"][f"{weights}.safetensors"]["sha256"]
            return Base(network.requires_grad_(False).eval(), opened.parts, name, loaded.iteration, weights, sha256)
        unfit.append(f"stage {name} ({type(network).__name__})")
        if not isinstance(network, DiffusionSegmenter):  # an earlier stage of it is another network, which has to be asked for
            break
    others = [each for each in checkpoint.saved_stages(run) if not any(each in words.split() for words in unfit)]
    remedy = f"start from another with --stage, of {', '.join(others)}" if others else "choose another run"
    raise CheckpointError(f"{run}: an adapter needs a plain encoder and decoder, which {', '.join(unfit)} lacks; {remedy}")


def digest_of(network: nn.Module) -> str:
    """SHA-256 of every parameter and buffer of a network, in order."""
    digest = hashlib.sha256()
    for key, tensor in network.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()
