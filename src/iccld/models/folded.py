"""Convolutions of a pass that learns nothing, on a CPU: what `cpu_convolution` computes, without what a gradient would need.

Borders come without a copy of the picture, and where weights have stopped to learn, norms are folded into kernels and cast once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.models.cpu_convolution import Geometry, convolved, padded

Zeros = tuple[int, int]
"""Zeros before and after a side."""
NONE: Zeros = (0, 0)


class Folded:
    """A convolution with its norm, ReLU6 if it has one, in one number format."""

    def __init__(self, weight: Tensor, scale: Tensor, shift: Tensor, geometry: Geometry, dtype: torch.dtype) -> None:
        """weight (C_out, C_in or 1, k, k); scale, shift (C_out,).  geometry: without its rows and columns, which calls name."""
        self.kernel, self.bias = (weight * scale[:, None, None, None]).to(dtype), shift.to(dtype)
        self.geometry = geometry
        self.grown: dict[tuple[Zeros, Zeros], Tensor] = {(NONE, NONE): self.kernel}

    def __call__(self, x: Tensor, rows: Zeros = NONE, columns: Zeros = NONE) -> Tensor:
        """(B, C_in, h, w) channels last -> (B, C_out, h', w')."""
        if not self.geometry.is_depthwise and (rows[0] != rows[1] or columns[0] != columns[1]):
            x, rows, columns = padded(x, rows, columns), NONE, NONE
        padding = (max(rows), max(columns))
        return convolved(x, self._kernel(rows, columns), self.bias, self.geometry, padding)

    def _kernel(self, rows: Zeros, columns: Zeros) -> Tensor:
        """oneDNN pads alike before and after; where that is too much, rows or columns of zeros in the kernel read what is too much."""
        more = (_more(rows), _more(columns))
        if more not in self.grown:
            self.grown[more] = F.pad(self.kernel, (*more[1], *more[0]))
        return self.grown[more]


def _more(zeros: Zeros) -> Zeros:
    """By how much a kernel grows before and after, so that padding the larger number on both sides comes to the same."""
    before, behind = zeros
    return max(behind - before, 0), max(before - behind, 0)


class _Noted(NamedTuple):
    """What was folded, and from what."""

    tensors: tuple[Tensor, ...]
    """Aliases of the weights: their memory is held, so that nothing else can come to lie there."""
    versions: tuple[int, ...]
    folded: dict[torch.dtype, Folded]


NOTHING = _Noted((), (), {})


class Kept:
    """Folded convolutions of a layer that learns no more, by number format: to fold one and cast it takes as long as many of them do.

    Weights that PyTorch's own operations write to are noticed.  What writes past them (`tensor.data`, NumPy, a fused optimiser) is not:
    a layer forgets when it learns again, and `keep_folded` makes a network forget.  A copy and a pickle begin empty.
    """

    def __init__(self) -> None:
        self.noted = NOTHING

    def __getstate__(self) -> dict[str, _Noted]:
        return {"noted": NOTHING}

    def of(self, tensors: Sequence[Tensor]) -> dict[torch.dtype, Folded]:
        """Those of these very tensors: empty when they are others than last time, or were written to since."""
        if torch.compiler.is_compiling() or any(tensor.is_inference() for tensor in tensors):  # these do not tell
            return {}
        versions, addresses = tuple(tensor._version for tensor in tensors), [tensor.data_ptr() for tensor in tensors]
        noted = self.noted
        if versions != noted.versions or addresses != [tensor.data_ptr() for tensor in noted.tensors]:
            self.noted = noted = _Noted(tuple(tensor.detach() for tensor in tensors), versions, {})
        return noted.folded
