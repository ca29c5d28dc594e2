"""A stage on a frozen encoder, seen without it: what is saved is what learns, and the encoder stays where it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.methods.common.protocol import Engine, Method, Schedule
from iccld.models import Segmenter
from iccld.predictor import Predictor
from iccld.transforms import Draw

ENCODER = "encoder"


class Given(Method):
    """A segmenter that was trained elsewhere, as the finished stage that the next one starts from."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.segmenter}

    def ema_networks(self) -> Mapping[str, nn.Module]:
        return {"segmenter": self.segmenter}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {}

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        raise TypeError("a segmenter that is given has been trained")

    def predictor(self, weights: str = "ema") -> Predictor:
        raise TypeError("a segmenter that is given is predicted with by the run it comes from")


class WithoutEncoder(Method):
    """Another stage's method whose checkpoints leave the encoder out; it steps, scores and resumes as that one does.

    Its networks are the other parts by their own names: "decoder", "denoiser", ... of a network that has an encoder, and every network
    that has none, such as a discriminator.
    """

    def __init__(self, inner: Method) -> None:
        self.inner = inner
        self.headline_weights = inner.headline_weights
        self.round_batches = inner.round_batches
        networks = inner.networks()
        self.encoder = next(network.get_submodule(ENCODER) for network in networks.values() if ENCODER in dict(network.named_children()))
        for name, average in inner.ema_networks().items():  # the average of what stands still is itself
            if ENCODER in dict(average.named_children()):
                setattr(average, ENCODER, networks[name].get_submodule(ENCODER))

    def networks(self) -> Mapping[str, nn.Module]:
        return without_encoder(self.inner.networks())

    def ema_networks(self) -> Mapping[str, nn.Module]:
        return without_encoder(self.inner.ema_networks())

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return self.inner.optimizers()

    def schedules(self) -> Mapping[str, Schedule]:
        return self.inner.schedules()

    def setup(self, engine: Engine) -> None:
        self.inner.setup(engine)
        self.engine, self.update = engine, engine.update

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        return self.inner.step(batch, iteration, draw)

    def batch_of(self, iteration: int) -> int | None:
        return self.inner.batch_of(iteration)

    def step_again(self, iteration: int, draw: Draw) -> dict[str, Tensor]:
        return self.inner.step_again(iteration, draw)

    def start_round(self, target_loader: Iterable[DomainBatch]) -> None:
        self.inner.start_round(target_loader)

    def starts_round(self, iteration: int) -> bool:
        return self.inner.starts_round(iteration)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)

    def predictor(self, weights: str = "ema") -> Predictor:
        return self.inner.predictor(weights)


def without_encoder(networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The networks by name, those with an encoder as their other parts.  TypeError where that would leave a tensor out."""
    found: dict[str, nn.Module] = {}
    for name, network in networks.items():
        parts = dict(network.named_children())
        if ENCODER not in parts:
            found[name] = network
            continue
        loose = [key for key in network.state_dict() if key.partition(".")[0] not in parts]
        if loose:
            raise TypeError(f"{name} holds {loose[0]} outside of its parts {', '.join(parts)}")
        found |= {part: module for part, module in parts.items() if part != ENCODER and part not in networks}
    expected = sum(1 if ENCODER not in parts else len(parts) - 1 for parts in (dict(n.named_children()) for n in networks.values()))
    if len(found) != expected:
        raise TypeError(f"two of the parts of {', '.join(networks)} share a name")
    return found


def head_state(network: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a network but its encoder's: what an adapter is."""
    return {key: tensor for key, tensor in network.state_dict().items() if key.partition(".")[0] != ENCODER}
