"""A pass that learns nothing gives what a pass with gradients gives, and never answers with weights that are no longer there."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.models.cpu_convolution import padded
from iccld.models.efficientnet import ConvNorm, EfficientNetLite, keep_folded
from iccld.models.folded import Kept

FORMS = {
    "stem": {"channels_in": 3, "channels_out": 8, "kernel": 3, "stride": 2},
    "expansion": {"channels_in": 8, "channels_out": 16},
    "projection": {"channels_in": 16, "channels_out": 8, "has_activation": False},
    "strided": {"channels_in": 8, "channels_out": 16, "stride": 2},
    "depthwise 3x3": {"channels_in": 16, "channels_out": 16, "kernel": 3, "is_depthwise": True},
    "depthwise 5x5": {"channels_in": 16, "channels_out": 16, "kernel": 5, "is_depthwise": True},
    "depthwise 3x3, strided": {"channels_in": 16, "channels_out": 16, "kernel": 3, "stride": 2, "is_depthwise": True},
    "depthwise 5x5, strided": {"channels_in": 16, "channels_out": 16, "kernel": 5, "stride": 2, "is_depthwise": True},
}
SIZES = [(12, 16), (7, 9), (12, 9), (7, 16), (1, 2)]


def layer_of(form: str) -> ConvNorm:
    """With norms that are no identity."""
    torch.manual_seed(0)
    layer = ConvNorm(**FORMS[form])  # type: ignore[arg-type]
    with torch.no_grad():
        for tensor in (layer.gain, layer.variance):
            tensor.uniform_(0.5, 2)
        for tensor in (layer.bias, layer.mean):
            tensor.normal_()
    return layer


def pictures(layer: ConvNorm, size: tuple[int, int]) -> Tensor:
    channels = layer.weight.shape[0] if layer.groups > 1 else layer.weight.shape[1]
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)


def largest_gap(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a.detach().float() - b.detach().float()).abs().max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_kept", [False, True])
def test_without_a_gradient_the_answer_is_the_same(form: str, size: tuple[int, int], is_kept: bool) -> None:
    """In fp32 up to the order of sums; in bf16 up to one of its steps, where sums round to either side."""
    layer = layer_of(form)
    x = pictures(layer, size)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2**-7)):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            learning = layer(x)
            assert learning.grad_fn is not None
            if is_kept:
                keep_folded(layer)
            for context in (torch.no_grad, torch.inference_mode):
                for _ in range(2):  # the second time with what is kept
                    with context():
                        answer = layer(x)
                    assert answer.dtype == dtype
                    assert answer.grad_fn is None
                    assert largest_gap(answer, learning) <= tolerance * max(1.0, float(learning.detach().abs().max()))


@pytest.mark.parametrize("zeros", [((0, 1), (0, 1)), ((1, 2), (0, 0)), ((0, 0), (2, 1)), ((3, 0), (0, 4))])
def test_padding_is_that_of_pytorch(zeros: tuple[tuple[int, int], tuple[int, int]]) -> None:
    rows, columns = zeros
    x = torch.randn(2, 5, 6, 7)
    assert torch.equal(padded(x, rows, columns), F.pad(x, (*columns, *rows)))
    assert padded(x, rows, columns).is_contiguous(memory_format=torch.channels_last)


def in_place(layer: ConvNorm) -> None:
    layer.weight.mul_(2)


def statistics(layer: ConvNorm) -> None:
    layer.variance.add_(1)


def loaded(layer: ConvNorm) -> None:
    layer.load_state_dict({name: value + 0.5 for name, value in layer.state_dict().items()})


def exchanged(layer: ConvNorm) -> None:
    layer.weight.data = layer.weight.data + 1


def another(layer: ConvNorm) -> None:
    layer.weight = torch.nn.Parameter(layer.weight + 1)


@pytest.mark.parametrize("change", [in_place, statistics, loaded, exchanged, another])
def test_other_weights_give_another_answer(change: Callable[[ConvNorm], None]) -> None:
    layer = layer_of("depthwise 3x3")
    keep_folded(layer)
    x = pictures(layer, (6, 6))
    with torch.no_grad():
        before = layer(x)
        change(layer)
        after = layer(x)
    assert not torch.equal(before, after)
    assert largest_gap(after, layer(x)) <= 1e-5 * float(after.abs().max())  # with a gradient to come, nothing is kept


def test_what_is_kept_is_used_again_and_a_copy_has_its_own() -> None:
    layer = layer_of("depthwise 5x5")
    with torch.no_grad():
        assert layer.folded(torch.float32) is not layer.folded(torch.float32)
        keep_folded(layer)
        kept = layer.folded(torch.float32)
        assert layer.folded(torch.float32) is kept
        assert layer.folded(torch.bfloat16).kernel.dtype == torch.bfloat16
        assert layer.folded(torch.float32) is kept
        other = copy.deepcopy(layer)
        other.weight.mul_(2)
        assert torch.equal(other.folded(torch.float32).kernel, 2 * kept.kernel)
        assert layer.folded(torch.float32) is kept


def test_a_layer_forgets_when_it_learns_again_and_when_it_is_moved_copied_or_pickled() -> None:
    layer = layer_of("depthwise 3x3")
    keep_folded(layer)
    x = pictures(layer, (6, 6))
    with torch.no_grad():
        before = layer(x)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)  # which leaves versions as they are
    layer(x).sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = layer(x)
        assert not torch.equal(before, after)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert layer.kept is not None
            assert layer.kept.noted.folded
            assert other.kept is not None
            assert not other.kept.noted.folded
            assert torch.equal(other(x), after)
        layer.to("meta")
        assert not layer.kept.noted.tensors


def test_a_layer_that_keeps_is_exported() -> None:
    layer = layer_of("projection").requires_grad_(False)
    keep_folded(layer)
    x = pictures(layer, (6, 6))
    with torch.no_grad():
        expected = layer(x)
        exported = torch.export.export(layer, (x,)).module()
        assert largest_gap(exported(x), expected) <= 1e-5


def test_tensors_that_do_not_tell_when_they_are_written_to_are_folded_every_time() -> None:
    with torch.inference_mode():
        layer = layer_of("expansion")
        keep_folded(layer)
        first = layer.folded(torch.float32)
        layer.weight.mul_(2)
        assert torch.equal(layer.folded(torch.float32).kernel, 2 * first.kernel)


def test_a_network_keeps_every_layer_where_it_is_told_to() -> None:
    network = EfficientNetLite("efficientnet-lite0")
    layers = [module for module in network.modules() if isinstance(module, ConvNorm)]
    assert all(layer.kept is None for layer in layers)
    keep_folded(network)
    assert all(isinstance(layer.kept, Kept) for layer in layers)
    assert len(layers) == 48


def test_frozen_layers_of_a_network_that_learns_leave_no_trace_for_the_backward_pass() -> None:
    layer = layer_of("stem").requires_grad_(False)
    x = pictures(layer, (12, 16))
    assert layer(x).grad_fn is None
    assert layer(x.requires_grad_()).grad_fn is not None  # whoever asks for the picture's gradient gets it
