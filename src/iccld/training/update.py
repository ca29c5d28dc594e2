"""One update of one optimiser: backward -> mean over ranks -> finite? -> clip -> step -> schedule -> zero."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from iccld.errors import NumericError
from iccld.methods.common.protocol import Schedule
from iccld.models.layout import flattened, is_channels_last, shaped

BUCKET_BYTES = 25 * 2**20
"""Gradients travel in flat buckets of about this size, as in DistributedDataParallel."""

RUNAWAY = 1e3
"""How many times its bound a gradient's norm must be to count as running away; early gradients reach some tens."""

MAX_RUNAWAYS = 50
"""Such updates of one optimiser in a row that stop the training; the first tenth of them only warn."""

AllReduce = Callable[[Tensor, str], Tensor]
"""(tensor, "mean" | "sum") -> the tensor reduced over the ranks."""


class Update:
    """What a method calls as `update(optimizer, loss)`.  Decision 0002 tells why gradients are averaged here.

    A loss or gradient that is not finite on any rank makes no step on any rank.  Such updates are counted; `max_skips` in a
    row of one optimiser raise NumericError (exit code 5) with the optimiser and the batch's files.  The schedule steps in
    either case: the learning rate is a function of the iteration.

    Finite gradients of more than `RUNAWAY` times their bound are clipped like any other and counted: a discriminator that wins
    without end shows so.  A tenth of `MAX_RUNAWAYS` in a row leave a notice, all of them raise NumericError.
    """

    def __init__(
        self,
        *,
        world_size: int = 1,
        all_reduce: AllReduce | None = None,
        max_norm: float | Mapping[str, float | None] | None = None,
        max_skips: int = 10,
    ) -> None:
        """`max_norm` bounds the L2 norm of an optimiser's gradients; a mapping gives one bound per optimiser, None none."""
        if world_size > 1 and all_reduce is None:
            raise ValueError(f"{world_size} ranks need an all_reduce")
        self.world_size = world_size
        self.all_reduce = all_reduce
        self.max_norm = max_norm
        self.max_skips = max_skips
        self.describe_batch: Callable[[], str] = _no_description
        """Names the files of the batch in hand; set by the loop."""
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedules: dict[str, Schedule] = {}
        self.skipped = 0
        self.skips_in_a_row: dict[str, int] = {}
        self.runaways: dict[str, int] = {}
        self.runaways_in_a_row: dict[str, int] = {}
        self.notices: list[str] = []
        """Sentences for the user, taken away by the loop."""

    def bind(self, optimizers: Mapping[str, torch.optim.Optimizer], schedules: Mapping[str, Schedule]) -> None:
        """Serve these optimisers from now on, and forget the skips of earlier ones."""
        if unknown := schedules.keys() - optimizers.keys():
            raise ValueError(f"schedules {sorted(unknown)} belong to no optimiser; there are {sorted(optimizers)}")
        self.optimizers = dict(optimizers)
        self.schedules = dict(schedules)
        self.skipped = 0
        self.skips_in_a_row = dict.fromkeys(optimizers, 0)
        self.runaways = dict.fromkeys(optimizers, 0)
        self.runaways_in_a_row = dict.fromkeys(optimizers, 0)
        self.notices = []

    def __call__(self, optimizer: str | torch.optim.Optimizer, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Update the parameters of `optimizer` with the gradient of `loss` ()."""
        # 1. Whose parameters.
        name = optimizer if isinstance(optimizer, str) else self._name_of(optimizer)
        if name not in self.optimizers:
            raise KeyError(f"no optimiser {name!r}; there are {sorted(self.optimizers)}")
        chosen = self.optimizers[name]
        parameters = [p for group in chosen.param_groups for p in group["params"] if p.requires_grad]

        # 2. Backward, into these parameters only: what an adversarial loss passes through keeps no gradient.
        #    The autocast around the step must not reach the backward pass: its operations take the types of the forward.
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward(inputs=parameters, retain_graph=retain_graph)  # type: ignore[no-untyped-call]

        # 3. Mean over ranks.
        detached = loss.detach().float()
        if self.world_size > 1:
            detached = self._average(parameters, detached)

        # 4. Finite on every rank?
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            raise ValueError(f"the loss given to update({name!r}, ...) depends on none of that optimiser's parameters")
        norm = torch.nn.utils.get_total_norm(gradients)
        loss_value, norm_value = torch.stack([detached, norm.float()]).tolist()  # the update's only device sync
        is_finite = math.isfinite(loss_value) and math.isfinite(norm_value)

        # 5. Clip and step.
        max_norm = self.max_norm.get(name) if isinstance(self.max_norm, Mapping) else self.max_norm
        if is_finite:
            if max_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
            chosen.step()
        chosen.zero_grad(set_to_none=True)

        # 6. Schedule, and count.
        with warnings.catch_warnings():
            if not is_finite:  # torch would take a skipped step for a wrong order of calls
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            if name in self.schedules:
                self.schedules[name].step()
        self._count(name, is_finite, loss_value, norm_value)
        self._watch(name, norm_value, 1.0 if max_norm is None else max_norm)

    def state_dict(self) -> dict[str, Any]:
        """The counters of skipped and of runaway updates."""
        rows = {"skips_in_a_row": self.skips_in_a_row, "runaways": self.runaways, "runaways_in_a_row": self.runaways_in_a_row}
        return {"skipped": self.skipped, **{key: dict(row) for key, row in rows.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.skipped = int(state["skipped"])
        self.skips_in_a_row = {name: int(state["skips_in_a_row"][name]) for name in self.optimizers}
        self.runaways = {name: int(state["runaways"][name]) for name in self.optimizers}
        self.runaways_in_a_row = {name: int(state["runaways_in_a_row"][name]) for name in self.optimizers}

    def _name_of(self, optimizer: torch.optim.Optimizer) -> str:
        for name, candidate in self.optimizers.items():
            if candidate is optimizer:
                return name
        raise KeyError(f"update was given an optimiser that Method.optimizers() does not name; there are {sorted(self.optimizers)}")

    def _average(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Replace the gradients by their mean over the ranks; returns the mean loss."""
        assert self.all_reduce is not None
        # A parameter that no rank used keeps no gradient, as on one device: weight decay and momentum must not move it.
        flags = [float(p.grad is not None) for p in parameters]
        head = torch.cat([loss.reshape(1), loss.new_tensor(flags)])
        # All ranks send all gradients, zeros where one has none, so that loss and flags travel in the first bucket.
        for number, bucket in enumerate(_buckets(parameters)):
            # The values in the order in which the parameter's lie, the same on all ranks.
            rows = [flattened(torch.zeros_like(p) if p.grad is None else p.grad, is_channels_last(p)) for p in bucket]
            rows = rows if number else [head.to(rows[0].dtype), *rows]
            flat = self.all_reduce(torch.cat(rows), "mean")
            parts = list(torch.split(flat, [row.numel() for row in rows]))
            if number == 0:
                head = parts.pop(0)
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = shaped(part, parameter.shape, is_channels_last(parameter))
        for parameter, count in zip(parameters, head[1:].tolist(), strict=True):
            if count == 0:
                parameter.grad = None
        return head[0].float()

    def _count(self, name: str, is_finite: bool, loss: float, norm: float) -> None:
        if is_finite:
            self.skips_in_a_row[name] = 0
            return
        self.skipped += 1
        self.skips_in_a_row[name] += 1
        if self.skips_in_a_row[name] >= self.max_skips:
            what = f"loss {loss:g}, gradient norm {norm:g}"
            raise NumericError(
                f"loss of {name!r}: not finite in {self.max_skips} updates in a row ({what}) at {self.describe_batch()}; "
                "lower the learning rate, or train in fp32"
            )

    def _watch(self, name: str, norm: float, bound: float) -> None:
        """Count gradients that run away; a norm that is not finite is counted elsewhere."""
        if not math.isfinite(norm):
            return
        if norm <= RUNAWAY * bound:
            self.runaways_in_a_row[name] = 0
            return
        self.runaways[name] += 1
        self.runaways_in_a_row[name] += 1
        row = self.runaways_in_a_row[name]
        what = f"{name!r} runs away: its gradient norm, now {norm:.3g}, was above {RUNAWAY * bound:g} in {row} updates in a row"
        if row >= MAX_RUNAWAYS:
            raise NumericError(
                f"{what}, at {self.describe_batch()}; lower its learning rate (of a discriminator: also its weight), "
                "and go on from the last checkpoint before it began"
            )
        if row == MAX_RUNAWAYS // 10:
            self.notices.append(f"{what}; it is clipped to {bound:g}")


def _no_description() -> str:
    return "an unnamed batch"


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Group tensors of one type into buckets of about BUCKET_BYTES, in order."""
    buckets: list[list[Tensor]] = []
    filled: dict[torch.dtype, int] = {}
    current: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients:
        size = gradient.numel() * gradient.element_size()
        if gradient.dtype not in current or filled[gradient.dtype] + size > BUCKET_BYTES:
            current[gradient.dtype] = []
            filled[gradient.dtype] = 0
            buckets.append(current[gradient.dtype])
        current[gradient.dtype].append(gradient)
        filled[gradient.dtype] += size
    return buckets
