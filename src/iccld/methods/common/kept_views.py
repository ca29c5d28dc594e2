"""Features of a frozen encoder, computed once for a view and read again: a file without a name, mapped into memory.

The file lies in the run's folder and goes with the process, however that ends: nothing has to be cleared away, and no features of other
weights or other views can be met in it.  What it held is made again after a resume, from the same pictures and the same draws.
Pages of it that memory has no room for are written to the disk and read back by the operating system.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from iccld.errors import ConfigError
from iccld.models.layout import flattened, is_channels_last, shaped

HALF = torch.finfo(torch.float16).max
ALIGNMENT = 16
"""Bytes: where a tensor may begin in the file."""


class KeptViews:
    """A fixed number of places, each for the tensors of one view; all views have the same shapes.

    float32 is kept in half precision, int64 (labels, 0 to 255) in bytes; the rest as it is.  What comes back is of the type that went in.
    """

    def __init__(self, count: int, folder: Path | None) -> None:
        """folder: where the file lies; None: in the folder for temporary files."""
        self.count, self.folder = count, folder
        self._layout: list[tuple[int, torch.Size, torch.dtype, bool]] = []
        self._stride = 0
        self._bytes: Tensor | None = None
        self._full = [False] * count

    def has(self, place: int) -> bool:
        """Whether a view is kept there."""
        return self._full[place]

    def keep(self, place: int, tensors: Sequence[Tensor]) -> None:
        """Put a view there.  ConfigError when the disk has no room for all of them."""
        stored = [_compact(tensor) for tensor in tensors]
        if self._bytes is None:
            self._bytes = self._reserve(tensors, stored)
        for (offset, *_), values in zip(self._layout, stored, strict=True):
            flat = values.view(torch.uint8)
            self._bytes[place * self._stride + offset :][: len(flat)] = flat
        self._full[place] = True

    def get(self, place: int, device: torch.device) -> list[Tensor]:
        """The view that is kept there."""
        if self._bytes is None or not self._full[place]:
            raise KeyError(f"no view is kept at place {place}")
        tensors = []
        for offset, shape, kind, lies_last in self._layout:
            stored = _stored_type(kind)
            size = shape.numel() * stored.itemsize
            values = shaped(self._bytes[place * self._stride + offset :][:size].view(stored), shape, lies_last)
            tensors.append(values.to(device).to(kind, copy=True))  # the small type travels, and is widened where it arrives
        return tensors

    def _reserve(self, tensors: Sequence[Tensor], stored: Sequence[Tensor]) -> Tensor:
        """The file's bytes, all of them there before the first is written: a full disk would otherwise end the process."""
        for tensor, values in zip(tensors, stored, strict=True):
            self._layout.append((self._stride, tensor.shape, tensor.dtype, is_channels_last(tensor)))
            self._stride += -(-values.numel() * values.element_size() // ALIGNMENT) * ALIGNMENT
        total = self._stride * self.count
        folder = Path(tempfile.gettempdir()) if self.folder is None else self.folder
        free = shutil.disk_usage(folder).free
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, total)
                else:
                    file.truncate(total)
                return torch.frombuffer(mmap.mmap(file.fileno(), total), dtype=torch.uint8)
        except OSError as error:
            raise ConfigError(
                f"settings.kept_views {self.count} takes {total / 2**30:.2f} GiB, and {folder} has {free / 2**30:.2f} free "
                f"({error.strerror}); use at most {free // self._stride} views, or 0 for fresh ones"
            ) from None


def view_generator(seed: int, place: int) -> torch.Generator:
    """The draws of a kept view, a function of the run's seed and its place alone: the same when it is made again."""
    digest = hashlib.sha256(f"{seed}/kept view/{place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _stored_type(kind: torch.dtype) -> torch.dtype:
    return {torch.float32: torch.float16, torch.int64: torch.uint8}.get(kind, kind)


def _compact(tensor: Tensor) -> Tensor:
    """In one row on the CPU, in the type in which it is kept, in the order in which it lies in memory."""
    ordered = flattened(tensor.detach(), is_channels_last(tensor))
    if ordered.dtype == torch.float32:
        ordered = ordered.clamp(-HALF, HALF)
    return ordered.to(device="cpu", dtype=_stored_type(tensor.dtype)).contiguous()
