"""Convolution, scale and shift of each channel, and ReLU6 as one step of a CPU, whose gradients take the fast paths.

What PyTorch 2.13 loses on a CPU in networks of depthwise convolutions, and what is done here:

- oneDNN's kernels for depthwise convolutions serve forward passes, and gradients of 3x3 at stride 1.  The weight gradient of 5x5 and,
  in bf16, the input gradient of a strided one fall back to loops 5 to 100 times slower.  Both are written in terms of what is fast.
- A 1x1 convolution of pictures that lie channels last is a product of two matrices, and faster as one; its weight gradient is faster with
  the fewer channels first.
- In bf16 oneDNN adds the bias and cuts off at 0 and 6 on the way out (`FUSED`), instead of in a pass of their own.
- An activation in place keeps a copy of its input for the backward pass; that of ReLU6 can be told from its output.
- Kernels are scaled and cast to the number format inside, not by steps of autograd of their own.

`benchmarks/encoder_step.py` measures what that gains.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LAST = torch.channels_last

SLOW_STRIDED = frozenset({torch.bfloat16})
"""Number formats in which the input gradient of a strided depthwise convolution is slow."""


def _can_fuse() -> bool:
    """Whether this PyTorch has oneDNN's convolution and product that end with an activation (as its wheels for Linux have), and this CPU
    the AVX-512 that they ask for in bf16: without it they raise, while PyTorch's own convolutions emulate bf16."""
    names = ("_convolution_pointwise", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    has_all = torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, name) for name in names)
    return has_all and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


FUSED = _can_fuse()


class Geometry(NamedTuple):
    """Of one convolution: groups are 1 or the number of channels; padding is of rows and of columns, before and after."""

    stride: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    is_depthwise: bool
    has_activation: bool


def same(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a side so that a convolution gives side / stride values, rounded up: TensorFlow's "same"."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def ready(x: Tensor) -> Tensor:
    """Channels last, in autocast's number format where that is on."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return x.to(dtype).contiguous(memory_format=LAST)


def convolution(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, geometry: Geometry) -> Tensor:
    """(B, C_in, h, w), (C_out, C_in or 1, k, k), (C_out,), (C_out,) -> (B, C_out, h', w'): relu6(conv(x, weight) scale + shift).

    Channels last, in autocast's number format where that is on.  Gradients are those of autograd up to rounding and cannot be
    differentiated again.
    """
    answer: Tensor = _Convolution.apply(ready(x), weight, scale, shift, geometry)  # type: ignore[no-untyped-call]
    return answer


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, geometry: Geometry) -> Tensor:
        kernel, bias = (weight * scale[:, None, None, None]).to(x.dtype), shift.to(x.dtype)
        padding = _padding(geometry)
        if padding is None:
            x, padding = padded(x, geometry.rows, geometry.columns), (0, 0)
        y = convolved(x, kernel, bias, geometry, padding)
        ctx.save_for_backward(x, weight, scale, kernel, y if geometry.has_activation else None)
        ctx.geometry = geometry
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, kernel, y = ctx.saved_tensors
        wants_input, wants_weight, wants_scale, wants_shift = ctx.needs_input_grad[:4]
        stride, _, _, is_depthwise, has_activation = ctx.geometry
        padding = _padding(ctx.geometry) or (0, 0)
        if has_activation:
            gradient = torch.ops.aten.hardtanh_backward(gradient, y, 0, 6)
        gradient = gradient.to(x.dtype).contiguous(memory_format=LAST)
        of_input = of_kernel = None
        if is_product(kernel, stride):
            flat = _as_rows(gradient)
            if wants_input:
                of_input = _as_picture(flat @ kernel.flatten(1), x)
            if wants_weight or wants_scale:
                is_turned = x.dtype == torch.bfloat16 and kernel.shape[0] > kernel.shape[1]
                of_kernel = ((_as_rows(x).t() @ flat).t() if is_turned else flat.t() @ _as_rows(x)).view(kernel.shape)
        elif is_depthwise:
            of_input = _input_gradient(gradient, x, kernel, ctx.geometry) if wants_input else None
            of_kernel = _weight_gradient(gradient, x, kernel, stride, padding) if wants_weight or wants_scale else None
        else:
            of_input, of_kernel = _backward(gradient, x, kernel, stride, padding, (wants_input, wants_weight or wants_scale))[:2]
            of_input = _of_picture(of_input, ctx.geometry) if wants_input else None
        of_kernel = None if of_kernel is None else of_kernel.to(weight.dtype)
        return (
            of_input,
            of_kernel * scale[:, None, None, None] if wants_weight and of_kernel is not None else None,
            (of_kernel * weight).sum((1, 2, 3)) if wants_scale and of_kernel is not None else None,
            gradient.sum((0, 2, 3), dtype=weight.dtype) if wants_shift else None,
            None,
        )


def is_product(kernel: Tensor, stride: int) -> bool:
    """Whether the convolution is one of 1x1 at stride 1, which is a product of two matrices."""
    return kernel.shape[-1] == 1 and stride == 1


def convolved(x: Tensor, kernel: Tensor, bias: Tensor, geometry: Geometry, padding: tuple[int, int]) -> Tensor:
    """Convolution, bias and, where there is one, ReLU6, in x's number format; in bf16 in one call of oneDNN.

    x channels last.  padding: zeros before and after rows and columns, in the place of the geometry's own.
    """
    groups = len(kernel) if geometry.is_depthwise else 1
    if FUSED and x.dtype == torch.bfloat16:
        return _fused(x, kernel, bias, (geometry.stride, padding, groups, geometry.has_activation))
    if is_product(kernel, geometry.stride):
        y = _as_picture(torch.addmm(bias, _as_rows(x), kernel.flatten(1).t()), x)
    else:
        y = F.conv2d(x, kernel, bias, geometry.stride, padding, groups=groups)
    return y.clamp_(0, 6) if geometry.has_activation else y


def padded(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Zeros before and after rows and columns, channels last; `F.pad` first fills all of it with zeros."""
    batch, channels, height, width = x.shape
    y = x.new_empty((batch, height + sum(rows), width + sum(columns), channels)).permute(0, 3, 1, 2)
    y[:, :, rows[0] : rows[0] + height, columns[0] : columns[0] + width] = x
    for side, (before, behind) in ((2, rows), (3, columns)):
        y.narrow(side, 0, before).zero_()
        y.narrow(side, y.shape[side] - behind, behind).zero_()
    return y


def _as_rows(x: Tensor) -> Tensor:
    """(B, C, h, w) channels last -> (B h w, C), the same memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _as_picture(rows: Tensor, like: Tensor) -> Tensor:
    """(B h w, C) -> (B, C, h, w) channels last, of the height and width of `like`; the same memory."""
    return rows.view(len(like), *like.shape[2:], rows.shape[1]).permute(0, 3, 1, 2)


def _fused(x: Tensor, kernel: Tensor, bias: Tensor, how: tuple[int, tuple[int, int], int, bool]) -> Tensor:
    """Convolution, bias and, where asked for, ReLU6 in one call of oneDNN.  how: stride, padding, groups, whether it is asked for."""
    stride, padding, groups, has_activation = how
    after = ("hardtanh", [0.0, 6.0], "") if has_activation else ("none", [], "")
    if is_product(kernel, stride):
        return _as_picture(torch.ops.mkldnn._linear_pointwise(_as_rows(x), kernel.flatten(1), bias, *after), x)
    sides = ([*padding], [stride, stride], [1, 1], groups)
    answer: Tensor = torch.ops.mkldnn._convolution_pointwise(x, kernel, bias, *sides, *after)
    return answer


def _padding(geometry: Geometry) -> tuple[int, int] | None:
    """What oneDNN itself pads by, rows and columns; None where it differs before and after."""
    rows, columns = geometry.rows, geometry.columns
    return (rows[0], columns[0]) if rows[0] == rows[1] and columns[0] == columns[1] else None


def _of_picture(gradient: Tensor, geometry: Geometry) -> Tensor:
    """Without what was padded beyond oneDNN; a view, which what comes next reads as fast as a copy."""
    if _padding(geometry) is not None:
        return gradient
    (top, bottom), (left, right) = geometry.rows, geometry.columns
    return gradient[:, :, top : gradient.shape[2] - bottom, left : gradient.shape[3] - right]


def _input_gradient(gradient: Tensor, x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    """Of a depthwise convolution; x is padded where oneDNN could not pad.

    Where PyTorch's would be slow it is a convolution itself: of the gradient with zeros between its rows and columns, with the kernel
    turned round.
    """
    padding = _padding(geometry)
    if geometry.stride == 1 or x.dtype not in SLOW_STRIDED:
        return _of_picture(_backward(gradient, x, kernel, geometry.stride, padding or (0, 0), (True, False))[0], geometry)
    size, stride = kernel.shape[-1], geometry.stride
    sides = [side - (0 if padding else sum(zeros)) for side, zeros in zip(x.shape[2:], (geometry.rows, geometry.columns), strict=True)]
    half = size // 2  # of an odd kernel: what the convolution gives is as large as what it is given
    spread = x.new_zeros((len(x), *sides, x.shape[1])).permute(0, 3, 1, 2)
    first = [half - zeros[0] for zeros in (geometry.rows, geometry.columns)]
    spread[:, :, first[0] :: stride, first[1] :: stride] = gradient
    return F.conv2d(spread, kernel.flip((2, 3)), None, 1, half, groups=len(kernel))


def _weight_gradient(gradient: Tensor, x: Tensor, kernel: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
    """Of a depthwise convolution: 5x5 is covered by four of 3x3, two rows and columns apart, which agree where they overlap."""
    if kernel.shape[-1] != 5:
        answer: Tensor = _backward(gradient, x, kernel, stride, padding, (False, True))[1]
        return answer
    if any(padding):
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    height, width = ((side - 1) * stride + 3 for side in gradient.shape[2:])
    whole, part = torch.empty_like(kernel), kernel[..., :3, :3].contiguous()
    for row in (0, 2):
        for column in (0, 2):
            seen = x[:, :, row : row + height, column : column + width]
            whole[..., row : row + 3, column : column + 3] = _backward(gradient, seen, part, stride, (0, 0), (False, True))[1]
    return whole


def _backward(gradient: Tensor, x: Tensor, kernel: Tensor, stride: int, padding: tuple[int, int], wanted: tuple[bool, bool]) -> Any:
    """PyTorch's own gradients of input and kernel; one group, or as many as channels."""
    groups = x.shape[1] // kernel.shape[1]
    return torch.ops.aten.convolution_backward(
        gradient, x, kernel, None, [stride, stride], list(padding), [1, 1], False, [0, 0], groups, [*wanted, False]
    )
