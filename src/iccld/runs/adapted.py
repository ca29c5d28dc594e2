"""A run and one of its adapters -> their predictor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.objects import make_parts, optimisations
from iccld.assembly.scoring import Asked, scoring_of_stage
from iccld.config import Config, read_config
from iccld.errors import CheckpointError, ConfigError
from iccld.methods.common.parts import Parts
from iccld.methods.common.protocol import DiffusionMethod, Method, Stage
from iccld.methods.common.without_encoder import Given, WithoutEncoder, head_state
from iccld.predictor import Predictor
from iccld.runs.adapter_config import METHOD, STAGE
from iccld.runs.adapter_folder import WEIGHTS, Adapter, find_adapter, refuse_other_weights
from iccld.runs.base import CONFIG, Base, open_base, predictor_of


def adapter_stage(config: Config, parts: Parts, base: Base) -> Stage:
    """The one stage that an adapter is trained by, on the base's segmenter; its method saves all but the encoder, which they share."""
    stages = registered_method(METHOD).stages(parts, method_settings(config, of_earlier_run=True), optimisations(config))
    stage = next(each for each in stages if each.name == STAGE)

    def make(_: Method | None) -> Method:
        method = WithoutEncoder(stage.make_method(Given(base.segmenter)))
        base.segmenter.encoder = method.encoder
        return method

    return replace(stage, make_method=make)


def base_of(run: Path, adapter: Adapter) -> Base:
    """The weights that the adapter belongs to; CheckpointError where the run has others by now."""
    told = adapter.about["base"]
    base = open_base(run, told["stage"], told["iteration"])
    if base.sha256 != told["sha256"]:
        trained = f"stage {told['stage']} after iteration {told['iteration']} with SHA-256 {told['sha256'][:12]}"
        raise CheckpointError(
            f"adapter {adapter.name!r} of {run} belongs to other weights ({trained}; now iteration {base.iteration} with "
            f"{base.sha256[:12]}); the run was trained again, so train the adapter again with --overwrite"
        )
    return base


def load_adapted(run: Path, name: str, sampler_steps: int | None, device: str, asked: Asked) -> tuple[Predictor, Adapter]:
    """The predictor of a run with an adapter, as it was scored but for what is asked for, not yet on the device."""
    adapter = find_adapter(run, name)
    refuse_other_weights(adapter)
    base = base_of(run, adapter)
    config = read_config(adapter.path / CONFIG)
    method = adapter_stage(config, make_parts(config, base.parts.label_space, run=run), base).make_method(None)
    assert isinstance(method, WithoutEncoder)
    if sampler_steps is not None and not isinstance(method.inner, DiffusionMethod):
        raise ConfigError(f"--sampler_steps goes with a diffusion stage; adapter {name!r} of {run} has none")
    predictor = predictor_of(method.inner, method.headline_weights, sampler_steps)
    state = read_weights(adapter.path / WEIGHTS)
    own = head_state(predictor.network)
    if state.keys() != own.keys() or any(state[key].shape != own[key].shape for key in state):
        raise CheckpointError(f"{adapter.path / WEIGHTS}: does not fit the decoder of {run}; train the adapter again with --overwrite")
    predictor.network.load_state_dict({**predictor.network.state_dict(), **state})  # the encoder's tensors are the run's
    scoring = asked.instead_of(scoring_of_stage(adapter.path, config, STAGE, device), device)
    return scoring.apply(predictor), adapter


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of an adapter's file; CheckpointError where it is no safetensors file."""
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"{file}: is no safetensors file ({error}); train the adapter again with --overwrite") from None
