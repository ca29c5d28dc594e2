"""Resizing like another map: values and gradients of `interpolate`, whatever layout a gradient comes in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.models import blocks
from iccld.models.blocks import resize_like


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("is_part", [True, False])
def test_gradients_are_those_of_interpolate(layout: torch.memory_format, is_part: bool) -> None:
    x = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout).requires_grad_()
    beside = torch.randn(2, 4, 10, 12, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=layout)
    weight = torch.randn(2, 12 if is_part else 8, 10, 12, generator=torch.Generator().manual_seed(2)).contiguous(memory_format=layout)

    def answer(y: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([y, beside], 1) if is_part else y
        return y, torch.autograd.grad((joined * weight).sum(), x)[0]

    found = answer(resize_like(x, beside))
    expected = answer(F.interpolate(x, size=(10, 12), mode="bilinear", align_corners=False))
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


def test_a_part_of_a_gradient_arrives_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `interpolate` takes its slow path: what this is for."""
    seen = []
    real = blocks._channels_last

    def noted(gradient: Tensor) -> Tensor:
        answer = real(gradient)
        seen.append((gradient.is_contiguous(memory_format=torch.channels_last), answer.is_contiguous(memory_format=torch.channels_last)))
        return answer

    monkeypatch.setattr(blocks, "_channels_last", noted)
    x = torch.randn(1, 8, 5, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = resize_like(x, torch.empty(1, 1, 10, 12))
    joined = torch.cat([y, torch.randn(1, 4, 10, 12).contiguous(memory_format=torch.channels_last)], 1)
    (joined * torch.randn(1, 12, 10, 12).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert seen == [(False, True)]


def test_the_same_size_is_the_same_tensor_and_without_a_gradient_nothing_is_added() -> None:
    x = torch.randn(1, 2, 5, 6).contiguous(memory_format=torch.channels_last)
    assert resize_like(x, torch.empty(1, 1, 5, 6)) is x
    assert resize_like(x, torch.empty(1, 1, 10, 12)).grad_fn is None


def test_the_answer_may_be_changed_in_place() -> None:
    x = torch.randn(1, 2, 5, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    answer = resize_like(x, torch.empty(1, 1, 10, 12)).relu_()
    plain = F.interpolate(x, size=(10, 12), mode="bilinear", align_corners=False).relu()
    torch.testing.assert_close(torch.autograd.grad(answer.sum(), x), torch.autograd.grad(plain.sum(), x))
