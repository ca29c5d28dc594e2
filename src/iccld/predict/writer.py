"""The files that one prediction becomes, and how they reach the disk."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from iccld.data import png
from iccld.files import write_atomically
from iccld.labels import LabelSpace
from iccld.predict.names import PICTURES, Job, output_files

UInt8Array = npt.NDArray[np.uint8]


class OutputWriter:
    """Writes what is asked for of one prediction, each file atomically."""

    def __init__(
        self,
        out: Path,
        label_space: LabelSpace,
        raw_table: npt.NDArray[np.integer[Any]],
        overlay_alpha: float,
        kinds: Sequence[str] = PICTURES,
    ) -> None:
        self.kinds = tuple(kinds)
        self.out = out
        self.label_space = label_space
        self.raw_table = raw_table.astype(np.uint8 if int(raw_table.max()) < 256 else np.uint16)
        self.overlay_alpha = overlay_alpha

    def files(self, name: str) -> dict[str, str]:
        """Output folder -> file below `out`."""
        return output_files(name, self.kinds)

    def write(
        self,
        job: Job,
        image: UInt8Array,
        labels: UInt8Array,
        certainty: UInt8Array | None = None,
        logits: npt.NDArray[np.float16] | None = None,
    ) -> dict[str, Any]:
        """(H, W, 3), (H, W), (H, W) uint8 -> the picture's entry in the index.  Raises OSError when a file cannot be written.

        certainty, logits: needed where they are among the outputs.
        """
        outputs = self.files(job.name)
        for folder, file in outputs.items():
            data = self._encoded(folder, image, labels, certainty, logits)
            write_atomically(self.out / file, data, durable="later")  # with the index, many at once
        return describe(job, self.label_space, labels, certainty, outputs)

    def _encoded(
        self,
        kind: str,
        image: UInt8Array,
        labels: UInt8Array,
        certainty: UInt8Array | None,
        logits: npt.NDArray[np.float16] | None,
    ) -> bytes:
        """The file of one output."""
        if kind == "train_ids":
            return png.encode(labels, self.label_space.palette)
        if kind == "color":
            return png.encode(self.label_space.palette[labels])  # (H, W, 3)
        if kind == "raw_ids" and self.raw_table.dtype == np.uint8:
            return png.encode(self.raw_table.astype(np.uint8)[labels])
        data = io.BytesIO()
        if kind == "raw_ids":
            Image.fromarray(self.raw_table[labels]).save(data, format="PNG", compress_level=1)
        elif kind == "confidence" and certainty is not None:
            Image.fromarray(certainty).save(data, format="PNG", compress_level=1)
        elif kind == "overlay":
            color = Image.fromarray(self.label_space.palette[labels])
            Image.blend(Image.fromarray(image), color, self.overlay_alpha).save(data, format="JPEG", quality=90)
        elif kind == "logits" and logits is not None:
            np.save(data, np.asarray(logits, dtype=np.float16))
        else:
            raise TypeError(f"{kind} cannot be written without what it shows")
        return data.getvalue()


def describe(
    job: Job, label_space: LabelSpace, labels: UInt8Array, certainty: UInt8Array | None, outputs: dict[str, str]
) -> dict[str, Any]:
    """A finished picture's entry in the index: what it was made from, its files, its classes' shares, mean confidence (0..1) if known."""
    counts = [int(np.count_nonzero(labels == train_id)) for train_id in range(label_space.num_classes)]
    mean = {} if certainty is None else {"confidence": round(float(certainty.mean()) / 255.0, 6)}
    return {
        "name": job.name,
        **dict(zip(("bytes", "mtime_ns"), fingerprint(job.path), strict=True)),
        "size": list(labels.shape),
        "outputs": outputs,
        "shares": {name: round(count / labels.size, 6) for name, count in zip(label_space.names, counts, strict=True)},
        **mean,
    }


def fingerprint(path: Path) -> list[int]:
    """[bytes, modification time in ns] of a file, by which a rerun knows that it is the same one; [-1, -1] when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]
