"""A method <-> a checkpoint's payload: every item that training continues from, each of them required on the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iccld.errors import CheckpointError
from iccld.methods.common.protocol import Method
from iccld.training.checkpoint import Loaded, Payload
from iccld.training.update import Update

RNG_SCHEME = "sha256(seed/stage/iteration)"
"""How every random number of an iteration comes about (`engine.derive_seed`): with the seed and position, the whole RNG state."""


def take(method: Method, update: Update, seed: int, progress: Mapping[str, Any], metrics: Mapping[str, Any]) -> Payload:
    """Everything that training continues from, as references to the live tensors: save before the next step."""
    state = {
        "rng": {"scheme": RNG_SCHEME, "seed": seed},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in method.optimizers().items()},
        "schedules": {name: schedule.state_dict() for name, schedule in method.schedules().items()},
        "update": update.state_dict(),
        "method": method.state_dict(),
        "progress": dict(progress),
        "metrics": dict(metrics),
    }
    return Payload(_weights(method.networks()), _weights(method.ema_networks()), state)


def restore(method: Method, loaded: Loaded, update: Update, seed: int) -> None:
    """Put a checkpoint into a method that was built and set up alike; CheckpointError names what does not fit."""
    rng = _item(loaded, "rng")
    if rng != {"scheme": RNG_SCHEME, "seed": seed}:
        raise CheckpointError(f"{loaded.path}: was trained with random numbers {rng}, this run has seed {seed} ({RNG_SCHEME})")
    restore_networks(method, loaded)
    _restore_each(loaded, "optimizers", {name: _OptimizerState(optimizer) for name, optimizer in method.optimizers().items()})
    _restore_each(loaded, "schedules", method.schedules())
    try:
        update.load_state_dict(_item(loaded, "update"))
        method.load_state_dict(_item(loaded, "method"))
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{loaded.path}: the state of {type(method).__name__} does not fit ({_one_line(error)})") from error


def restore_networks(method: Method, loaded: Loaded) -> None:
    """Put only the weights into a method, for prediction and evaluation."""
    for kind, networks, weights in (("model", method.networks(), loaded.model), ("ema", method.ema_networks(), loaded.ema)):
        groups: dict[str, dict[str, Tensor]] = {name: {} for name in networks}
        for key, tensor in method.translated(kind, weights).items():
            name, _, parameter = key.partition(".")
            if name not in groups:
                raise CheckpointError(f"{loaded.path}: {kind}.safetensors holds {name!r}; this method has {sorted(networks)}")
            groups[name][parameter] = tensor
        for name, network in networks.items():
            try:
                network.load_state_dict(groups[name], strict=True)
            except RuntimeError as error:
                raise CheckpointError(f"{loaded.path}: the weights of {name!r} do not fit the network ({_one_line(error)})") from error


class _OptimizerState:
    """An optimiser whose loaded state lies in memory as its parameters do, as it did when it was saved."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)
        for parameter, values in self.optimizer.state.items():
            for key, value in values.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                    values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()


def _weights(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    if dotted := [name for name in networks if "." in name]:
        raise ValueError(f"names of networks hold no dots: {dotted}")
    return {f"{name}.{key}": tensor for name, network in networks.items() for key, tensor in network.state_dict().items()}


def _item(loaded: Loaded, key: str) -> Any:
    if key not in loaded.state:
        raise CheckpointError(f"{loaded.path}: holds no {key!r}, so training cannot go on from it exactly")
    return loaded.state[key]


def _restore_each(loaded: Loaded, key: str, objects: Mapping[str, Any]) -> None:
    stored = _item(loaded, key)
    if sorted(stored) != sorted(objects):
        raise CheckpointError(f"{loaded.path}: holds the {key} {sorted(stored)}, this method has {sorted(objects)}")
    for name, target in objects.items():
        try:
            target.load_state_dict(stored[name])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{loaded.path}: {key} {name!r} does not fit ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
