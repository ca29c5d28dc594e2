"""source x target -> DomainBatch on the CPU; order a pure function of (seed, iteration), so that a position is one integer.

Global batch `iteration` has G = batch_size * world_size rows; row j takes position p = iteration * G + j of each domain's endless
sequence.  Position p lies in epoch p // N: every picture comes once an epoch, in an order drawn from (seed, domain, epoch).  Rank r of n
takes rows r, r + n, r + 2n, ...: two ranks at batch b see together what one rank sees at 2b.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from iccld.batch import DomainBatch
from iccld.data.dataset import Dataset, size_mismatch
from iccld.data.joined import JoinedDataset
from iccld.data.patience import PREFETCH, patiently
from iccld.data.rare_class import RareClassSampler
from iccld.data.sample_cache import Maps, SampleCache
from iccld.errors import ConfigError, DataError
from iccld.geometry import largest_area, working_shape
from iccld.labels import IGNORE

SOURCE, TARGET, RARE_CLASS = 1, 2, 3  # streams of randomness: each keeps its own draws when another is switched off
READ_TIMEOUT = 300.0
"""Seconds without a batch after which a stalled read becomes an error."""

Size = tuple[int, int]


class Order(NamedTuple):
    """What decides which pictures an iteration takes: it and its number, and nothing else."""

    batch_size: int
    """Pictures of each domain in a batch of this rank."""
    seed: int
    rank: int = 0
    world_size: int = 1


class Sizes(NamedTuple):
    """(H, W) to whose area pictures are resized at their own aspect, or to which they are stretched where keep_aspect is False."""

    source: Size
    target: Size
    keep_aspect: bool = True


class PairDataset(TorchDataset[DomainBatch]):
    """`dataset[iteration]` is this rank's DomainBatch of that iteration, uint8 on the CPU, at the working sizes.

    source needs labels; target is never asked for any, but by `CeilingPairs`.  Pictures are resized as in prediction (`working_shape`),
    antialiased, labels and depth to the nearest pixel.  Those of several aspects lie in a batch as `DomainBatch` tells.
    rare_class: replaces the source's order by draws from (seed, position).
    target_valid: (H, W) bool of any size, the target pixels that may teach, the same for every picture (bonnet, lens).
    cache_bytes: resized pictures kept in memory, shared by forked workers; 0 for none.  skip_errors: pictures that cannot be read are
    replaced by the next; their batches' source_index and target_index then differ from `indices`.
    DataError: a source without labels, a domain without depth when with_depth, and whatever reading a file raises.
    """

    labelled: tuple[int, ...] = (SOURCE,)
    """The domains whose labels are read."""

    def __init__(
        self,
        source: Dataset,
        target: Dataset,
        *,
        order: Order,
        sizes: Sizes,
        rare_class: RareClassSampler | None = None,
        with_depth: bool = False,
        target_valid: npt.NDArray[np.bool_] | None = None,
        cache_bytes: int = 1 << 30,
        skip_errors: bool = False,
    ) -> None:
        batch_size, seed, rank, world_size = order
        source_size, target_size, keep_aspect = sizes
        if batch_size < 1 or seed < 0 or not 0 <= rank < world_size or min(source_size + target_size) < 1:
            asked = f"batch_size {batch_size}, seed {seed}, rank {rank} of {world_size}, sizes {source_size} and {target_size}"
            raise ConfigError(f"training batches need positive sizes, a seed of 0 or more and a rank below the world size, not {asked}")
        _refuse_missing_maps(source, target, with_depth)
        if TARGET in self.labelled:
            _refuse_missing_labels(target, "target")
        self.source, self.target = source, target
        self.batch_size, self.seed = batch_size, seed
        self.source_size, self.target_size = source_size, target_size
        self.rare_class = rare_class
        self.rank, self.world_size = rank, world_size
        self.with_depth = with_depth
        self.skip_errors = skip_errors
        self.keep_aspect = keep_aspect
        self.target_valid = None if target_valid is None else target_valid.astype(np.uint8)
        kinds = ((source, source_size, SOURCE in self.labelled), (target, target_size, TARGET in self.labelled))
        pixel_bytes = [3 + has_label + 4 * with_depth for _, _, has_label in kinds]
        self.batch_bytes = batch_size * sum(height * width * size for (_, (height, width), _), size in zip(kinds, pixel_bytes, strict=True))
        """Memory of one batch whose pictures have the working size's aspect."""
        areas = [largest_area(size) if keep_aspect else size[0] * size[1] for _, size, _ in kinds]
        needed = sum(len(dataset) * area * size for (dataset, _, _), area, size in zip(kinds, areas, pixel_bytes, strict=True))
        share = min(1.0, cache_bytes / needed)
        self._caches = {
            domain: SampleCache(int(len(dataset) * share), area, has_label, with_depth)
            for domain, (dataset, _, has_label), area in zip((SOURCE, TARGET), kinds, areas, strict=True)
        }

    def cache_places(self) -> str:
        """Where `share_cache` of another process of this machine finds the pictures that this one has read: a line for each domain."""
        return "\n".join(self._caches[domain].place for domain in (SOURCE, TARGET))

    def share_cache(self, places: str) -> bool:
        """Keep pictures where another rank keeps its own, so that one of them reads each; whether both domains' were found."""
        found = [self._caches[domain].share(place) for domain, place in zip((SOURCE, TARGET), places.split("\n"), strict=True)]
        return all(found)

    def indices(self, iteration: int) -> tuple[list[int], list[int]]:
        """Dataset positions (source, target) of this rank's rows at `iteration` >= 0."""
        if iteration < 0:
            raise IndexError(f"iteration {iteration} is negative")
        positions = self._positions(iteration)
        target = [self._in_order(TARGET, position, len(self.target)) for position in positions]
        drawn = self._drawn(positions)
        if drawn is None:
            return [self._in_order(SOURCE, position, len(self.source)) for position in positions], target
        return [index for index, _ in drawn], target

    def _positions(self, iteration: int) -> list[int]:
        first = iteration * self.batch_size * self.world_size
        return [first + self.rank + row * self.world_size for row in range(self.batch_size)]

    def _drawn(self, positions: list[int]) -> list[tuple[int, int]] | None:
        """(dataset position, class) of rare-class sampling, or None where there is none."""
        if self.rare_class is None:
            return None
        return [self.rare_class.draw(np.random.default_rng([self.seed, RARE_CLASS, position])) for position in positions]

    def __getitem__(self, iteration: int) -> DomainBatch:
        """This rank's batch: images (B, 3, H, W) uint8, labels (B, H, W) uint8, depth (B, H, W) float32 metres.

        H and W are those of the largest picture at hand.
        """
        source_index, target_index = self.indices(iteration)
        source_index, sources = self._load_all(SOURCE, source_index)
        target_index, targets = self._load_all(TARGET, target_index)
        drawn = self._drawn(self._positions(iteration))
        return DomainBatch(
            source_image=_stacked_images(sources),  # (B, 3, H, W)
            source_label=_stacked([maps.label for maps in sources if maps.label is not None], IGNORE),  # (B, H, W)
            target_image=_stacked_images(targets),  # (B, 3, H, W)
            source_index=torch.tensor(source_index, dtype=torch.int64),
            target_index=torch.tensor(target_index, dtype=torch.int64),
            source_depth=_stacked_depth(sources),
            target_depth=_stacked_depth(targets),
            target_valid=self._valid(targets),
            source_class=None if drawn is None else torch.tensor([train_id for _, train_id in drawn], dtype=torch.int64),
            source_size=_true_sizes(sources),
            target_size=_true_sizes(targets),
            target_label=_stacked_labels(targets),
        )

    def _valid(self, targets: list[Maps]) -> torch.Tensor | None:
        """(B, H, W) bool, or None where everything may teach."""
        if self.target_valid is None:
            return None
        return _stacked([_nearest(self.target_valid, maps.image.shape[:2]) for maps in targets], 0) > 0

    def _in_order(self, domain: int, position: int, count: int) -> int:
        dataset = self.source if domain == SOURCE else self.target
        if isinstance(dataset, JoinedDataset) and dataset.weights:
            part, drawn, first = dataset.position(position)
            size = dataset.part_numbers.count(part)
            epoch, offset = divmod(drawn, size)
            return first + int(_epoch_order(self.seed, domain + 8 * (part + 1), epoch, size)[offset])
        epoch, offset = divmod(position, count)
        return int(_epoch_order(self.seed, domain, epoch, count)[offset])

    def _load_all(self, domain: int, indices: list[int]) -> tuple[list[int], list[Maps]]:
        """The pictures at these positions; with skip_errors, the next one that can be read takes the place of one that cannot."""
        if not self.skip_errors:
            return indices, [self._load(domain, index) for index in indices]
        count = len(self.source if domain == SOURCE else self.target)
        loaded = [self._load_next(domain, index, count) for index in indices]
        return [index for index, _ in loaded], [maps for _, maps in loaded]

    def _load_next(self, domain: int, index: int, count: int) -> tuple[int, Maps]:
        for place in range(index, index + count):
            try:
                return place % count, self._load(domain, place % count)
            except DataError as error:
                failed = error
        raise failed

    def _load(self, domain: int, index: int) -> Maps:
        cache = self._caches[domain]
        maps = cache.get(index)
        if maps is None:
            maps = self._read(domain, index)
            cache.put(index, maps)
        return maps

    def _read(self, domain: int, index: int) -> Maps:
        dataset, size = (self.source, self.source_size) if domain == SOURCE else (self.target, self.target_size)
        image = dataset.read_image(index)
        if self.keep_aspect:
            size = working_shape(image.shape[0], image.shape[1], size)
        label = dataset.read_label(index) if domain in self.labelled else None
        if label is not None and label.shape != image.shape[:2]:
            raise DataError(size_mismatch(dataset.image_paths[index], image.shape, dataset.label_paths[index], label.shape))
        depth = dataset.read_depth(index) if self.with_depth else None
        if depth is not None and depth.shape != image.shape[:2]:
            raise DataError(f"{dataset.image_paths[index]}: its depth map is {depth.shape[1]}x{depth.shape[0]}, not of the picture's size")
        return Maps(
            _antialiased(image, size),
            None if label is None else _nearest(label, size),
            None if depth is None else _nearest(depth, size),
        )


class CeilingPairs(PairDataset):
    """The same with the labels of the target, for training that measures what they would be worth; no method may see them."""

    labelled = (SOURCE, TARGET)


class PairLoader(DataLoader[DomainBatch]):
    """Yields the batches of `start` .. `end` - 1 in order, whatever the number of workers.

    A DataError in a worker arrives as the one line that it is; a worker that died or stalled is a DataError too.
    """

    def __init__(self, dataset: PairDataset, start: int, end: int, workers: int = 0) -> None:
        options: dict[str, Any] = {}
        if workers > 0:
            options = {"num_workers": workers, "worker_init_fn": _start_worker, "timeout": READ_TIMEOUT, "prefetch_factor": PREFETCH}
        super().__init__(
            _Guarded(dataset),
            batch_size=None,
            sampler=range(start, end),
            collate_fn=_unchanged,
            generator=torch.Generator(),  # otherwise each start of a loader would draw from the global generator
            **options,
        )

    def __iter__(self) -> Iterator[DomainBatch]:  # type: ignore[override]
        batches = super().__iter__()
        patient = None if self.num_workers else patiently(batches, READ_TIMEOUT)
        try:
            while True:
                batch = _next_batch(patient or batches)
                if batch is None:
                    return
                yield batch
        finally:
            # Now, not when the garbage collector comes by: until then the thread or the workers of a failed run would linger.
            if patient is not None:
                patient.close()
            if hasattr(batches, "_shutdown_workers"):
                batches._shutdown_workers()


def pair_loader(dataset: PairDataset, start: int, end: int, workers: int = 0) -> PairLoader:
    """A loader of iterations `start` .. `end` - 1.  The same batches with any number of workers, and from any start."""
    return PairLoader(dataset, start, end, workers)


def _next_batch(batches: Iterator[Any]) -> DomainBatch | None:
    """The next batch, None at the end; a worker's DataError, death or stall as one line."""
    try:
        batch = next(batches, None)
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"a data worker died or stalled ({reason}); check memory and the disk, or use fewer workers") from None
    if isinstance(batch, _Failure):
        raise DataError(batch.message)
    return batch


class _Failure(NamedTuple):
    """A DataError on its way out of a worker; PyTorch would wrap it into a page of traceback."""

    message: str


class _Guarded(TorchDataset[Any]):
    def __init__(self, dataset: PairDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, iteration: int) -> DomainBatch | _Failure:
        try:
            return self.dataset[iteration]
        except DataError as error:
            return _Failure(str(error))


def _refuse_missing_maps(source: Dataset, target: Dataset, with_depth: bool) -> None:
    for dataset, role in ((source, "source"), (target, "target")):
        if len(dataset) == 0:
            raise DataError(f"the {role} has no pictures")
        if with_depth and not dataset.has_depth:
            raise DataError(f"{dataset.image_paths[0].parent}: the {role} needs a depth map for every picture")
    _refuse_missing_labels(source, "source")


def _refuse_missing_labels(dataset: Dataset, role: str) -> None:
    if dataset.has_labels:
        return
    missing = next(i for i, path in enumerate(dataset.label_paths) if path is None)
    found = sum(path is not None for path in dataset.label_paths)
    where = getattr(dataset, "label_folder", "")
    expected = f"; expected them in {where}" if where else ""
    raise DataError(f"{dataset.image_paths[missing]}: the {role} needs labels: expected {len(dataset)} masks, found {found}{expected}")


@lru_cache(maxsize=8)  # two domains, the epoch at hand and the next, for two datasets
def _epoch_order(seed: int, domain: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, domain, epoch]).permutation(count)


def _antialiased(image: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    # INTER_AREA averages exactly the pixels that fall into one; it degrades to nearest when it enlarges.
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def _nearest(values: npt.NDArray[Any], size: Size) -> npt.NDArray[Any]:
    if values.shape == size:
        return values
    # _EXACT samples at pixel centres; plain INTER_NEAREST shifts a map by half a pixel against its picture.
    return np.asarray(cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT), dtype=values.dtype)


def _stacked_images(maps: list[Maps]) -> torch.Tensor:
    return _stacked([one.image for one in maps], 0).permute(0, 3, 1, 2).contiguous()  # (B, 3, H, W)


def _stacked_labels(maps: list[Maps]) -> torch.Tensor | None:
    labels = [one.label for one in maps if one.label is not None]
    return _stacked(labels, IGNORE) if labels else None  # (B, H, W)


def _stacked_depth(maps: list[Maps]) -> torch.Tensor | None:
    depths = [one.depth for one in maps if one.depth is not None]
    return _stacked(depths, 0) if depths else None  # (B, H, W)


def _stacked(rows: list[npt.NDArray[Any]], beside: int) -> torch.Tensor:
    """(h, w) or (h, w, 3) each -> (B, H, W) or (B, H, W, 3) of the largest, each at the upper left of its row and `beside` around."""
    shapes = [row.shape for row in rows]
    if len(set(shapes)) == 1:
        return torch.from_numpy(np.stack(rows))
    filled = np.full((len(rows), *np.max(shapes, axis=0)), beside, dtype=rows[0].dtype)
    for place, row in zip(filled, rows, strict=True):
        place[: row.shape[0], : row.shape[1]] = row
    return torch.from_numpy(filled)


def _true_sizes(maps: list[Maps]) -> torch.Tensor | None:
    """(B, 2) int64, or None where all pictures are of one size."""
    sizes = [one.image.shape[:2] for one in maps]
    return torch.tensor(sizes, dtype=torch.int64) if len(set(sizes)) > 1 else None


def _start_worker(worker: int) -> None:
    """Pre-emption is the main process's business (it saves, then ends its workers); OpenCV's threads do not survive a fork."""
    for name in ("SIGUSR1", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()
    cv2.setNumThreads(0)


def _obey_parent(parent: int) -> None:
    """End this worker on a SIGTERM from `parent`; one that a scheduler sends to the whole group is for the main process alone."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _unchanged(batch: Any) -> Any:
    return batch
