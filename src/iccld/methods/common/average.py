"""The exponential moving average of a network: the `ema_model` that makes pseudo-labels and predicts."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from iccld.methods.common.written import WrittenBuffers


class Ema:
    """Averages a module's parameters and copies its buffers, in a separate module that is never swapped in.

    Differs from diffusers' `EMAModel`: buffers follow, and the ramp is the field's (Mean Teacher; DACS), not (1+i)/(10+i).
    """

    def __init__(self, model: nn.Module, decay: float, ramp: bool = True) -> None:
        """`decay` in [0, 1].  With `ramp` the first updates average over the few models seen so far."""
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"EMA decay must lie in [0, 1], got {decay}")
        self.decay = decay
        self.ramp = ramp
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self._written = WrittenBuffers()

    def decay_at(self, iteration: int) -> float:
        """min(1 - 1/(i+1), decay) for iteration i = 0, 1, ...: 0 at first, so the first update copies the model."""
        return min(1.0 - 1.0 / (iteration + 1), self.decay) if self.ramp else self.decay

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int) -> None:
        """ema <- d * ema + (1 - d) * model with d = `decay_at(iteration)`; buffers are copied.  Call after the model's step."""
        averages: list[Tensor] = list(self.module.parameters())
        parameters: list[Tensor] = list(model.parameters())
        if len(averages) != len(parameters):
            raise ValueError(f"the average has {len(averages)} parameters, the model {len(parameters)}: not the same network")
        torch._foreach_lerp_(averages, parameters, 1.0 - self.decay_at(iteration))
        written = {id(buffer) for buffer in self._written.take([model])}  # at first all, later those that moved: most networks have none
        if written:
            pairs = [pair for pair in zip(self.module.buffers(), model.buffers(), strict=True) if id(pair[1]) in written]
            torch._foreach_copy_([average for average, _ in pairs], [buffer for _, buffer in pairs])
