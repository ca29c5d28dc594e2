"""Pictures and masks of different size, told from the headers alone: before the first step, not in the middle of a training."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image

from iccld.data.check import in_parallel
from iccld.data.dataset import FileDataset, size_mismatch
from iccld.progress import progress

TURNED = 5
"""EXIF orientations from this one on exchange rows and columns."""


def mismatched(dataset: FileDataset, workers: int | None = None) -> dict[int, str]:
    """Position -> one line, for each picture whose mask has another size.  Files whose header cannot be read are left to their reader."""

    def look(index: int) -> str | None:
        label = dataset.label_paths[index]
        if label is None:
            return None
        ours, theirs = _size(dataset.image_paths[index]), _size(label)
        return None if ours is None or theirs is None or ours == theirs else size_mismatch(dataset.image_paths[index], ours, label, theirs)

    found = in_parallel(look, len(dataset), workers, progress, "Comparing sizes")
    return {index: line for index, line in enumerate(found) if line is not None}


def sizes_of(dataset: FileDataset, most: int) -> list[tuple[int, int]]:
    """(H, W) once upright of up to `most` pictures, spread evenly over the data set; those whose header cannot be read are left out."""
    chosen = range(0, len(dataset), -(-len(dataset) // most)) if len(dataset) else range(0)
    return [size for size in (_size(dataset.image_paths[index]) for index in chosen) if size is not None]


def _size(path: Path) -> tuple[int, int] | None:
    """(H, W) once upright."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Others keep their orientation where reading it would decode the whole picture.
            has_header_exif = image.format in {"JPEG", "MPO", "TIFF", "WEBP"}
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if has_header_exif else 1
    except Exception:  # Pillow answers damage with many kinds of exceptions; whoever reads the file says what it is
        return None
    return (width, height) if isinstance(orientation, int) and TURNED <= orientation <= 8 else (height, width)
