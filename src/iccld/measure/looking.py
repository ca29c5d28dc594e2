"""Let the networks of a run look at pictures, and keep what they say of a sample of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from iccld.data import FileDataset
from iccld.errors import DataError
from iccld.evaluation.evaluate import device_of, evaluation_mode
from iccld.evaluation.unlabelled.seen import Seen, at_points, joined, labelled_only, points_in
from iccld.predictor import Predictor
from iccld.progress import progress
from iccld.transforms import Draw
from iccld.transforms.fourier import exchange_amplitude
from iccld.transforms.moments import match_moments
from iccld.transforms.photometric import gaussian_blur, jitter, sensor_noise

POINTS = 4000
"""Pixels of each picture that are kept."""

SMALLER = 0.75
"""Scale of the view `smaller`."""

Change = Callable[[Tensor, Tensor, Draw], Tensor]
"""(picture, picture of the target, draw) -> the picture in another look: (1, 3, H, W) float32 0..1, twice -> the same."""


def styled(image: Tensor, style: Tensor, draw: Draw) -> Tensor:
    """In the colours and the light of the target."""
    return exchange_amplitude(match_moments(image, style, draw), _of_size(style, image), draw, share=(0.005, 0.02))


def worn(image: Tensor, style: Tensor, draw: Draw) -> Tensor:
    """In the target's colours, then mildly worse: jittered, softer, noisier."""
    image = jitter(styled(image, style, draw), draw, probability=1.0, strength=0.25, white_balance=0.2)
    return sensor_noise(_soft(image, 1.0), draw, probability=1.0, std=0.05)


LOOKS: Mapping[str, Change] = {"styled": styled, "worn": worn}
"""How held-out source pictures are shown, so that the voices are about as sure and as wrong as on the target."""


def look(
    predictors: Mapping[str, Predictor],
    main: str,
    dataset: FileDataset,
    indices: Sequence[int],
    *,
    change: Change | None = None,
    styles: FileDataset | None = None,
    labels: bool = False,
    seed: int = 0,
    title: str = "Looking",
) -> Seen:
    """What every predictor, and the `main` one in two more views (`flip`, `smaller`), says of random pixels of some pictures.

    change: shows the pictures in another look, with pictures of `styles`.  labels: whether masks are read; no estimate of the target reads
    any.  The same pixels and looks for the same seed.  DataError when a picture cannot be read, or no pixel has a label.
    """
    found = []
    with ExitStack() as stack, torch.inference_mode(), progress(title, total=len(indices)) as bar:
        for predictor in predictors.values():
            stack.enter_context(evaluation_mode(predictor))
        for index in indices:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            image = dataset.read_image(index)  # (H, W, 3)
            if change is not None and styles is not None:
                style = styles.read_image(int(torch.randint(len(styles), (1,), generator=generator)))
                image = _changed(image, style, change, Draw(generator))
            points = points_in(image.shape[0], image.shape[1], POINTS, generator)
            truth = None
            if labels:
                truth = torch.from_numpy(dataset.read_label(index)[points[:, 0], points[:, 1]]).long()  # (N,)
            said = _voices(predictors, main, image, points)
            found.append(labelled_only(Seen(said, torch.zeros(POINTS, dtype=torch.long), truth)))
            bar.advance(1)
    found = [part for part in found if len(part)]
    if not found:
        raise DataError(f"{dataset.root}: {len(indices)} pictures have no labelled pixel to look at")
    return joined(found)


def _voices(predictors: Mapping[str, Predictor], main: str, image: np.ndarray, points: Tensor) -> dict[str, Tensor]:
    size = (image.shape[0], image.shape[1])
    said = {}
    for name, predictor in predictors.items():
        batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device_of(predictor))  # (1, 3, H, W)
        said[name] = at_points(predictor.network_logits(batch), points, size).cpu()
        if name == main:
            said["flip"] = at_points(predictor.network_logits(batch.flip(3)).flip(3), points, size).cpu()
            scales, predictor.scales = predictor.scales, (SMALLER,)
            try:
                said["smaller"] = at_points(predictor.network_logits(batch), points, size).cpu()
            finally:
                predictor.scales = scales
    return said


def _changed(image: np.ndarray, style: np.ndarray, change: Change, draw: Draw) -> np.ndarray:
    given, other = (torch.from_numpy(np.ascontiguousarray(each)).permute(2, 0, 1)[None].float() / 255 for each in (image, style))
    return (change(given, other, draw)[0].permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _of_size(style: Tensor, image: Tensor) -> Tensor:
    size = (int(image.shape[2]), int(image.shape[3]))
    return torch.nn.functional.interpolate(style, size=size, mode="bilinear", align_corners=False, antialias=True)


def _soft(image: Tensor, sigma: float) -> Tensor:
    radius = min(int(3 * sigma), min(image.shape[2:]) - 1)
    return gaussian_blur(image, torch.full((1,), sigma), radius=radius)
