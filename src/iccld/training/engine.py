"""Devices, precision, ranks and seeds: thin over lightning-fabric, which no other module imports."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.errors import ConfigError
from iccld.machine import forced_bf16
from iccld.methods.common.protocol import Schedule
from iccld.training import ranks
from iccld.training.update import Update
from iccld.transforms import Draw

Result = TypeVar("Result")


class NumberFormat(NamedTuple):
    """What networks compute in, and how their weights lie in memory."""

    precision: str
    """fp32 or bf16."""
    channels_last: bool

    def __str__(self) -> str:
        return f"{self.precision}, channels {'last' if self.channels_last else 'first'}"


def usual_format(precision: str) -> NumberFormat:
    """The layout that goes with a precision where nobody has measured: channels last pays where bf16 matrix units exist."""
    return NumberFormat(precision, precision == "bf16")


BF16_CPU_FEATURES = ("avx512_bf16", "amx_bf16")
"""CPU instructions without which bf16 is emulated, and slower than fp32."""


def bf16_is_fast(device: str | torch.device = "cpu") -> bool:
    """Whether the device computes in bf16 natively; on any other one bf16 costs time instead of saving it.

    Of a CPU, ICCLD_BF16=on or off says so instead, so that both answers can be tried on every machine (docs/reliability.md).
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        forced = forced_bf16()
        if forced is not None:
            return forced
        features = torch.cpu.get_capabilities()
        return any(bool(features.get(name)) for name in BF16_CPU_FEATURES)
    return False


def derive_seed(seed: int, *keys: str | int) -> int:
    """A seed in [0, 2^63) for one purpose: SHA-256 of the run's seed and the keys, so neighbours are unrelated."""
    text = "/".join([str(seed), *(str(key) for key in keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


class Engine:
    """One process' view of the training: its device and precision, its rank among the others, its `update`.

    A single process needs neither lightning-fabric nor torch.distributed; both are left unimported then.
    """

    def __init__(
        self,
        *,
        accelerator: str = "auto",
        devices: int = 1,
        num_nodes: int = 1,
        precision: str = "fp32",
        channels_last: bool = True,
        max_norm: float | Mapping[str, float | None] | None = None,
        max_skips: int = 10,
        num_threads: int | None = None,
        deterministic: bool = False,
        start: Literal["command", "spawn", "fork"] = "command",
    ) -> None:
        """Choose the device; several `devices` start only with `launch`.

        accelerator: "auto", "cpu" or "cuda".  precision: "fp32"; "bf16" (autocast; an error where it is not native); or
        "auto", which takes bf16 where it is.  max_norm, max_skips: see `Update`.  num_threads: CPU threads of this process.
        deterministic: refuse nondeterministic GPU kernels where there are others.  What torchrun or Slurm started is joined.
        Otherwise start says how `launch` begins every further process: "command" runs this command again; "spawn" starts a new process
        with the function alone; "fork" copies this process (on a CPU, before any backward pass).
        """
        if accelerator not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"accelerator must be auto, cpu or cuda, got {accelerator!r}")
        if accelerator == "cuda" and not torch.cuda.is_available():
            raise ConfigError("accelerator is cuda, but torch sees no CUDA device; use accelerator auto or cpu")
        if precision not in ("auto", "fp32", "bf16"):
            raise ConfigError(f"precision must be auto, fp32 or bf16, got {precision!r}")
        self.channels_last = channels_last
        self.compiler: str | None = None
        """Backend of `torch.compile` for every network that is placed from now on; None compiles none."""
        self.rank = 0
        self.world_size = 1
        self.scratch: Path | None = None
        self.device = torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        is_fast = bf16_is_fast(self.device)
        if precision == "bf16" and not is_fast:
            raise ConfigError(f"precision is bf16, but this {self.device.type} has no native bf16; use fp32 or auto")
        self.precision = "bf16" if is_fast and precision != "fp32" else "fp32"
        self._update_arguments: dict[str, Any] = {"max_norm": max_norm, "max_skips": max_skips}
        self._fabric: Any = None
        self._starts_function = False
        is_joining = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if devices * num_nodes > 1 or is_joining:
            self._starts_function = start != "command" and not is_joining
            devices = int(os.environ.get("LOCAL_WORLD_SIZE", devices)) if is_joining else devices
            strategy = "ddp" if not self._starts_function else f"ddp_{start}"
            self._fabric = _make_fabric(self.device.type, devices, num_nodes, strategy)
        self._update = Update(**self._update_arguments)

    def launch(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call `function(engine, *arguments)` on every rank; returns rank 0's answer.

        Started by torchrun or Slurm, or alone, the function is called right here; otherwise the other processes are started.
        """
        if self._fabric is None:
            return function(self, *arguments)
        if self._starts_function:
            # In one opaque argument: Fabric looks for modules in collections, and refuses the frozen dataclasses it finds there.
            def start(folder: Path) -> Result:
                answer: Result = self._fabric.launch(_start_rank, partial(_run_rank, self, function, arguments, folder))
                return answer

            return ranks.collect(start)
        self._fabric.launch()  # starts copies of this command, or joins those that torchrun started
        self._start(self._fabric)
        return function(self, *arguments)

    @property
    def format(self) -> NumberFormat:
        """Precision and layout; may be set before networks are placed."""
        return NumberFormat(self.precision, self.channels_last)

    @format.setter
    def format(self, wanted: NumberFormat) -> None:
        self.precision, self.channels_last = wanted

    @property
    def update(self) -> Update:
        """The update that methods call; see `bind`."""
        return self._update

    def bind(self, optimizers: Mapping[str, torch.optim.Optimizer], schedules: Mapping[str, Schedule]) -> None:
        """Make a fresh `update` for these optimisers; an earlier method keeps the one it was given."""
        self._update = Update(world_size=self.world_size, all_reduce=self.all_reduce, **self._update_arguments)
        self._update.bind(optimizers, schedules)

    def place(self, network: nn.Module) -> None:
        """Move a network to the device and memory format in place, with the weights and buffers of rank 0."""
        network.to(self.device)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.broadcast([*network.parameters(), *network.buffers()])
        if self.compiler is not None:  # its parts too: stages call some of them by themselves
            for part in (network, *network.children()):
                part.compile(backend=self.compiler)

    def to_device(self, batch: DomainBatch) -> DomainBatch:
        """The batch on the device; copies from pinned memory do not wait."""
        if self.device.type == "cpu":
            return batch
        return DomainBatch(*(None if t is None else t.to(self.device, non_blocking=True) for t in batch))  # type: ignore[arg-type]

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """bf16 autocast, or nothing at fp32."""
        # Without the cache of cast weights: a step updates weights and goes on, and a forward under no_grad would leave
        # cast copies without a graph for the next one.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False):
            yield

    # --- ranks ---------------------------------------------------------------------------------------------------------

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files and talks."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor, reduction: str = "mean") -> Tensor:
        """The "mean" or "sum" over the ranks, in a new or the same tensor; waits for all of them."""
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be mean or sum, got {reduction!r}")
        if self.world_size == 1:
            return tensor
        torch.distributed.all_reduce(tensor)  # not Fabric's, which would have all ranks meet at a barrier first
        if reduction == "sum":
            return tensor
        return tensor.div_(self.world_size) if tensor.is_floating_point() else tensor.copy_(tensor / self.world_size)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by rank 0's, in place; those of one type travel together."""
        if self.world_size == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor.detach())
        for rows in kinds.values():
            flat = torch.cat([row.reshape(-1) for row in rows])
            torch.distributed.broadcast(flat, src=0)
            parts = torch.split(flat, [row.numel() for row in rows])
            torch._foreach_copy_(rows, [part.view(row.shape) for part, row in zip(parts, rows, strict=True)])

    def share(self, text: str) -> str:
        """Rank 0's text, on every rank."""
        if self.world_size == 1:
            return text
        told: list[str] = [text]
        torch.distributed.broadcast_object_list(told, src=0)
        return told[0]

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; the same answer on all."""
        if self.world_size == 1:
            return flag
        return bool(self.all_reduce(torch.tensor([float(flag)], device=self.device), "sum").item() > 0)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            self._fabric.barrier()

    # --- seeds ---------------------------------------------------------------------------------------------------------

    def generator(self, seed: int, stage: str, iteration: int) -> torch.Generator:
        """A generator on the device, a function of its arguments: the same on every rank and after every resume."""
        return torch.Generator(self.device).manual_seed(derive_seed(seed, stage, iteration))

    def draw(self, generator: torch.Generator) -> Draw:
        """Draws for the global batch, of which this rank keeps its rows."""
        return Draw(generator, self.rank, self.world_size, self.device)

    def seed_global(self, seed: int, stage: str, iteration: int) -> None:
        """Seed the global generators (dropout, initialisation) of Python, NumPy and torch for one iteration of this rank."""
        value = derive_seed(seed, stage, iteration, "rank", self.rank)
        random.seed(value)
        np.random.seed(value % 2**32)
        torch.manual_seed(value)

    # --- readings ------------------------------------------------------------------------------------------------------

    def peak_memory_gib(self) -> float:
        """The most memory held so far in GiB: of the device on CUDA, otherwise of this process since its start."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return _peak_resident_kib() / 2**20

    def _start(self, fabric: Any) -> None:
        """Read rank and device once the processes exist."""
        self._fabric = fabric
        self.rank = int(fabric.global_rank)
        self.world_size = int(fabric.world_size)
        self.device = fabric.device
        self._update = Update(world_size=self.world_size, all_reduce=self.all_reduce, **self._update_arguments)


def _peak_resident_kib() -> int:
    """Most memory this program held resident, in KiB.

    getrusage counts what the process held before it became this program: a child started by a large parent would report the parent.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    own = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if own is None else own


def _make_fabric(kind: str, devices: int, num_nodes: int, strategy: str) -> Any:
    from lightning_fabric import Fabric  # takes seconds to import, and one process does without

    # A refusal on one rank ends the others, which torch tells in a line of its own; the error says what matters.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    return Fabric(accelerator=kind, devices=devices, num_nodes=num_nodes, strategy=strategy, precision="32-true")


def _start_rank(fabric: Any, body: Callable[[Any], Result]) -> Result:
    return body(fabric)


def _run_rank(engine: Engine, function: Callable[..., Result], arguments: tuple[Any, ...], folder: Path, fabric: Any) -> Result:
    """The body of a started process."""
    engine._start(fabric)
    with ranks.reporting(folder, engine.rank):
        return ranks.small(function(engine, *arguments))
