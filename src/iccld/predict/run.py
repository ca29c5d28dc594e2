"""Prediction of files and folders: what is asked for, what is done already, and the rest of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iccld.data.finding import picture_suffixes
from iccld.data.images import FULL_RANGE
from iccld.errors import ConfigError, DataError
from iccld.evaluation.evaluate import evaluation_mode
from iccld.labels import LabelSpace
from iccld.labels import raw_ids as default_raw_ids
from iccld.predict.exchange import export
from iccld.predict.index import PredictionIndex
from iccld.predict.line import Line, PredictReport, Writer
from iccld.predict.names import OUTPUTS, PICTURES, USUAL, Job, chosen_outputs, find_pictures, name_outputs
from iccld.predict.writer import OutputWriter
from iccld.predictor import Predictor
from iccld.progress import progress, say


@dataclass(frozen=True)
class Wanted:
    """What is written of each prediction, and what the index says of its origin."""

    write: Sequence[str] = USUAL
    """Of OUTPUTS, or `all` for all but logits."""
    format: str | None = None
    """One of `exchange.FORMATS`, written beside the masks from all pictures of the index."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Which run and weights these are."""
    wide: tuple[int, int] = FULL_RANGE
    """The values of 16-bit pictures that become black and white."""

    def kinds(self) -> tuple[str, ...]:
        """The folders that are written; a format is made from the train ids.  ConfigError for one that there is not."""
        chosen = chosen_outputs(self.write)
        return tuple(kind for kind in OUTPUTS if kind in chosen or (self.format is not None and kind == "train_ids"))


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
    _raw_table(raw_ids, predictor.label_space)
    if not 0.0 <= overlay_alpha <= 1.0 or batch < 1:
        raise ConfigError(f"overlay_alpha lies in 0..1 and batch is at least 1, not {overlay_alpha} and {batch}")
    wanted = wanted or Wanted()
    kinds = wanted.kinds()
    out = Path(out)
    settings, table = prediction_settings(predictor.label_space, model, kinds, raw_ids, overlay_alpha)
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


def prediction_settings(
    space: LabelSpace,
    model: str,
    kinds: Sequence[str],
    raw_ids: npt.NDArray[np.integer[Any]] | None = None,
    overlay_alpha: float = 0.5,
) -> tuple[dict[str, Any], npt.NDArray[np.integer[Any]]]:
    """What a mask depends on, by which a rerun knows whether it is done, and the table train id -> id to write."""
    table = _raw_table(raw_ids, space)
    settings = {"model": model, "overlay_alpha": overlay_alpha, "raw_ids": table.tolist(), **_describe(space)}
    if tuple(kinds) != PICTURES:  # what was always written once
        settings["write"] = list(kinds)
    return settings, table


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
        with evaluation_mode(predictor), progress("Predicting", total=len(waiting)) as bar:
            Line(predictor, writer, index, report, wide).run(waiting, batch, bar)
    finally:
        index.save(report.failed)
    return report


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
