"""Random draws for one rank's rows of the global batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Draw:
    """Draws parameters for the *global* batch and keeps this rank's rows, so that two processes augment as one would.

    Rank r of n holds rows r, r + n, r + 2n, ... of the global batch.  The generator must be in the same state
    on every rank; it may live on another device than the images.
    """

    def __init__(self, generator: torch.Generator, rank: int = 0, world_size: int = 1, device: torch.device | str = "cpu") -> None:
        self.generator = generator
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device(device)

    def uniform(self, batch: int, shape: Sequence[int] = (), low: float = 0.0, high: float = 1.0) -> Tensor:
        """(batch, *shape) float32 uniform in [low, high)."""
        drawn = torch.rand((batch * self.world_size, *shape), generator=self.generator, device=self.generator.device)
        return (low + (high - low) * drawn[self.rank :: self.world_size]).to(self.device)

    def normal(self, batch: int, shape: Sequence[int] = ()) -> Tensor:
        """(batch, *shape) float32 standard normal."""
        drawn = torch.randn((batch * self.world_size, *shape), generator=self.generator, device=self.generator.device)
        return drawn[self.rank :: self.world_size].to(self.device)

    def integers(self, batch: int, low: int, high: int) -> Tensor:
        """(batch,) int64 in low .. high - 1."""
        drawn = torch.randint(low, high, (batch * self.world_size,), generator=self.generator, device=self.generator.device)
        return drawn[self.rank :: self.world_size].to(self.device)

    def shared(self) -> Draw:
        """Draws from the same generator, of which one row is the whole batch's, the same on every rank."""
        return Draw(self.generator, device=self.device)

    def numbers(self, count: int) -> list[float]:
        """Python numbers, uniform in [0, 1), one draw for the batch of all ranks; on a GPU they wait for it."""
        drawn: list[float] = torch.rand((1, count), generator=self.generator, device=self.generator.device)[0].tolist()
        return drawn

    def chosen(self, batch: int, probability: float) -> Tensor:
        """(batch,) bool, each row True with the given probability: "applied with probability p"."""
        return self.uniform(batch) < probability


def where_chosen(chosen: Tensor, changed: Tensor, image: Tensor) -> Tensor:
    """Rows of `changed` where chosen (B,) and of `image` elsewhere; on a CPU in the memory of `changed`, which has to be nobody else's."""
    if changed.device.type != "cpu" or changed.requires_grad:
        return torch.where(chosen[:, None, None, None], changed, image)
    for row, is_chosen in enumerate(chosen.tolist()):
        if not is_chosen:
            changed[row] = image[row]
    return changed
