"""What networks say of a sample of pixels: the raw material of every estimate without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from iccld.labels import IGNORE


@dataclass(frozen=True)
class Seen:
    """N pixels of some pictures, and what each voice says of them.

    A voice is a network or a view: the model, its average, source-only weights, the mirrored picture.
    """

    voices: Mapping[str, Tensor]
    """Name -> (N, K) float32, the logarithms of probabilities."""
    picture: Tensor
    """(N,) int64: the picture that each pixel belongs to, from 0."""
    truth: Tensor | None = None
    """(N,) int64 train ids below K; None where there are no labels."""

    def __len__(self) -> int:
        return len(self.picture)

    @property
    def num_classes(self) -> int:
        """K."""
        return int(next(iter(self.voices.values())).shape[1])

    @property
    def num_pictures(self) -> int:
        """Of which there are pixels."""
        return int(self.picture.max()) + 1 if len(self) else 0

    def labels(self, voice: str) -> Tensor:
        """(N,) int64: the class that a voice decides for."""
        return self.voices[voice].argmax(1)

    def right(self, voice: str) -> Tensor:
        """(N,) bool: where a voice is right; ValueError without labels."""
        if self.truth is None:
            raise ValueError("pixels without labels have no right answer")
        return self.labels(voice) == self.truth

    def only(self, kept: Tensor) -> Seen:
        """The pixels that are kept: (N,) bool, or positions (M,) int64."""
        voices = {name: said[kept] for name, said in self.voices.items()}
        return Seen(voices, self.picture[kept], None if self.truth is None else self.truth[kept])


def joined(parts: list[Seen]) -> Seen:
    """Several samples as one, their pictures numbered on; ValueError for none, or with labels in some alone."""
    if not parts:
        raise ValueError("no pixels to join")
    offset, pictures = 0, []
    for part in parts:
        pictures.append(part.picture + offset)
        offset += part.num_pictures
    truths = [part.truth for part in parts if part.truth is not None]
    if truths and len(truths) < len(parts):
        raise ValueError("some of the pixels have labels and others have none")
    voices = {name: torch.cat([part.voices[name] for part in parts]) for name in parts[0].voices}
    return Seen(voices, torch.cat(pictures), torch.cat(truths) if truths else None)


def points_in(height: int, width: int, count: int, generator: torch.Generator) -> Tensor:
    """Random pixels of a picture, the same one at times: -> (count, 2) int64 rows and columns."""
    rows = torch.randint(height, (count,), generator=generator)
    columns = torch.randint(width, (count,), generator=generator)
    return torch.stack([rows, columns], 1)


def at_points(logits: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Log-probabilities at some pixels: (1, K, h, w) logits, (N, 2) rows and columns in a picture of `size` -> (N, K) float32.

    The values of the logits resized to `size` (bilinear, half-pixel centres), without resizing the rest.
    """
    height, width = size
    centres = (points.to(logits.device).float() + 0.5) / torch.tensor([height, width], device=logits.device) * 2 - 1  # (N, 2) in -1..1
    grid = centres.flip(1)[None, None]  # (1, 1, N, 2): x, then y
    picked = functional.grid_sample(logits.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)  # (1, K, 1, N)
    return picked[0, :, 0].T.log_softmax(1)


def labelled_only(seen: Seen) -> Seen:
    """Without the pixels that the masks leave out (`IGNORE`)."""
    return seen if seen.truth is None else seen.only(seen.truth != IGNORE)
