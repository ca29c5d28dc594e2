"""What a finished predictor costs: its size, and its time on one picture."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import torch
from torch import Tensor

from iccld.data import FileDataset
from iccld.evaluation import decide
from iccld.evaluation.evaluate import evaluation_mode
from iccld.predictor import Predictor

TIMED_PICTURES = 5
"""Pictures timed after the first one, whose time is spent on set-up."""


def num_parameters(predictor: Predictor) -> int:
    """Parameters that a prediction needs."""
    return sum(parameter.numel() for parameter in predictor.parameters())


class PredictionTime(NamedTuple):
    """Median milliseconds from a decoded picture to its classes at its own size.

    milliseconds: on the wall, which other work on the machine lengthens.  processor_milliseconds: of all threads of this process; None on
    a device that is no processor, whose work they do not hold.
    """

    milliseconds: float
    processor_milliseconds: float | None


@torch.no_grad()
def prediction_time(predictor: Predictor, dataset: FileDataset) -> PredictionTime:
    """Time the data set's first pictures, one after the other."""
    device = next(predictor.parameters()).device
    taken = []
    with evaluation_mode(predictor):
        for index in range(TIMED_PICTURES + 1):
            image = dataset.read_image(index % len(dataset))
            taken.append(prediction_seconds(predictor, torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(device)))
    wall, processor = (1000 * statistics.median(each) for each in zip(*taken[1:], strict=True))
    return PredictionTime(wall, processor if device.type == "cpu" else None)


@torch.no_grad()
def seconds_per_picture(predictor: Predictor, size: tuple[int, int]) -> float:
    """Time from a random picture of this size (H, W) to its classes; a second one's, unless the first takes over a second."""
    device = next(predictor.parameters()).device
    picture = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0)).to(device, torch.uint8)
    with evaluation_mode(predictor):
        first, _ = prediction_seconds(predictor, picture)
        return first if first > 1 else prediction_seconds(predictor, picture)[0]


@torch.no_grad()
def prediction_seconds(predictor: Predictor, pixels: Tensor) -> tuple[float, float]:
    """On the wall and of the processor: one prediction of (1, 3, H, W) uint8, to classes in the CPU's memory."""
    start = time.perf_counter(), time.process_time()
    decide(predictor.views(pixels), (pixels.shape[2], pixels.shape[3]))[0].cpu()
    return time.perf_counter() - start[0], time.process_time() - start[1]
