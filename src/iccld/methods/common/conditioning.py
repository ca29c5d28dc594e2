"""What a denoiser may be told of the picture: its clean latent, or less (docs/readings.md, row 3)."""

from __future__ import annotations

from torch import Tensor

from iccld.transforms import Draw, block_mask

BLOCK = 4
"""Side of a hidden block, latent cells."""


def corrupt(condition: Tensor, kind: str, strength: float, draw: Draw) -> Tensor:
    """(B, C, h, w) normalised latent -> the same with "noise", "drop" or "mask"; any other kind leaves it as it is.

    noise: Gaussian, its standard deviation drawn per picture from 0 to `strength`.  drop: the whole condition is 0 with probability
    `strength`.  mask: blocks are 0, their share drawn per picture from 0 to `strength`.
    """
    rows, shape = len(condition), tuple(condition.shape[1:])
    if kind == "noise":
        return condition + draw.uniform(rows, high=strength)[:, None, None, None] * draw.normal(rows, shape)
    if kind == "drop":
        return condition * ~draw.chosen(rows, strength)[:, None, None, None]
    if kind == "mask":
        return condition * block_mask(draw.uniform(rows, high=strength), (shape[1], shape[2]), draw, block=BLOCK)
    return condition
