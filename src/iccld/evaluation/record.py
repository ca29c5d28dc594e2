"""The confusion of every single picture, kept on disk, so that two runs can be compared picture by picture later (numpy only)."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iccld.errors import DataError
from iccld.evaluation.confusion import Confusion
from iccld.files import write_atomically


@dataclass
class Record:
    """Pictures in the order in which they were scored, each with its confusion."""

    names: list[str] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)

    def add(self, name: str, single: Confusion, prediction: npt.NDArray[np.uint8]) -> None:
        """Take in one picture; an observer of `evaluate`."""
        self.names.append(name)
        self.confusions.append(single)

    def save(self, path: Path) -> None:
        """Write one compressed .npz, whole or not at all; makes the folder."""
        stored = io.BytesIO()
        np.savez_compressed(stored, names=np.array(self.names), matrices=np.stack([one.matrix for one in self.confusions]))
        write_atomically(path, stored.getvalue())

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what `save` wrote; DataError when it is missing or damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                names, matrices = stored["names"], stored["matrices"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: holds no confusions of single pictures ({error}); score the run again") from error
        if matrices.ndim != 3 or matrices.shape[2] != matrices.shape[1] + 1 or len(names) != len(matrices):
            raise DataError(f"{path}: has shape {matrices.shape} for {len(names)} pictures, not (n, K, K + 1); score the run again")
        return cls([str(name) for name in names], [_confusion(matrix) for matrix in matrices])


def _confusion(matrix: npt.NDArray[np.int64]) -> Confusion:
    confusion = Confusion(matrix.shape[0])
    confusion.matrix += matrix
    confusion.num_images = 1
    return confusion
