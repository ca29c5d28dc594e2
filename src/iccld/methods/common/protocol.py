"""What every method is: networks, optimisers, one `step`, ordered stages.  It knows no loop, file or device set-up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.transforms import Draw

if TYPE_CHECKING:
    from iccld.predictor import Predictor

SOURCE = "source"
"""Name of the stage that all methods share."""

STATISTICS = frozenset({"pseudo_label_share", "pseudo_label_histogram", "entropy", "agreement"})
"""Keys of `Method.step` that are logged beside the losses instead of among them."""


class Schedule(Protocol):
    """A learning-rate schedule as in torch.optim.lr_scheduler; `update` steps it once per update of its optimiser."""

    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Update(Protocol):
    """One update of one optimiser's parameters: backward, mean over ranks, finite check, clip, step, schedule, zero.

    Only the parameters of `optimizer` (a name of `Method.optimizers` or the optimiser itself) receive gradients, so a loss
    may pass through another network without leaving anything there.  A loss or gradient that is not finite makes no step.
    Networks whose losses share a graph need `retain_graph=True` on all calls but the last.
    """

    def __call__(self, optimizer: str | torch.optim.Optimizer, loss: Tensor, *, retain_graph: bool = False) -> None: ...


class Engine(Protocol):
    """The part of the training engine that a method may use."""

    device: torch.device
    rank: int
    world_size: int
    scratch: Path | None
    """Folder for files that can be made again, the run's own; None: that for temporary files."""

    @property
    def update(self) -> Update: ...

    def bind(self, optimizers: Mapping[str, torch.optim.Optimizer], schedules: Mapping[str, Schedule]) -> None:
        """Make `update` serve these optimisers, each with the schedule of the same name where there is one."""

    def place(self, network: nn.Module) -> None:
        """Move a network to the device and memory format, in place; its parameters stay the same objects."""

    def draw(self, generator: torch.Generator) -> Draw:
        """Draws for the global batch of which this rank keeps its rows; the generator is in the same state on every rank."""

    def all_reduce(self, tensor: Tensor, reduction: str = "mean") -> Tensor:
        """The mean or sum of a tensor over the ranks; the tensor itself when there is one rank."""

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which the networks run; `step` is called inside it, a predictor has to enter it itself."""


class Method(ABC):
    """A training method.  `step` is the method; everything else lets the loop save, resume and evaluate it.

    Networks reach it as modules built by `assembly`.  Whatever training continues from lives in `networks`, `ema_networks`,
    `optimizers`, `schedules` or `state_dict`: a checkpoint holds these and nothing else.
    """

    headline_weights: str = "ema"
    """Which predictor gives the method's headline score: "ema" or "model"."""

    round_batches: int = 8
    """Batches that `start_round` is handed."""

    update: Update
    """Given by `setup`."""

    engine: Engine
    """Given by `setup`."""

    @abstractmethod
    def networks(self) -> Mapping[str, nn.Module]:
        """The networks in use, by name, frozen ones included; saved in model.safetensors as `<name>.<parameter>`."""

    def ema_networks(self) -> Mapping[str, nn.Module]:
        """The averaged copies, by name; saved in ema.safetensors as `<name>.<parameter>`."""
        return {}

    @abstractmethod
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The optimisers by name.  The first one's learning rate is the one that is logged."""

    def schedules(self) -> Mapping[str, Schedule]:
        """The schedules, each under the name of its optimiser."""
        return {}

    def setup(self, engine: Engine) -> None:
        """Move to the engine's device and take its `update`.  Called once, before the first step and before loading."""
        for network in (*self.networks().values(), *self.ema_networks().values()):
            engine.place(network)
        engine.bind(self.optimizers(), self.schedules())
        self.engine = engine
        self.update = engine.update

    @abstractmethod
    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """Train on one batch; returns detached scalars, and optionally the tensors named in `STATISTICS`.

        The batch lies on the device and is this rank's share.  `iteration` counts from 0 within the stage.  Every random
        number comes from `draw`: it draws for the batch of all ranks and keeps this rank's rows, so that a step does not depend on how
        many there are.
        """

    def batch_of(self, iteration: int) -> int | None:
        """The iteration whose batch this one's step takes: its own, an earlier one's again, or None for a step that reads none.

        What no step reads is not loaded.  The answer for an iteration may change with the steps before it, never otherwise.
        """
        return iteration

    def step_again(self, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """`step` of an iteration that reads no batch, from what the method has kept of earlier ones."""
        raise NotImplementedError(f"{type(self).__name__} keeps nothing that it could train on again")

    def start_round(self, target_loader: Iterable[DomainBatch]) -> None:
        """Relabel the target (CBST), measure latents (ICCLD); called before the steps that `starts_round` names.

        A function of the networks, `state_dict` and the batches alone: a training that was stopped just before a round begins it again.
        """
        return None

    def starts_round(self, iteration: int) -> bool:
        """Whether `start_round` is called before the step of this iteration; by default before the stage's first alone."""
        return iteration == 0

    def state_dict(self) -> dict[str, Any]:
        """Everything else that training continues from: tensors, numbers, strings, and lists, tuples and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.  A method that has such state overrides both."""
        if state:
            raise KeyError(f"{type(self).__name__} has no state of its own, but was given {sorted(state)}")

    def translated(self, kind: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of a checkpoint, of an earlier release perhaps, under the names that the networks have now.  kind: "model" or "ema"."""
        return weights

    @abstractmethod
    def predictor(self, weights: str = "ema") -> Predictor:
        """The segmentation model so far, from the averaged ("ema") or the trained ("model") weights.

        It shares its networks with the method and changes neither their weights nor their buffers.
        """


class DiffusionMethod(Method):
    """A stage with a denoiser, whose prediction may sample a latent, in a number of steps that can be chosen when it predicts."""

    sampler_steps: int
    """DDIM steps of the headline, where it samples."""

    samples: bool = True
    """Whether its prediction samples a latent; otherwise encoder and decoder alone predict."""

    is_stepwise: bool = True
    """Whether there can be more than one step."""

    @abstractmethod
    def predictor(self, weights: str = "ema", sampler_steps: int | None = None) -> Predictor:
        """As `Method.predictor`; its network a `DiffusionSegmenter` where it `samples`, or `sampler_steps` are asked for, in that many."""


@dataclass(frozen=True)
class Stage:
    """One ordered part of a training: `iterations` steps of the method that `make_method` builds."""

    name: str
    iterations: int
    make_method: Callable[[Method | None], Method]
    """Builds the stage's method from the previous stage's finished one, or from None where there is none."""
