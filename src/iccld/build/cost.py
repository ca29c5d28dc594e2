"""What a finished predictor costs: its size, and its time on one picture."""

from __future__ import annotations

import statistics
import time

import torch

from iccld.data import FileDataset
from iccld.evaluation import decide
from iccld.evaluation.evaluate import evaluation_mode
from iccld.predictor import Predictor

TIMED_PICTURES = 5
"""Pictures timed after the first one, whose time is spent on set-up."""


def num_parameters(predictor: Predictor) -> int:
    """Parameters that a prediction needs."""
    return sum(parameter.numel() for parameter in predictor.parameters())


@torch.no_grad()
def milliseconds_per_image(predictor: Predictor, dataset: FileDataset) -> float:
    """Median time from a decoded picture to its classes at its own size."""
    device = next(predictor.parameters()).device
    milliseconds = []
    with evaluation_mode(predictor):
        for index in range(TIMED_PICTURES + 1):
            image = dataset.read_image(index % len(dataset))
            pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(device)  # (1, 3, H, W)
            start = time.perf_counter()
            decide(predictor.network_logits(pixels), (pixels.shape[2], pixels.shape[3]))[0].cpu()
            milliseconds.append(1000 * (time.perf_counter() - start))
    return statistics.median(milliseconds[1:])
