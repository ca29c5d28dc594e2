"""Pictures on their way: read, predicted and written in threads beside each other, and counted in their order by the caller's thread.

Decoders, encoders and networks let go of Python's lock.  On a CPU as many pictures are predicted beside each other as there are threads,
each by one: nobody waits for the slowest part of a layer, and no core idles while a picture is prepared or its classes are decided.
"""

from __future__ import annotations

import errno
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from iccld.data.images import FULL_RANGE, read_image
from iccld.errors import DataError, is_out_of_memory
from iccld.evaluation.evaluate import device_of
from iccld.predict.admission import Admission, replicas
from iccld.predict.memory import label_at_once, label_pictures
from iccld.predict.names import Job
from iccld.predictor import Predictor
from iccld.progress import Bar

UInt8Array = npt.NDArray[np.uint8]
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that every further picture would meet too."""
Group = Sequence[tuple[Job, UInt8Array]]
"""Pictures of one size."""
Outcome = Future[dict[str, Any]] | Exception
"""What becomes of a picture: its entry in the index once it is written, or why it failed."""


class Writer(Protocol):
    """Puts one prediction on disk, and tells the index what it wrote."""

    @property
    def kinds(self) -> tuple[str, ...]: ...

    def files(self, name: str) -> dict[str, str]: ...

    def write(
        self,
        job: Job,
        image: UInt8Array,
        labels: UInt8Array,
        certainty: UInt8Array | None = None,
        logits: npt.NDArray[np.float16] | None = None,
    ) -> dict[str, Any]: ...


class Notes(Protocol):
    """Where what was predicted is noted: an index or a journal."""

    out: Path

    @property
    def is_due(self) -> bool: ...

    def record(self, job: Job, entry: dict[str, Any]) -> None: ...

    def save(self, failed: Iterable[tuple[Path, str]]) -> None: ...


@dataclass(frozen=True)
class PredictReport:
    """What became of every input: done now, skipped since an earlier run had done it, failed with the reason."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


class StoppedError(Exception):
    """Raised inside a network whose answer nobody waits for any more."""


class Line:
    """Takes pictures from their files to their masks; what is counted, noted and shown is so in the caller's thread."""

    def __init__(
        self, predictor: Predictor, writer: Writer, index: Notes, report: PredictReport, wide: tuple[int, int] = FULL_RANGE
    ) -> None:
        self.predictor = predictor
        self.device = device_of(predictor)
        self.writer = writer
        self.index = index
        self.report = report
        self.wide = wide
        self.is_stopped = False
        self.broken: BaseException | None = None
        """What ended a worker, told though an earlier picture's worker has given up because of it."""
        self.saving: Future[None] | None = None

    def run(self, jobs: Sequence[Job], batch: int, bar: Bar) -> None:
        """Predict the jobs, `batch` pictures of one size together.

        Whatever ends this early, what was predicted by then is written and noted, and nothing is left half-written.
        """
        threads = torch.get_num_threads()
        most = min(threads, -(-len(jobs) // batch)) if self.device.type == "cpu" else 1
        self.admission = Admission(most, threads)
        self.free: SimpleQueue[Predictor] = SimpleQueue()
        copies = replicas(self.predictor, most)
        for copy in copies:
            self.free.put(copy)
        flying: deque[tuple[Sequence[Job], Future[dict[Job, Outcome]]]] = deque()
        with self._pools(max(2, threads), len(copies)), self._stoppable(copies):
            try:
                for start in range(0, len(jobs), batch):
                    flying.append(self._send(jobs[start : start + batch]))
                    if len(flying) > 2 * len(copies):  # no more pictures are held than that
                        self._settle(flying, bar)
                while flying:
                    self._settle(flying, bar)
            except BaseException as error:
                self._stop(flying)
                if isinstance(error, StoppedError) and self.broken is not None:
                    raise self.broken from None
                raise
            finally:
                torch.set_num_threads(threads)

    @contextmanager
    def _pools(self, threads: int, places: int) -> Iterator[None]:
        with (
            ThreadPoolExecutor(1) as self.saver,
            ThreadPoolExecutor(threads) as self.writers,
            ThreadPoolExecutor(places) as self.workers,
            ThreadPoolExecutor(threads) as self.readers,
        ):
            yield

    @contextmanager
    def _stoppable(self, predictors: Sequence[Predictor]) -> Iterator[None]:
        """Networks give up between two of their parts once the line is stopped: one picture may take minutes."""

        def refuse(module: nn.Module, arguments: object) -> None:
            if self.is_stopped:
                raise StoppedError

        parts = [part for predictor in predictors for part in predictor.network.children()]
        hooks = [part.register_forward_pre_hook(refuse) for part in parts]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _send(self, chunk: Sequence[Job]) -> tuple[Sequence[Job], Future[dict[Job, Outcome]]]:
        reading = [(job, self.readers.submit(read_image, job.path, self.wide)) for job in chunk]
        return chunk, self.workers.submit(self._predict, reading)

    # --- in the workers' threads ---------------------------------------------------------------------------------------

    def _predict(self, reading: Sequence[tuple[Job, Future[UInt8Array]]]) -> dict[Job, Outcome]:
        outcomes: dict[Job, Outcome] = {}
        groups: dict[tuple[int, ...], list[tuple[Job, UInt8Array]]] = {}
        for job, future in reading:
            try:
                image = future.result()
            except (DataError, OSError, MemoryError) as error:
                outcomes[job] = error
            else:
                groups.setdefault(image.shape, []).append((job, image))
        for group in groups.values():
            try:
                outcomes |= self._label(group)
            except DataError as error:
                outcomes |= dict.fromkeys((job for job, _ in group), error)
            except BaseException as error:  # nobody's picture alone: the others need not go on
                self.broken = self.broken or (None if isinstance(error, StoppedError) else error)
                self.is_stopped = True
                raise
        return outcomes

    def _label(self, group: Group) -> dict[Job, Outcome]:
        """Label pictures of one size and hand them to the writers."""
        height, width = group[0][1].shape[:2]
        scale = max(self.predictor.scales)
        shown = self.predictor.prepared_size(height, width, scale)
        stacked = np.stack([image for _, image in group]) if len(group) > 1 else np.require(group[0][1], requirements="W")[None]
        images = torch.from_numpy(stacked).permute(0, 3, 1, 2)  # (B, 3, H, W)
        labels, certainty, logits = self._answer(images.to(self.device), shown[0] * shown[1] * len(group))
        written: dict[Job, Outcome] = {}
        for row, (job, image) in enumerate(group):
            sure, raw = (None if each is None else each[row].cpu().numpy() for each in (certainty, logits))
            written[job] = self.writers.submit(self.writer.write, job, image, labels[row].cpu().numpy(), sure, raw)
        return written

    def _answer(self, images: Tensor, pixels: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Classes, and where they are asked for certainty (uint8) and logits: alone, where beside others the memory did not suffice."""
        wants_sure, wants_logits = ("confidence" in self.writer.kinds), ("logits" in self.writer.kinds)
        predictor = self.free.get()
        try:
            while True:
                with self.admission.place(pixels) as is_alone, torch.inference_mode():
                    try:
                        label = label_pictures if is_alone else label_at_once
                        labels, certainty = label(predictor, images, confidence=wants_sure)
                        # Asked for seldom, and the same answer a second time: nobody else has to carry them along.
                        return labels, certainty, predictor.network_logits(images).half() if wants_logits else None
                    except (RuntimeError, MemoryError) as error:
                        if is_alone or not is_out_of_memory(error):
                            raise
                self.admission.only_alone()
        finally:
            self.free.put(predictor)

    # --- in the caller's thread ----------------------------------------------------------------------------------------

    def _settle(self, flying: deque[tuple[Sequence[Job], Future[dict[Job, Outcome]]]], bar: Bar) -> None:
        """Wait for the oldest pictures, and note what became of them."""
        chunk, future = flying[0]
        outcomes = future.result()
        flying.popleft()
        for job in chunk:
            try:
                self._note(job, outcomes[job])
            except (DataError, OSError, ValueError, MemoryError) as error:
                self._refuse_full_disk(error)
                reason = " ".join(str(error).split()) or type(error).__name__
                self.report.failed.append((job.path, reason.removeprefix(f"{job.path}: ")))
            bar.advance(1, note=job.name)
        if self.index.is_due and (self.saving is None or self.saving.done()):
            if self.saving is not None:
                self.saving.result()
            self.saving = self.saver.submit(self.index.save, [])

    def _note(self, job: Job, outcome: Outcome) -> None:
        """Note a written picture; raises why it failed."""
        if isinstance(outcome, Exception):
            raise outcome
        self.index.record(job, outcome.result())
        self.report.done.append(job.path)

    def _refuse_full_disk(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            free = shutil.disk_usage(self.index.out).free
            raise DataError(f"{self.index.out}: {error.strerror} with {free} bytes free; make room and run again for the rest") from error

    def _stop(self, flying: deque[tuple[Sequence[Job], Future[dict[Job, Outcome]]]]) -> None:
        """Begin nothing more; note what is written of what has begun."""
        self.is_stopped = True
        for pool in (self.readers, self.workers, self.writers):
            pool.shutdown(wait=True, cancel_futures=pool is not self.writers)
        for chunk, future in flying:
            with suppress(Exception, CancelledError, KeyboardInterrupt):
                outcomes = future.result()
                for job in chunk:
                    with suppress(Exception):
                        self._note(job, outcomes[job])
