"""Every file looked at once: pairs, sizes, ids, corruption, class shares.  The class counts are cached outside the data."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from iccld.data.dataset import FileDataset, size_mismatch
from iccld.data.wide import narrow_warning
from iccld.errors import DataError
from iccld.files import write_atomically
from iccld.labels import LabelSpace
from iccld.machine import available_cores
from iccld.progress import Bar, progress

Progress = Callable[[str, int], AbstractContextManager[Bar]]
Counts = npt.NDArray[np.int64]
Result = TypeVar("Result")

CACHE_VERSION = 1
AHEAD = 8
"""Files a worker may be ahead of the one whose turn it is."""
MIN_SIDE = 8
"""A picture with a shorter side, in pixels, is called odd."""
MAX_ASPECT = 4.0
"""So is one that is longer than this many times its height, or the reverse."""
SIZE_TOLERANCE = 0.05
"""Where most pictures share one size, another that differs by a larger part of a side is odd.  GTA5's 1052 and 1046 rows are not."""


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found."""

    root: Path
    format: str
    label_space: LabelSpace
    num_images: int
    num_labelled: int
    """Pictures whose mask could be read."""
    sizes: Counter[tuple[int, int]]
    """(H, W) -> pictures."""
    counts: Counts
    """(N, K) pixels of each class in each picture; zeros where there is no readable mask."""
    num_ignored_pixels: int
    problems: list[str]
    """One line each: unpaired, unreadable, unknown id, sizes that differ, odd sizes."""
    notes: list[str]
    layout: str = ""

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    @property
    def class_shares(self) -> dict[str, float]:
        """Class name -> share of the labelled pixels that are not ignored, 0..1."""
        totals = self.counts.sum(axis=0)
        whole = max(int(totals.sum()), 1)
        return {name: int(total) / whole for name, total in zip(self.label_space.names, totals, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON; sizes as 'WxH', most frequent first."""
        totals, pictures = self.counts.sum(axis=0), (self.counts > 0).sum(axis=0)
        classes = {
            name: {"pixels": int(totals[i]), "share": share, "images": int(pictures[i])}
            for i, (name, share) in enumerate(self.class_shares.items())
        }
        return {
            "root": str(self.root),
            "format": self.format,
            "layout": self.layout,
            "label_space": self.label_space.name,
            "num_images": self.num_images,
            "num_labelled": self.num_labelled,
            "sizes": {f"{width}x{height}": count for (height, width), count in self.sizes.most_common()},
            "classes": classes if self.num_labelled else {},
            "absent_classes": [name for name, entry in classes.items() if entry["pixels"] == 0] if self.num_labelled else [],
            "ignored_pixels": self.num_ignored_pixels,
            "problems": self.problems,
            "notes": self.notes,
            "ok": self.ok,
        }


@dataclass(frozen=True)
class _CheckedPicture:
    """One picture and its maps, looked at once."""

    size: tuple[int, int] | None
    counts: Counts | None
    """(256,) pixels by train id."""
    problems: list[str]


def check_dataset(dataset: FileDataset, workers: int | None = None, progress: Progress = progress) -> CheckReport:
    """Read every file once, in threads (decoders release Python's lock), and collect every problem instead of stopping at the first.

    Open the dataset with strict=False so that unpaired files are collected too.  workers: None means one for each usable core.
    When all masks are fine, their class counts are cached for rare-class sampling (`class_statistics`).
    """
    counts = np.zeros((len(dataset), dataset.label_space.num_classes), dtype=np.int64)
    size_of: list[tuple[int, int] | None] = []
    problems = list(dataset.problems)
    num_ignored = num_labelled = 0
    pictures = in_parallel(lambda index: _check_picture(dataset, index), len(dataset), workers, progress, "Checking files")
    for row, picture in enumerate(pictures):
        size_of.append(picture.size)
        problems += picture.problems
        if picture.counts is not None:
            counts[row] = picture.counts[: counts.shape[1]]
            num_ignored += int(picture.counts[counts.shape[1] :].sum())
            num_labelled += 1
    sizes = Counter(size for size in size_of if size is not None)
    problems += _odd_sizes(dataset, size_of, sizes)
    if dataset.has_labels and num_labelled == len(dataset):
        _write_cache(_cache_file(dataset), counts)
    return CheckReport(
        root=dataset.root,
        format=dataset.format,
        label_space=dataset.label_space,
        num_images=len(dataset),
        num_labelled=num_labelled,
        sizes=sizes,
        counts=counts,
        num_ignored_pixels=num_ignored,
        problems=problems,
        notes=[*dataset.notes, *_warnings(dataset, counts if num_labelled else None, num_ignored)],
        layout=dataset.layout,
    )


def _warnings(dataset: FileDataset, counts: Counts | None, num_ignored: int) -> list[str]:
    narrow = narrow_warning(dataset.image_paths, dataset.wide)
    notes = [] if narrow is None else [narrow]
    if counts is not None and not counts.any() and num_ignored:
        notes.append(f"warning: none of the masks' pixels is labelled; all {num_ignored} are ignored: check the ids of the classes")
    return notes


def class_statistics(dataset: FileDataset, workers: int | None = None, progress: Progress = progress) -> Counts:
    """(N, K) int64 pixels of each class in each picture, from the cache where the files have not changed since.

    DataError without labels, and for the first mask that cannot be read or holds an unknown id.
    """
    if not dataset.has_labels:
        raise DataError(f"{dataset.root}: class statistics need labels; expected masks in {dataset.label_folder or dataset.root}")
    file = _cache_file(dataset)
    num_classes = dataset.label_space.num_classes
    cached = _read_cache(file, (len(dataset), num_classes))
    if cached is not None:
        return cached

    def count(index: int) -> Counts:
        return _count(dataset.read_label(index))[:num_classes]

    counts = np.stack(list(in_parallel(count, len(dataset), workers, progress, "Counting classes")))
    _write_cache(file, counts)
    return counts


def class_shares(dataset: FileDataset) -> tuple[float, ...]:
    """(K,) share of each class in the labelled pixels, 0..1, by train id."""
    totals = class_statistics(dataset).sum(axis=0)
    return tuple((totals / max(int(totals.sum()), 1)).tolist())


def cache_folder() -> Path:
    """$ICCLD_CACHE, or ~/.cache/iccld."""
    chosen = os.environ.get("ICCLD_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "iccld"


def _check_picture(dataset: FileDataset, index: int) -> _CheckedPicture:
    problems: list[str] = []

    def attempt(read: Callable[[int], npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
        try:
            return read(index)
        except DataError as error:
            problems.append(str(error))
            return None

    image = attempt(dataset.read_image)
    label = attempt(dataset.read_label) if dataset.label_paths[index] is not None else None
    depth = attempt(dataset.read_depth) if dataset.depth_paths[index] is not None else None
    for path, values in ((dataset.label_paths[index], label), (dataset.depth_paths[index], depth)):
        if image is not None and values is not None and values.shape != image.shape[:2]:
            problems.append(size_mismatch(dataset.image_paths[index], image.shape, path, values.shape))
    size = None if image is None else (image.shape[0], image.shape[1])
    return _CheckedPicture(size, None if label is None else _count(label), problems)


def _count(label: npt.NDArray[Any]) -> Counts:
    """(H, W) uint8 -> (256,) pixels by value."""
    return np.bincount(label.reshape(-1), minlength=256).astype(np.int64)


def _odd_sizes(dataset: FileDataset, sizes: list[tuple[int, int] | None], tally: Counter[tuple[int, int]]) -> list[str]:
    usual, count = tally.most_common(1)[0] if tally else ((0, 0), 0)
    has_usual = count * 2 > sum(tally.values())
    problems = []
    for path, size in zip(dataset.image_paths, sizes, strict=True):
        if size is None:
            continue
        text = f"{path}: odd size {size[1]}x{size[0]}"
        if min(size) < MIN_SIDE or max(size) > MAX_ASPECT * min(size):
            problems.append(f"{text}; too small or too long for a street scene")
        elif has_usual and any(abs(side - other) > SIZE_TOLERANCE * other for side, other in zip(size, usual, strict=True)):
            problems.append(f"{text}; {count} of {sum(tally.values())} pictures are {usual[1]}x{usual[0]}")
    return problems


def in_parallel(work: Callable[[int], Result], total: int, workers: int | None, progress: Progress, title: str) -> Iterator[Result]:
    """work(0..total-1), in order, in threads; the first exception ends it.  A few results exist at a time, however many there are."""
    num_workers = workers or available_cores()
    pool = ThreadPoolExecutor(max_workers=num_workers)
    pending: deque[Future[Result]] = deque()
    try:
        with progress(title, total) as bar:
            for index in range(total):
                pending.append(pool.submit(work, index))
                if len(pending) > AHEAD * num_workers:
                    yield pending.popleft().result()
                    bar.advance(1)
            while pending:
                yield pending.popleft().result()
                bar.advance(1)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _cache_file(dataset: FileDataset) -> Path:
    """Named after everything that the counts depend on: the masks' paths, sizes and times, the id table and the label space."""
    masks = []
    for path in dataset.label_paths:
        if path is not None:
            try:
                status = path.stat()
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from None
            masks.append((str(path.absolute()), status.st_size, status.st_mtime_ns))
    described = json.dumps([CACHE_VERSION, dataset.format, dataset.label_space.names, masks])
    digest = hashlib.sha256(described.encode() + dataset.raw_ids.lookup.tobytes()).hexdigest()
    return cache_folder() / "class_counts" / f"{digest[:32]}.npy"


def _read_cache(file: Path, shape: tuple[int, int]) -> Counts | None:
    """None when there is no cache, or one that is damaged or of another shape: it is then counted again."""
    try:
        counts = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(counts, np.ndarray) or counts.shape != shape or counts.dtype != np.int64 or counts.min() < 0:
        return None
    return np.asarray(counts)


def _write_cache(file: Path, counts: Counts) -> None:
    """Atomic.  A cache that cannot be written costs time, not the run: a warning."""
    try:
        stored = io.BytesIO()
        np.save(stored, counts, allow_pickle=False)
        write_atomically(file, stored.getvalue(), is_shared=True)
    except OSError as error:
        warnings.warn(f"class counts were not cached in {file.parent}: {error.strerror or error}", stacklevel=2)
