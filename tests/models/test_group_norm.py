"""Group norms: values and gradients of PyTorch's bit for bit, also where its own gradient ends the process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iccld.models.group_norm import GroupNorm, PlainGroupNorm, TrainedNorm

SOURCES = Path(__file__).parents[2] / "src" / "iccld"


def picture(dtype: torch.dtype, memory_format: torch.memory_format = torch.channels_last, size: tuple[int, int] = (6, 10)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 + torch.randn(2, 16, *size, generator=generator)).to(dtype).to(memory_format=memory_format)


def weighted(norm: nn.GroupNorm) -> nn.GroupNorm:
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 16))
        norm.bias.copy_(torch.linspace(-1, 1, 16))
    return norm


def gradients(norm: nn.GroupNorm, x: Tensor, *, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Values, and gradients of `inputs` for a fixed gradient of theirs."""
    y = norm(x)
    y.backward(torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape), inputs=inputs)
    return (y.detach(), *(each.grad.clone() for each in inputs if each.grad is not None))


@pytest.mark.parametrize("size", [(6, 10), (1, 1), (7, 1)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_pytorch(dtype: torch.dtype, memory_format: torch.memory_format, size: tuple[int, int]) -> None:
    answers = []
    for norm in (weighted(PlainGroupNorm(4, 16)), weighted(nn.GroupNorm(4, 16))):
        x = picture(dtype, memory_format, size).requires_grad_()
        answers.append(gradients(norm, x, inputs=[x, norm.weight, norm.bias]))
    for ours, theirs in zip(*answers, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("size", [(6, 10), (1, 1), (7, 1)])
@pytest.mark.parametrize("wants", [False, True], ids=["frozen", "stopped"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [PlainGroupNorm, GroupNorm, TrainedNorm])
def test_a_channels_last_input_without_a_gradient_trains_the_norm(
    kind: type[nn.GroupNorm], dtype: torch.dtype, wants: bool, size: tuple[int, int]
) -> None:
    """What ends the process with `nn.GroupNorm` of torch 2.13: features of a frozen encoder, and a backward pass that stops at the norm."""
    norm, same = weighted(kind(4, 16)), weighted(kind(4, 16))
    x, other = picture(dtype, size=size).requires_grad_(wants), picture(dtype, size=size).requires_grad_()
    values, *ours = gradients(norm, x, inputs=[norm.weight, norm.bias])
    expected, _, *theirs = gradients(same, other, inputs=[other, same.weight, same.bias])
    assert torch.equal(values, expected)
    assert [torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)] == [True, True]
    assert x.grad is None


def test_a_part_of_a_channels_last_picture_is_taken_as_such() -> None:
    norm = weighted(PlainGroupNorm(4, 16))
    x = picture(torch.float32)[:, :, 1:4, 2:9]  # neither contiguous nor channels last as a whole
    values, *_ = gradients(norm, x, inputs=[norm.weight, norm.bias])
    torch.testing.assert_close(values, nn.functional.group_norm(x.contiguous(), 4, norm.weight, norm.bias).detach())


def test_no_network_has_a_norm_that_may_crash() -> None:
    made = {
        str(file.relative_to(SOURCES)): len(re.findall(r"\bnn\.GroupNorm\(", file.read_text("utf-8"))) for file in SOURCES.rglob("*.py")
    }
    assert {name for name, count in made.items() if count} == set()
    assert "models/group_norm.py" in made
