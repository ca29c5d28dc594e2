"""Score a predictor on a labelled split: logits to the ground truth's size, then argmax, one matrix over all pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from iccld.batch import Sample
from iccld.errors import ConfigError, DataError, NumericError
from iccld.evaluation.confusion import Confusion, Scores
from iccld.evaluation.decision import are_finite, decide
from iccld.evaluation.views import View
from iccld.labels import LabelSpace
from iccld.progress import progress

Observer = Callable[[str, Confusion, npt.NDArray[np.uint8]], None]
"""Called after each picture with its name, its own confusion and its prediction (H, W) uint8."""


class LabelledDataset(Protocol):
    """What evaluation asks of a dataset: names, files for messages, and samples with labels."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def image_paths(self) -> Sequence[Path]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


def evaluate(
    predict: Callable[[Tensor], Tensor],
    dataset: LabelledDataset,
    label_space: LabelSpace,
    *,
    title: str = "Evaluating",
    limit: int | None = None,
    score_size: tuple[int, int] | None = None,
    observe: Observer | None = None,
) -> Scores:
    """Score predict((1, 3, H, W) uint8 RGB) -> (1, K, h, w) logits on every labelled picture of a dataset.

    A Predictor is asked for the logits of each of its views.

    Logits are resized to the ground truth's size, then argmax.  limit: score that many pictures, evenly spread over the split.
    score_size: (H, W) to which the ground truth is shrunk first (nearest), as DACS and BAPA score; the default is its own size.
    Modules are evaluated in eval mode and left in the mode they had.  Raises DataError for pictures without labels or none at all,
    ConfigError when the logits have another number of classes, NumericError when they are not finite.
    """
    indices = spread(len(dataset), limit)
    confusion = Confusion(label_space.num_classes)
    device = device_of(predict)
    with evaluation_mode(predict), torch.inference_mode(), progress(title, total=len(indices)) as bar:
        for sample in _read_ahead(dataset, indices):
            truth = _truth(sample, dataset, score_size)
            prediction = _predict(predict, sample, label_space, device, (truth.shape[0], truth.shape[1]))
            single = Confusion(label_space.num_classes)
            try:
                single.update(truth, prediction)
            except DataError as error:
                raise DataError(f"{dataset.image_paths[sample.index]}: {error}") from error
            confusion.merge(single)
            if observe is not None:
                observe(sample.name, single, prediction)
            bar.advance(1)
    return confusion.scores(label_space)


def spread(num_images: int, limit: int | None) -> list[int]:
    """Indices of at most `limit` of the pictures, evenly spaced: neighbouring frames of a clip tell little that is new."""
    if num_images == 0:
        raise DataError("nothing to score: the dataset has 0 images")
    if limit is not None and limit < 1:
        raise ConfigError(f"the number of pictures to score must be at least 1, not {limit}")
    count = num_images if limit is None else min(limit, num_images)
    return [index * num_images // count for index in range(count)]


def _read_ahead(dataset: LabelledDataset, indices: Sequence[int]) -> Iterator[Sample]:
    """Samples in order; the next one is decoded while the present one is predicted."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: Future[Sample] = pool.submit(dataset.__getitem__, indices[0])
        for following in [*indices[1:], None]:
            sample = waiting.result()
            if following is not None:
                waiting = pool.submit(dataset.__getitem__, following)
            yield sample


def _truth(sample: Sample, dataset: LabelledDataset, score_size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    if sample.label is None:
        raise DataError(f"{dataset.image_paths[sample.index]}: no label to score against; evaluate needs a labelled split")
    if score_size is None or sample.label.shape == tuple(score_size):
        return sample.label
    label = torch.from_numpy(sample.label)[None, None]
    return functional.interpolate(label, size=score_size, mode="nearest")[0, 0].numpy()


def _predict(
    predict: Callable[[Tensor], Tensor], sample: Sample, label_space: LabelSpace, device: torch.device, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    image = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1)))[None].to(device)  # (1, 3, H, W)
    # A Predictor hands out its logits before they are resized, so that they are resized once.
    logits_of: Callable[[Tensor], Tensor] = getattr(predict, "network_logits", predict)
    views_of: Callable[[Tensor], Sequence[Tensor | View]] = getattr(predict, "views", lambda picture: [logits_of(picture)])
    views = views_of(image)  # each (1, K, h, w)
    for view in views:
        logits = view.logits if isinstance(view, View) else view
        if logits.ndim != 4 or logits.shape[1] != label_space.num_classes:
            found = tuple(logits.shape)
            raise ConfigError(f"the model predicts shape {found}, but {label_space.name} has {label_space.num_classes} classes")
        if not are_finite(logits):
            raise NumericError(f"the logits of {sample.name} are not finite; the weights are damaged or the precision is too low")
    labels, _ = decide(views, size)
    return labels[0].cpu().numpy()


def device_of(predict: Callable[[Tensor], Tensor]) -> torch.device:
    """Where a module's parameters are; the CPU for anything without."""
    parameter = next(predict.parameters(), None) if isinstance(predict, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def evaluation_mode(predict: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """eval() for the duration; every submodule gets its own flag back, since a frozen encoder may be in eval while the rest trains."""
    modules = list(predict.modules()) if isinstance(predict, nn.Module) else []
    flags = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
