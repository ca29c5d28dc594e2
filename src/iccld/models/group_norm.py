"""Group normalisation as PyTorch computes it, without a crash of its gradient on a CPU, and in the number formats that are fastest there.

torch 2.13's `native_group_norm_backward` ends the process (SIGSEGV) on a CPU where the input is channels last and its gradient is not asked
for: where a decoder begins with a norm and a frozen encoder's latent comes in, or where `backward(inputs=...)` stops behind the norm.  Here
it is always asked for, and dropped where nobody wants it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class PlainGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, in what it is given: the same values and gradients bit for bit.  Gradients on a CPU can be taken once."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dim() != 4 or not torch.is_grad_enabled() or not self.weight.requires_grad:
            return super().forward(x)
        if x.stride(1) >= x.stride(3):  # not channels last: neighbours in memory belong to one channel
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, _ChannelsLastNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps))  # type: ignore[no-untyped-call]


class GroupNorm(PlainGroupNorm):
    """In the number format of its own parameters, whatever it is given: a CPU takes twice as long over its gradient in bf16, and a GPU's
    autocast does the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.dtype == self.weight.dtype else x.to(self.weight.dtype))


class TrainedNorm(PlainGroupNorm):
    """Where a gradient is wanted on a CPU, in the number format of its parameters; otherwise in what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        is_trained = x.device.type == "cpu" and torch.is_grad_enabled()
        return super().forward(x.to(self.weight.dtype) if is_trained else x)


class _ChannelsLastNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
        y, mean, reciprocal = torch.native_group_norm(x, weight, bias, *_sizes(x), groups, epsilon)
        ctx.save_for_backward(x, weight, mean, reciprocal)
        ctx.groups = groups
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, reciprocal = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        wanted = [True, *ctx.needs_input_grad[1:3]]  # the input's always, and autograd drops it: without it the process ends
        answer = torch.ops.aten.native_group_norm_backward(gradient, x, mean, reciprocal, weight, *_sizes(x), ctx.groups, wanted)
        return *answer, None, None


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """B, C, H * W."""
    return int(x.shape[0]), int(x.shape[1]), int(x.shape[2] * x.shape[3])
