"""Convolution, scale, shift and ReLU6 as one step of a CPU: the numbers and gradients of autograd, in every form it takes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.models import cpu_convolution
from iccld.models.cpu_convolution import Geometry, convolution

FORMS = {
    "product": (1, 1, False),
    "dense 3x3, strided": (3, 2, False),
    "dense 1x1, strided": (1, 2, False),
    "depthwise 3x3": (3, 1, True),
    "depthwise 5x5": (5, 1, True),
    "depthwise 3x3, strided": (3, 2, True),
    "depthwise 5x5, strided": (5, 2, True),
}


def plain(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, geometry: Geometry) -> Tensor:
    """Each by itself: padding, convolution, scale and shift, ReLU6."""
    stride, rows, columns, is_depthwise, has_activation = geometry
    x = F.conv2d(F.pad(x, (*columns, *rows)), weight, None, stride, groups=len(weight) if is_depthwise else 1)
    x = x * scale[:, None, None] + shift[:, None, None]
    return F.relu6(x) if has_activation else x


def case(form: str, size: tuple[int, int], dtype: torch.dtype) -> tuple[list[Tensor], Geometry]:
    kernel, stride, is_depthwise = FORMS[form]
    generator = torch.Generator().manual_seed(kernel + 10 * stride)
    channels_in, channels_out = (16, 16) if is_depthwise else (8, 16)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    x = drawn(2, channels_in, *size).contiguous(memory_format=torch.channels_last)
    weight = drawn(channels_out, 1 if is_depthwise else channels_in, kernel, kernel)
    missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size]
    rows, columns = ((each // 2, each - each // 2) for each in missing)
    tensors = [x, weight, drawn(channels_out).abs() + 0.5, drawn(channels_out)]
    return [each.requires_grad_() for each in tensors], Geometry(stride, rows, columns, is_depthwise, True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(12, 16), (7, 9)])
@pytest.mark.parametrize("has_activation", [True, False])
@pytest.mark.parametrize("spreads", [True, False])
def test_output_and_gradients_are_those_of_autograd(
    form: str, size: tuple[int, int], has_activation: bool, spreads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32, strided gradients by either way, within 4e-5 of the largest value."""
    monkeypatch.setattr(cpu_convolution, "SLOW_STRIDED", {torch.float32} if spreads else set())
    tensors, geometry = case(form, size, torch.float32)
    geometry = geometry._replace(has_activation=has_activation)
    results = []
    for function in (convolution, plain):
        y = function(*tensors, geometry)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        results.append([y, *torch.autograd.grad((y * weight).sum(), tensors)])
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert float((found - expected).abs().max().detach()) <= 4e-5 * float(expected.abs().max().detach().clamp(min=1))


@pytest.mark.parametrize("form", FORMS)
def test_under_autocast_gradients_keep_their_parameters_format(form: str) -> None:
    """Without ReLU6, whose edges rounding crosses; bf16 has 8 bits, so a sum of rounded terms is right within 2 %."""
    tensors, geometry = case(form, (12, 16), torch.float32)
    geometry = geometry._replace(has_activation=False)
    with torch.autocast("cpu", torch.bfloat16):
        y = convolution(*tensors, geometry)
    assert y.dtype == torch.bfloat16
    found = torch.autograd.grad(y.float().sum(), tensors)
    expected = torch.autograd.grad(plain(*tensors, geometry).sum(), tensors)
    for own, other, tensor in zip(found, expected, tensors, strict=True):
        assert own.dtype == tensor.dtype
        assert float((own - other).norm()) <= 0.02 * float(other.norm())


def test_nothing_is_computed_for_what_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, geometry = case("depthwise 5x5, strided", (12, 16), torch.float32)
    x, weight, scale, shift = tensors
    monkeypatch.setattr(cpu_convolution, "_input_gradient", lambda *_: pytest.fail("the picture needs no gradient"))
    y = convolution(x.detach(), weight, scale.detach(), shift.detach(), geometry)
    y.sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        assert convolution(*tensors, geometry).grad_fn is None


def test_in_double_precision_finite_differences_agree() -> None:
    tensors, geometry = case("depthwise 5x5, strided", (7, 8), torch.float64)
    assert torch.autograd.gradcheck(lambda *each: convolution(*each, geometry._replace(has_activation=False)), tensors)


@pytest.mark.parametrize("form", FORMS)
def test_without_what_the_fused_ones_need_of_a_cpu_bf16_is_computed_all_the_same(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU has no AVX-512, oneDNN's fused convolution raises in bf16, while PyTorch's own emulates it."""
    assert cpu_convolution._can_fuse() == cpu_convolution.FUSED
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not cpu_convolution._can_fuse()
    monkeypatch.setattr(cpu_convolution, "FUSED", False)
    monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", refuse)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", refuse)
    tensors, geometry = case(form, (12, 16), torch.float32)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = convolution(*tensors, geometry)
    assert found.dtype == torch.bfloat16
    before = plain(*tensors, geometry._replace(has_activation=False)).detach()
    assert float((found.float() - F.relu6(before)).abs().max()) <= 0.02 * float(before.abs().max())


def refuse(*_: object) -> Tensor:
    raise RuntimeError("mkldnn_convolution: bf16 path needs the cpu support avx512bw, avx512vl and avx512dq")
