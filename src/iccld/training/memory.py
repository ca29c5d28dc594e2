"""Memory of tensors, counted exactly: on the meta device a training step of any size costs neither memory nor arithmetic."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

IN_BF16 = frozenset(
    {"conv1d", "conv2d", "conv_transpose2d", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention"}
)
IN_FP32 = frozenset(
    {"group_norm", "layer_norm", "softmax", "log_softmax", "cross_entropy", "nll_loss", "mse_loss", "kl_div", "exp", "log", "pow", "norm"}
)
"""Functions that CUDA's autocast runs in bf16, and in fp32 (PyTorch's notes on automatic mixed precision, op-specific behaviour);
everything else keeps the type it is given."""


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made inside and still alive, and their peak.

    What is there before (parameters, say) is not counted.  Kernels' workspaces and an allocator's fragments are not tensors.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[int, tuple[int, str]] = {}
        """Bytes and maker of each living storage."""
        self.now = 0
        self.peak = 0
        self.maker = "rest"
        """Under whose name the bytes made from now on are counted."""

    def by_maker(self) -> dict[str, int]:
        """What lives now, by who made it."""
        sizes: Counter[str] = Counter()
        for size, maker in self.live.values():
            sizes[maker] += size
        return dict(sizes)

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        quick = QUICK.get(function) if isinstance(args[0] if args else None, Tensor) and args[0].device.type == "meta" else None
        outputs = function(*args, **(kwargs or {})) if quick is None else quick(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor) and output.untyped_storage()._cdata not in given:
                self._add(output.untyped_storage())
        return outputs

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.live:
            self.live[key] = storage.nbytes(), self.maker
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self.live.pop(key)[0]


class CudaAutocast(TorchFunctionMode):
    """Gives tensors of the meta device the types that bf16 autocast gives them on CUDA, and attention by the memory-efficient kernel,
    where the meta device's own would make the whole matrix.

    The meta device has no autocast; the CPU's, which does not touch its tensors, tells where autocast is on, so that code that switches it
    off keeps its types here too.
    """

    def __init__(self, bf16: bool) -> None:
        super().__init__()
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False)

    def __enter__(self) -> CudaAutocast:
        self.autocast.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self.autocast.__exit__(*raised)

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if torch.is_autocast_enabled("cpu") and (name in IN_BF16 or name in IN_FP32):
            dtype = torch.bfloat16 if name in IN_BF16 else torch.float32
            args, kwargs = tree_map(lambda x: _cast(x, dtype), (args, kwargs))
        if name == "scaled_dot_product_attention" and args[0].device.type == "meta":
            return _efficient_attention(*args, **kwargs)
        return function(*args, **kwargs)


def backward(loss: Tensor, parameters: Sequence[Tensor], retain_graph: bool = False) -> None:
    """`loss.backward(inputs=parameters)` under a `CudaAutocast` that stays on.

    Tensor.backward is itself a torch function, inside which the mode would be off and recomputed blocks be run without it; the engine
    behind it is none.
    """
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), retain_graph, False, tuple(parameters), allow_unreachable=True, accumulate_grad=True
    )


def _counts(values: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Of `bincount`: its length depends on values, but for ours, which say how many classes there are."""
    return torch.empty(minlength, dtype=torch.int64, device="meta")


def _group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, hxw: int, groups: int, eps: float) -> Any:
    """What `native_group_norm` gives: the values, and mean and reciprocal deviation of each group."""
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(n, groups), x.new_empty(n, groups)


def _group_norm_backward(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, n: int, c: int, hxw: int, groups: int, mask: list[bool]
) -> Any:
    """The gradients that are asked for, of the values, the weight and the bias."""
    shapes = (x.shape, (c,), (c,))
    return tuple(x.new_empty(shape) if is_asked else None for shape, is_asked in zip(shapes, mask, strict=True))


QUICK: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.bincount.default: _counts,
    torch.ops.aten.native_group_norm.default: _group_norm,
    torch.ops.aten.native_group_norm_backward.default: _group_norm_backward,
}
"""Answers of the meta device that PyTorch cannot give, or works out in Python from dozens of smaller operations each."""


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    made: tuple[Tensor, ...] = kernel(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)
    return made[0]
