"""The files that one prediction becomes, and how they reach the disk."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from iccld.files import write_atomically
from iccld.labels import LabelSpace
from iccld.predict.names import OUTPUTS, USUAL, Job, output_files

UInt8Array = npt.NDArray[np.uint8]


class OutputWriter:
    """Writes what is asked for of one prediction, each file atomically."""

    def __init__(
        self,
        out: Path,
        label_space: LabelSpace,
        raw_table: npt.NDArray[np.integer[Any]],
        overlay_alpha: float,
        kinds: Sequence[str] = USUAL,
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
        self, job: Job, image: UInt8Array, labels: UInt8Array, certainty: UInt8Array, logits: npt.NDArray[np.float16] | None = None
    ) -> dict[str, Any]:
        """(H, W, 3), (H, W), (H, W) uint8 -> the picture's entry in the index.  Raises OSError when a file cannot be written."""
        outputs = self.files(job.name)
        for folder, file in outputs.items():
            data = io.BytesIO()
            if folder == "logits":
                np.save(data, np.asarray(logits, dtype=np.float16))
            else:
                is_jpeg = OUTPUTS[folder] == ".jpg"
                options: dict[str, Any] = {"format": "JPEG", "quality": 90} if is_jpeg else {"format": "PNG", "compress_level": 4}
                self._picture(folder, image, labels, certainty).save(data, **options)
            write_atomically(self.out / file, data.getvalue(), durable="later")  # with the index, many at once
        return describe(job, self.label_space, labels, certainty, outputs)

    def _picture(self, kind: str, image: UInt8Array, labels: UInt8Array, certainty: UInt8Array) -> Image.Image:
        if kind == "train_ids":
            return indexed_picture(labels, self.label_space.palette)
        if kind == "raw_ids":
            return Image.fromarray(self.raw_table[labels])
        if kind == "confidence":
            return Image.fromarray(certainty)
        color = Image.fromarray(self.label_space.palette[labels])  # (H, W, 3)
        return color if kind == "color" else Image.blend(Image.fromarray(image), color, self.overlay_alpha)


def indexed_picture(labels: UInt8Array, palette: UInt8Array) -> Image.Image:
    """(H, W) uint8 train ids, (K, 3) uint8 RGB -> a picture of mode P, whose indices are the ids."""
    picture = Image.fromarray(labels)
    picture.putpalette(palette.tobytes())
    return picture


def describe(job: Job, label_space: LabelSpace, labels: UInt8Array, certainty: UInt8Array, outputs: dict[str, str]) -> dict[str, Any]:
    """A finished picture's entry in the index: what it was made from, its files, its classes' shares and mean confidence (0..1)."""
    counts = np.bincount(labels.ravel(), minlength=label_space.num_classes)
    return {
        "name": job.name,
        **dict(zip(("bytes", "mtime_ns"), fingerprint(job.path), strict=True)),
        "size": list(labels.shape),
        "outputs": outputs,
        "shares": {name: round(int(count) / labels.size, 6) for name, count in zip(label_space.names, counts, strict=True)},
        "confidence": round(float(certainty.mean()) / 255.0, 6),
    }


def fingerprint(path: Path) -> list[int]:
    """[bytes, modification time in ns] of a file, by which a rerun knows that it is the same one; [-1, -1] when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]
