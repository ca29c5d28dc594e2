"""The loop of prediction: read ahead, predict, write behind; one bad picture does not stop the rest."""

from __future__ import annotations

import errno
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from iccld.data.finding import picture_suffixes
from iccld.data.images import FULL_RANGE, read_image
from iccld.errors import ConfigError, DataError
from iccld.evaluation.evaluate import device_of, evaluation_mode
from iccld.labels import LabelSpace
from iccld.labels import raw_ids as default_raw_ids
from iccld.predict.exchange import export
from iccld.predict.index import PredictionIndex
from iccld.predict.memory import label_pictures
from iccld.predict.names import OUTPUTS, USUAL, Job, find_pictures, name_outputs
from iccld.predict.writer import OutputWriter
from iccld.predictor import Predictor
from iccld.progress import Bar, progress, say

UInt8Array = npt.NDArray[np.uint8]
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that every further picture would meet too."""


class Writer(Protocol):
    """Puts one prediction on disk, and tells the index what it wrote."""

    @property
    def kinds(self) -> tuple[str, ...]: ...

    def files(self, name: str) -> dict[str, str]: ...

    def write(
        self, job: Job, image: UInt8Array, labels: UInt8Array, certainty: UInt8Array, logits: npt.NDArray[np.float16] | None = None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class PredictReport:
    """What became of every input: done now, skipped since an earlier run had done it, failed with the reason."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What is written of each prediction, and what the index says of its origin."""

    write: Sequence[str] = USUAL
    """Of OUTPUTS."""
    format: str | None = None
    """One of `exchange.FORMATS`, written beside the masks from all pictures of the index."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Which run and weights these are."""
    wide: tuple[int, int] = FULL_RANGE
    """The values of 16-bit pictures that become black and white."""

    def kinds(self) -> tuple[str, ...]:
        """The folders that are written; a format is made from the train ids.  ConfigError for one that there is not."""
        unknown = [kind for kind in self.write if kind not in OUTPUTS]
        if unknown or not self.write:
            raise ConfigError(f"nothing called {unknown[0] if unknown else ''!r} can be written; choose from {', '.join(OUTPUTS)}")
        return tuple(kind for kind in OUTPUTS if kind in self.write or (self.format is not None and kind == "train_ids"))


def predict_paths(
    predictor: Predictor,
    paths: Sequence[Path | str],
    out: Path | str,
    *,
    raw_ids: npt.NDArray[np.integer[Any]] | None = None,
    overlay_alpha: float = 0.5,
    batch: int = 1,
    model: str = "",
    shard: tuple[int, int] | None = None,
    wanted: Wanted | None = None,
) -> PredictReport:
    """Write the masks of files and folders (searched recursively) below `out`, and an index `predictions.json` beside them.

    raw_ids: (K or 256,) train id -> id to write, by default those of the label space.  overlay_alpha: weight of the colours, 0..1.
    batch: pictures of one size predicted together.  model: whatever identifies the weights and their settings; when it changes, finished
    pictures are done again.  shard: (index, count), this process's part of the list; its index is `predictions-<index>-of-<count>.json`.
    wanted: what is written, and for whom.
    A bad picture is reported and the rest goes on.  Raises DataError when there is no picture at all, or `out` cannot be written.
    """
    table = _raw_table(raw_ids, predictor.label_space)
    if not 0.0 <= overlay_alpha <= 1.0 or batch < 1:
        raise ConfigError(f"overlay_alpha lies in 0..1 and batch is at least 1, not {overlay_alpha} and {batch}")
    wanted = wanted or Wanted()
    kinds = wanted.kinds()
    out = Path(out)
    settings = {"model": model, "overlay_alpha": overlay_alpha, "raw_ids": table.tolist(), **_describe(predictor.label_space)}
    if kinds != USUAL:
        settings["write"] = list(kinds)
    found, refused = find_pictures(paths, out)
    if not found:
        raise DataError(_nothing_found(paths, refused))
    index = PredictionIndex(out, settings, shard, wanted.origin)
    jobs = name_outputs(found, index.names)
    jobs = jobs[shard[0] :: shard[1]] if shard else jobs
    writer = OutputWriter(out, predictor.label_space, table, overlay_alpha, kinds)
    report = predict_jobs(predictor, writer, index, jobs, refused, batch, wanted.wide)
    if wanted.format is not None:
        say(f"{wanted.format}: {export(wanted.format, out, index.own, predictor.label_space)}")
    return report


def predict_jobs(
    predictor: Predictor,
    writer: Writer,
    index: PredictionIndex,
    jobs: Sequence[Job],
    failed: Sequence[tuple[Path, str]] = (),
    batch: int = 1,
    wide: tuple[int, int] = FULL_RANGE,
) -> PredictReport:
    """Predict the jobs that the index does not know as finished, and save the index.  failed: inputs that failed already."""
    finished = {job for job in jobs if index.is_done(job)}
    waiting = [job for job in jobs if job not in finished]
    index.claim(waiting, writer.files)
    report = PredictReport(skipped=[job.path for job in jobs if job in finished], failed=list(failed))
    if report.skipped:
        say(f"{len(report.skipped)} of {len(jobs)} pictures were done before; predicting {len(waiting)}")
    try:
        with (
            ThreadPoolExecutor(max_workers=2) as pool,
            evaluation_mode(predictor),
            torch.inference_mode(),
            progress("Predicting", total=len(waiting)) as bar,
        ):
            _Line(predictor, writer, index, report, pool, bar, wide).run(waiting, batch)
    finally:
        index.save(report.failed)
    return report


class _Line:
    """Decoding and compressing run in threads beside the network; everything that is counted is counted in the caller's thread."""

    def __init__(
        self,
        predictor: Predictor,
        writer: Writer,
        index: PredictionIndex,
        report: PredictReport,
        pool: ThreadPoolExecutor,
        bar: Bar,
        wide: tuple[int, int],
    ) -> None:
        self.predictor = predictor
        self.wide = wide
        self.device = device_of(predictor)
        self.writer = writer
        self.index = index
        self.report = report
        self.pool = pool
        self.bar = bar
        self.writing: deque[tuple[Job, Future[dict[str, Any]]]] = deque()

    def run(self, jobs: Sequence[Job], batch: int) -> None:
        try:
            for chunk in self._read_ahead(jobs, batch):
                groups: dict[tuple[int, ...], list[tuple[Job, UInt8Array]]] = {}
                for job, reading in chunk:
                    try:
                        image = reading.result()
                    except (DataError, OSError, MemoryError) as error:
                        self._fail(job, error)
                    else:
                        groups.setdefault(image.shape, []).append((job, image))
                for group in groups.values():
                    self._predict(group)
                self._settle(2 * batch)
        finally:
            self._settle(0)

    def _read_ahead(self, jobs: Sequence[Job], batch: int) -> Iterator[list[tuple[Job, Future[UInt8Array]]]]:
        """Chunks of `batch` jobs; the next chunk is decoded while the present one is predicted."""
        ahead: list[tuple[Job, Future[UInt8Array]]] | None = None
        for start in range(0, len(jobs), batch):
            chunk = [(job, self.pool.submit(read_image, job.path, self.wide)) for job in jobs[start : start + batch]]
            if ahead is not None:
                yield ahead
            ahead = chunk
        if ahead is not None:
            yield ahead

    def _predict(self, group: Sequence[tuple[Job, UInt8Array]]) -> None:
        """Label pictures of one size and hand them to the writers."""
        images = torch.from_numpy(np.stack([image for _, image in group])).permute(0, 3, 1, 2)  # (B, 3, H, W)
        try:
            labels, certainty = label_pictures(self.predictor, images.to(self.device))  # (B, H, W) each
            # Asked for seldom, and the same answer a second time: nobody else has to carry them along.
            wants_logits = "logits" in self.writer.kinds
            logits = self.predictor.network_logits(images.to(self.device)).half().cpu().numpy() if wants_logits else [None] * len(group)
        except DataError as error:
            for job, _ in group:
                self._fail(job, error)
            return
        for (job, image), label, sure, raw in zip(group, labels.cpu().numpy(), certainty.cpu().numpy(), logits, strict=True):
            self.writing.append((job, self.pool.submit(self.writer.write, job, image, label, sure, raw)))

    def _settle(self, limit: int) -> None:
        """Wait until no more than `limit` pictures are being written, and note those that are."""
        while len(self.writing) > limit:
            job, future = self.writing.popleft()
            try:
                entry = future.result()
            except (OSError, ValueError, MemoryError) as error:
                if isinstance(error, OSError) and error.errno in FULL_DISK:
                    free = shutil.disk_usage(self.index.out).free
                    what = f"{self.index.out}: {error.strerror} with {free} bytes free"
                    raise DataError(f"{what}; make room and run again for the rest") from error
                self._fail(job, error)
            else:
                self.index.record(job, entry)
                self.report.done.append(job.path)
                self.bar.advance(1, note=job.name)

    def _fail(self, job: Job, error: BaseException) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason.removeprefix(f"{job.path}: ")
        self.report.failed.append((job.path, reason))
        self.bar.advance(1, note=job.name)


def _raw_table(raw_ids: npt.NDArray[np.integer[Any]] | None, label_space: LabelSpace) -> npt.NDArray[np.integer[Any]]:
    table = default_raw_ids(label_space) if raw_ids is None else np.asarray(raw_ids)
    if table.ndim != 1 or len(table) < label_space.num_classes or table.min() < 0 or table.max() > 65535:
        raise ConfigError(f"raw_ids must hold an id in 0..65535 for each of the {label_space.num_classes} classes, not shape {table.shape}")
    return table


def _describe(label_space: LabelSpace) -> dict[str, Any]:
    return {"label_space": {"name": label_space.name, "names": list(label_space.names), "palette": label_space.palette.tolist()}}


def _nothing_found(paths: Sequence[Path | str], refused: Sequence[tuple[Path, str]]) -> str:
    if refused:
        return f"{refused[0][0]}: {refused[0][1]}"
    if not paths:
        return "no picture to predict: name at least one file or folder"
    return f"{paths[0]}: no pictures found in {len(paths)} folder(s); expected {', '.join(sorted(picture_suffixes()))} files"
