"""GPU memory of a training by component, from networks on the meta device: nothing is allocated, computed or fetched.

Parameters, their average and the optimiser's moments are counted.  Activations and gradients are those of the stage's own step, run at the
real sizes on tensors without values, whose live bytes are followed one by one (`iccld.training.memory`).
Workspaces of kernels and an allocator's fragments cannot be counted so: what is told has `WORKSPACE_SHARE` more, without the CUDA context.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.networks import keep_architecture
from iccld.assembly.objects import make_engine, make_parts, optimisations, stages_to_train
from iccld.batch import DomainBatch
from iccld.config import Config
from iccld.labels import get_label_space
from iccld.measure.steps import random_batch
from iccld.methods.common.protocol import Method, Schedule, Stage, Update
from iccld.training.memory import CudaAutocast, LiveMemory, backward
from iccld.transforms import Draw

MOMENTS: dict[type[torch.optim.Optimizer], int] = {torch.optim.AdamW: 2, torch.optim.Adam: 2, torch.optim.SGD: 1}
"""Tensors of a parameter's size that an optimiser keeps (SGD: with momentum)."""

WORKSPACE_SHARE = 0.1
"""What a card takes beside the bytes that are counted: 7 to 18 % on one H200 (docs/memory.md), with which the estimate is within 7 %."""

ENTRANCES = ("forward", "features", "logits")
"""Methods of a network that steps call."""


@dataclass(frozen=True)
class StageMemory:
    """Bytes on one device during a stage's step."""

    stage: str
    parameters: int
    """Networks in use, frozen ones and buffers included, in fp32."""
    average: int
    """Averaged copies."""
    optimizer: int
    """Moments of the optimisers."""
    gradients: int
    """The largest set of gradients that is there at once: an optimiser's is freed by its update."""
    activations: dict[str, int]
    """By network: what its passes made and is there when a backward pass begins; "rest": pictures, labels, losses, averages' passes."""
    peak: int
    """The most at once.  Less than the sum where gradients come as activations go, more by what passes are making and recomputing."""

    @property
    def expected(self) -> int:
        """What a card's allocator will tell as its peak: with workspaces of kernels."""
        return round(self.peak * (1 + WORKSPACE_SHARE))

    def __str__(self) -> str:
        parts = {"parameters": self.parameters, "average": self.average, "optimiser": self.optimizer, "gradients": self.gradients}
        parts |= {name if name == "rest" else f"{name} activations": size for name, size in self.activations.items()}
        told = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
        workspaces = (self.expected - self.peak) / 2**30
        return f"memory of stage {self.stage}: {self.expected / 2**30:.1f} GiB at its peak ({told}, workspaces {workspaces:.2f})"


@dataclass(frozen=True)
class UnknownMemory:
    """A stage that cannot be counted, such as one whose step asks for the values of its tensors, which the meta device does not have."""

    stage: str
    reason: str

    def __str__(self) -> str:
        return f"memory of stage {self.stage}: not known, {self.reason}"


def takes_bf16(config: Config) -> bool:
    """Whether the run of this configuration on this machine computes in bf16."""
    return make_engine(config).precision == "bf16"


def stage_memory(config: Config, bf16: bool = True, device: str = "meta") -> list[StageMemory | UnknownMemory]:
    """Memory of each stage of `config` on one of its devices.  On the device "cpu" the same is counted on real tensors, in fp32 only."""
    space = get_label_space(config.label_space)
    with TemporaryDirectory() as folder, torch.device(device):
        keep_architecture(config.network, Path(folder))
        parts = make_parts(config, space, run=Path(folder))
        stages = registered_method(config.method).stages(parts, method_settings(config), optimisations(config))
        methods = [(stage, stage.make_method(None)) for stage in stages_to_train(config, stages)]
    batch = DomainBatch(*(None if tensor is None else tensor.to(device) for tensor in random_batch(config, space.num_classes)))  # type: ignore[arg-type]
    return [_step_memory(stage, method, batch, bf16) for stage, method in methods]


def _step_memory(stage: Stage, method: Method, batch: DomainBatch, bf16: bool) -> StageMemory | UnknownMemory:
    """Memory of the stage's last step, which sees crops at full resolution."""
    engine = _CountingEngine(LiveMemory(), batch.source_image.device)
    method.setup(engine)
    for name, part in _parts(method.networks()).items():
        engine.count(name, part)
    try:
        with engine.memory, CudaAutocast(bf16):
            method.step(batch, stage.iterations - 1, engine.draw(torch.Generator().manual_seed(0)))
    except (RuntimeError, TypeError):  # what the meta device answers; NotImplementedError is a RuntimeError
        if engine.device.type != "meta":
            raise
        return UnknownMemory(stage.name, "its step depends on the values of its tensors")
    for optimizer in method.optimizers().values():
        if type(optimizer) not in MOMENTS:
            return UnknownMemory(stage.name, f"its optimiser {type(optimizer).__name__} is none of those that are counted")
    parameters, average = (_size(networks.values()) for networks in (method.networks(), method.ema_networks()))
    moments = sum(MOMENTS[type(optimizer)] * _bytes(_trained(optimizer)) for optimizer in method.optimizers().values())
    return StageMemory(
        stage=stage.name,
        parameters=parameters,
        average=average,
        optimizer=moments,
        gradients=engine.gradients,
        activations=engine.activations,
        peak=parameters + average + moments + engine.memory.peak,
    )


class _CountingEngine:
    """The training engine as far as a step uses it: it updates nothing, but runs backward and counts what is there when it begins."""

    rank = 0
    world_size = 1
    scratch: Path | None = None

    def __init__(self, memory: LiveMemory, device: torch.device) -> None:
        self.memory = memory
        self.device = device
        self.gradients = 0
        self.activations: dict[str, int] = {}
        self._optimizers: Mapping[str, torch.optim.Optimizer] = {}

    @property
    def update(self) -> Update:
        return self._update

    def bind(self, optimizers: Mapping[str, torch.optim.Optimizer], schedules: Mapping[str, Schedule]) -> None:
        self._optimizers = optimizers

    def place(self, network: nn.Module) -> None:
        return None

    def draw(self, generator: torch.Generator) -> Draw:
        return Draw(generator, device=self.device)

    def all_reduce(self, tensor: Tensor, reduction: str = "mean") -> Tensor:
        return tensor

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()

    def count(self, name: str, network: nn.Module) -> None:
        """Count under this name, from now on, what the network's passes make."""

        def counted(run: Callable[..., Any]) -> Callable[..., Any]:
            def run_and_count(*arguments: Any, **options: Any) -> Any:
                outer, self.memory.maker = self.memory.maker, name
                try:
                    return run(*arguments, **options)
                finally:
                    self.memory.maker = outer

            return run_and_count

        for entrance in ENTRANCES:
            if inspect.ismethod(getattr(network, entrance, None)):
                setattr(network, entrance, counted(getattr(network, entrance)))

    def _update(self, optimizer: str | torch.optim.Optimizer, loss: Tensor, *, retain_graph: bool = False) -> None:
        sizes = self.memory.by_maker()
        rest = sizes.pop("rest", 0)
        for name, size in [*sizes.items(), ("rest", rest)]:
            self.activations[name] = max(size, self.activations.pop(name, 0))
        parameters = _trained(self._optimizers[optimizer] if isinstance(optimizer, str) else optimizer)
        backward(loss, parameters, retain_graph)
        self.gradients = max(self.gradients, _bytes(p.grad for p in parameters if p.grad is not None))
        for parameter in parameters:
            parameter.grad = None


def _parts(networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Each network by its name; of a segmenter its encoder, its decoder and what else it has, also inside a larger network."""
    found = dict(networks)
    while "segmenter" in found:
        found |= dict(found.pop("segmenter").named_children())
    return found


def _trained(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _size(networks: Iterable[nn.Module]) -> int:
    return sum(_bytes([*network.parameters(), *network.buffers()]) for network in networks)
