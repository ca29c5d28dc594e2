"""Labels of whole target pictures from a network that stands still: several views, the most probable class of their mean."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from iccld.batch import DomainBatch
from iccld.evaluation import teacher_logits
from iccld.evaluation.views import show_at, without_padding
from iccld.files import write_atomically
from iccld.geometry import padded
from iccld.labels import IGNORE
from iccld.methods.common.mixing import at_size
from iccld.methods.common.parts import Parts, normalise
from iccld.transforms import in_unit

REMEMBERED = 1 << 29
"""Bytes of labels kept in memory, at the network's resolution; a picture beyond them is labelled again whenever it comes."""

STORE = "ICCLD_VIEW_LABELS"
"""Environment variable with a folder in which runs that start from the same weights keep these labels for each other, as the grid's do."""


class ViewLabels:
    """Labels of target pictures, made when one first comes and remembered: the network never moves, so they never do.

    Pictures are labelled one by one: what a picture is labelled with depends on it alone, not on what lies beside it in a batch or was
    labelled before, so that a resumed training meets the same labels.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        parts: Parts,
        scales: tuple[float, ...],
        flip: bool,
        weights: Callable[[], Sequence[nn.Module]],
    ) -> None:
        """weights: the modules that `network` computes with, once they are loaded: labels in `STORE` lie under their hash."""
        self.network, self.parts, self.scales, self.flip, self.weights = network, parts, scales, flip, weights
        self.store = os.environ.get(STORE)
        self._known: dict[bytes, Tensor] = {}
        self._bytes = 0
        self._folder: Path | None = None

    def of(self, batch: DomainBatch) -> Tensor:
        """(B, H, W) int64 train ids of the batch's target pictures, whole; 255 beside a picture that does not fill its row."""
        images, sizes = batch.target_image, batch.target_size
        whole = (int(images.shape[2]), int(images.shape[3]))
        sizes_of_rows = [whole] * len(images) if sizes is None else [(int(height), int(width)) for height, width in sizes.tolist()]
        rows = []
        for image, (height, width) in zip(images, sizes_of_rows, strict=True):
            label = at_size(self._one(image[None, :, :height, :width]).long(), (height, width))  # (1, h, w)
            rows.append(nn.functional.pad(label, (0, whole[1] - width, 0, whole[0] - height), value=IGNORE))
        return torch.cat(rows)

    def forget(self) -> None:
        """Label every picture anew when it next comes."""
        self._known.clear()
        self._bytes = 0
        self._folder = None

    def _one(self, image: Tensor) -> Tensor:
        """The label of a picture at the network's resolution: (1, 3, H, W) -> (1, h, w) uint8.  Pictures are told apart by their pixels."""
        if image.is_meta:
            return self._predict(image)
        key = hashlib.blake2b(
            image.cpu().contiguous().numpy().tobytes(), digest_size=16, key=str(tuple(image.shape)).encode()[:64]
        ).digest()
        known = self._known.get(key)
        if known is not None:
            return known.to(image.device)
        label = self._predict(image) if self.store is None else self._shared(image, Path(self.store), key.hex())
        if self._bytes + label.numel() <= REMEMBERED:
            self._known[key] = label.cpu()
            self._bytes += label.numel()
        return label

    def _shared(self, image: Tensor, store: Path, name: str) -> Tensor:
        """The label that another run of these weights has made of this picture, or this one's, left for others."""
        if self._folder is None:
            self._folder = store / _hash_of(self.weights(), image, f"{self.scales} {self.flip}")
        path = self._folder / f"{name}.npy"
        with suppress(OSError, ValueError, EOFError):  # not there, or damaged: it is made, and written again
            return torch.from_numpy(np.load(path, allow_pickle=False)).to(image.device)
        label, file = self._predict(image), io.BytesIO()
        np.save(file, label.cpu().numpy())
        write_atomically(path, file.getvalue(), durable="later", is_shared=True)
        return label

    @torch.no_grad()
    def _predict(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) uint8 or float32 in 0..1 -> (1, h, w) uint8."""
        image = in_unit(image)
        content = (int(image.shape[2]), int(image.shape[3]))
        size = padded(content, self.parts.size_multiple)
        shown = normalise(show_at(image, content, size))
        logits = teacher_logits(self.network, shown, self.scales, self.flip, self.parts.size_multiple)
        return without_padding(logits, content, size).argmax(1).to(torch.uint8)


def _hash_of(modules: Sequence[nn.Module], image: Tensor, asked: str) -> str:
    """Of everything that labels depend on: weights, views, number format, device and PyTorch's version."""
    kind = image.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    found = hashlib.blake2b(f"{asked} {precision} {kind} {torch.__version__}".encode(), digest_size=16)
    for module in modules:
        for tensor in module.state_dict().values():
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
