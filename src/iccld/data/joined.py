"""Several data sets as one domain, each with its own layout, ids and endings; drawn by their numbers of pictures, or by weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iccld.data.dataset import FileDataset
from iccld.errors import DataError

CYCLE = 60
"""Positions after which every data set had its share of the weights."""


@dataclass
class JoinedDataset(FileDataset):
    """The pictures of several data sets, one after the other.  A picture's name begins with the data set's number, '0/'."""

    parts: tuple[FileDataset, ...] = ()
    part_numbers: list[int] = field(default_factory=list)
    """Of the part that each picture came from."""
    weights: tuple[float, ...] = ()
    """How often each part is drawn, relative to the others; empty: as often as it has pictures."""

    def read_label(self, index: int) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 train ids, by the part's own ids.  DataError without a mask or with an unknown id."""
        path, part = self.label_paths[index], self.parts[self.part_numbers[index]]
        if path is None:
            raise DataError(f"{self.image_paths[index]}: has no labels; expected a mask in {part.label_folder or part.root}")
        return part.raw_ids.apply(part.read_mask(path), path)

    def subset(self, indices: Sequence[int]) -> FileDataset:
        """The pictures at these positions, renumbered from 0."""
        chosen = super().subset(indices)
        return replace(chosen, part_numbers=[self.part_numbers[i] for i in indices])  # type: ignore[call-arg]

    def picture_weights(self) -> npt.NDArray[np.float64] | None:
        """(N,) how often each picture is drawn, with mean 1; None without weights."""
        if not self.weights:
            return None
        counts = np.bincount(self.part_numbers, minlength=len(self.parts))
        each = np.array(self.weights) / np.maximum(counts, 1)
        weights = each[self.part_numbers]
        return np.asarray(weights / weights.mean(), dtype=np.float64)

    def position(self, position: int) -> tuple[int, int, int]:
        """Position in the endless sequence -> (part, how manieth picture of that part this is, first index of the part)."""
        cycle, offset = divmod(position, len(self._pattern))
        part = self._pattern[offset]
        drawn = cycle * self._pattern.count(part) + self._pattern[:offset].count(part)
        return part, drawn, self.part_numbers.index(part)

    @cached_property
    def _pattern(self) -> tuple[int, ...]:
        """Part numbers in the proportion of the weights, evenly spread."""
        present = sorted(set(self.part_numbers))
        shares = np.array([self.weights[part] for part in present])
        counts = np.maximum(1, np.round(CYCLE * shares / shares.sum())).astype(int)
        places = [((k + 0.5) / count, part) for part, count in zip(present, counts.tolist(), strict=True) for k in range(count)]
        return tuple(part for _, part in sorted(places))


def join(parts: Sequence[FileDataset], weights: Sequence[float] = ()) -> FileDataset:
    """The data sets as one; a single one stays itself.  All are of one label space."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    tables = np.concatenate([part.raw_ids.lookup for part in parts])
    return JoinedDataset(
        root=Path(", ".join(str(part.root) for part in parts)),
        format="+".join(part.format for part in parts),
        names=[f"{number}/{name}" for number, part in enumerate(parts) for name in part.names],
        image_paths=[path for part in parts for path in part.image_paths],
        label_paths=[path for part in parts for path in part.label_paths],
        label_space=first.label_space,
        raw_ids=replace(first.raw_ids, lookup=tables),
        depth_paths=[path for part in parts for path in part.depth_paths],
        notes=[note for part in parts for note in part.notes],
        problems=[problem for part in parts for problem in part.problems],
        label_folder=first.label_folder,
        wide=first.wide,
        parts=tuple(parts),
        part_numbers=[number for number, part in enumerate(parts) for _ in part.names],
        weights=tuple(weights),
    )


def with_extra(source: FileDataset, extra: FileDataset, share: float) -> FileDataset:
    """A data set with another one behind it that is drawn in `share` of the cases, 0 < share < 1; the first keeps its own weights.

    Either may be a subset.  Both are of one label space.
    """
    parts = source.parts if isinstance(source, JoinedDataset) else (source,)
    numbers = source.part_numbers if isinstance(source, JoinedDataset) else [0] * len(source)
    counts = np.bincount(numbers, minlength=len(parts)).astype(float)
    own = np.array(source.weights) if isinstance(source, JoinedDataset) and source.weights else counts
    own = np.where(counts > 0, own, 0.0)
    joined = join([*parts, extra], (*((1 - share) * own / own.sum()).tolist(), share))
    named = source.names if isinstance(source, JoinedDataset) else [f"0/{name}" for name in source.names]
    return replace(
        joined,
        names=[*named, *(f"{len(parts)}/{name}" for name in extra.names)],
        image_paths=[*source.image_paths, *extra.image_paths],
        label_paths=[*source.label_paths, *extra.label_paths],
        depth_paths=[*source.depth_paths, *extra.depth_paths],
        wide=source.wide,
        part_numbers=[*numbers, *([len(parts)] * len(extra))],  # type: ignore[call-arg]
    )
