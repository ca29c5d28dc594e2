"""Class counts -> a sampler that shows rare classes more often.  Pure functions of a numpy Generator.

Source: DAFormer (Hoyer et al. 2022), rare class sampling; `get_rcs_class_probs` in its `uda_dataset.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iccld.errors import DataError

MIN_SHARE = 3000 / (2048 * 1024)
"""DAFormer asks for more than 3,000 pixels of the class in a picture of Cityscapes' size; the share makes it hold at any size."""


def class_probabilities(counts: npt.NDArray[np.int64], temperature: float = 0.01) -> npt.NDArray[np.float64]:
    """(N, K) pixel counts -> (K,) P(c) = softmax((1 - f_c) / T), with f_c the class's share of all labelled pixels.

    Classes without a pixel have P = 0.  DataError when nothing is labelled.  temperature > 0; small values favour rare classes.
    """
    totals = counts.sum(axis=0).astype(np.float64)
    if totals.sum() == 0:
        raise DataError("rare-class sampling: no labelled pixel of any class in the source")
    return _softmax_of_rarity(totals / totals.sum(), totals > 0, temperature)


@dataclass(frozen=True, eq=False)
class RareClassSampler:
    """Draws a class by its rarity, then a picture uniformly among those that show enough of it."""

    probabilities: npt.NDArray[np.float64]
    """(K,) P(c); 0 for classes that no picture shows enough of."""
    pictures: tuple[npt.NDArray[np.int64], ...]
    """Per class, the dataset positions to choose from."""
    weights: npt.NDArray[np.float64] | None = None
    """(N,) how often each picture is drawn among those; None draws evenly."""

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """-> (dataset position, train id of the class drawn); a pure function of the generator's state."""
        drawn_class = int(rng.choice(len(self.probabilities), p=self.probabilities))
        candidates = self.pictures[drawn_class]
        if self.weights is not None:
            chances = self.weights[candidates] / self.weights[candidates].sum()
            return int(rng.choice(candidates, p=chances)), drawn_class
        return int(candidates[rng.integers(len(candidates))]), drawn_class


def rare_class_sampler(
    counts: npt.NDArray[np.int64], temperature: float = 0.01, min_pixels: float | None = None, min_share: float = MIN_SHARE
) -> RareClassSampler:
    """(N, K) pixel counts -> sampler.  A picture qualifies for a class with more than `min_pixels` of it, or, by default, with more
    than `min_share` of its labelled pixels.

    Classes without a qualifying picture are never drawn.  Differs from DAFormer, which stops with an assertion there.
    DataError when no picture qualifies for any class.
    """
    floor = counts.sum(axis=1, keepdims=True) * min_share if min_pixels is None else np.full((len(counts), 1), min_pixels)
    qualifies = counts > floor
    pictures = tuple(np.flatnonzero(qualifies[:, train_id]).astype(np.int64) for train_id in range(counts.shape[1]))
    totals = counts.sum(axis=0).astype(np.float64)
    drawable = np.asarray(qualifies.any(axis=0))
    if not drawable.any():
        raise DataError("rare-class sampling: no picture shows enough of any class; lower the least number of pixels")
    return RareClassSampler(_softmax_of_rarity(totals / totals.sum(), drawable, temperature), pictures)


def _softmax_of_rarity(share: npt.NDArray[np.float64], allowed: npt.NDArray[np.bool_], temperature: float) -> npt.NDArray[np.float64]:
    scores = np.where(allowed, (1 - share) / temperature, -np.inf)
    weights = np.exp(scores - scores.max())
    probabilities: npt.NDArray[np.float64] = weights / weights.sum()
    return probabilities
