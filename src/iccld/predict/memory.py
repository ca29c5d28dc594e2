"""Prediction that answers a lack of memory: fewer pictures and windows at once (same answer), then smaller windows (with a warning)."""

from __future__ import annotations

import torch
from torch import Tensor

from iccld.errors import DataError, NumericError, is_out_of_memory
from iccld.evaluation.decision import are_finite, decide
from iccld.models import TwoResolutions
from iccld.predictor import Predictor
from iccld.progress import say


def label_pictures(predictor: Predictor, images: Tensor, *, confidence: bool = True) -> tuple[Tensor, Tensor | None]:
    """`certain_pictures` as it is written to files: (B, 3, H, W) uint8 -> (B, H, W) uint8, (B, H, W) uint8 certainty with 255 = certain.

    confidence: whether certainty is wanted; None otherwise.
    """
    return _as_bytes(_label_with_less(predictor, images, confidence))


def label_at_once(predictor: Predictor, images: Tensor, *, confidence: bool = True) -> tuple[Tensor, Tensor | None]:
    """The same, but out of memory it raises what PyTorch raises."""
    return _as_bytes(_label(predictor, images, confidence))


def certain_pictures(predictor: Predictor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Classes and certainty: (B, 3, H, W) uint8 -> (B, H, W) uint8, (B, H, W) float32 softmax of the winner in 0..1.

    Out of memory, the predictor keeps fewer details and a lower `windows_at_once`; its window is restored.  Raises DataError when the
    smallest window does not fit either, NumericError when logits are not finite.
    """
    labels, certainty = _label_with_less(predictor, images, True)
    if certainty is None:
        raise TypeError("decide() gave no confidence although it was asked for")
    return labels, certainty


def _as_bytes(answer: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    labels, certainty = answer
    return labels, None if certainty is None else (certainty * 255.0).round().to(torch.uint8)


def _label_with_less(predictor: Predictor, images: Tensor, confidence: bool) -> tuple[Tensor, Tensor | None]:
    window, stride = predictor.window, predictor.stride
    try:
        while True:
            try:
                return _label(predictor, images, confidence)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, where the error no longer holds the tensors that filled the memory.
            if images.shape[0] > 1:
                half = images.shape[0] // 2
                parts = [_label_with_less(predictor, part, confidence) for part in (images[:half], images[half:])]
                sure = [certainty for _, certainty in parts if certainty is not None]
                return torch.cat([labels for labels, _ in parts]), torch.cat(sure) if sure else None
            _use_less(predictor, (images.shape[2], images.shape[3]))
    finally:
        predictor.window, predictor.stride = window, stride


def _label(predictor: Predictor, images: Tensor, confidence: bool) -> tuple[Tensor, Tensor | None]:
    views = predictor.views(images)  # each (B, K, h, w)
    if not all(are_finite(view.logits) for view in views):
        raise NumericError("the logits are not finite; the weights are damaged or the precision is too low")
    return decide(views, (images.shape[2], images.shape[3]), confidence=confidence)


def _use_less(predictor: Predictor, size: tuple[int, int]) -> None:
    """One of the network's own details at once, then half of the windows, or when there is but one, half of the window."""
    if isinstance(predictor.network, TwoResolutions) and predictor.network.details_at_once != 1:
        predictor.network.details_at_once = 1
        return
    if predictor.window is not None and predictor.windows_at_once > 1:
        predictor.windows_at_once //= 2
        return
    multiple = predictor.size_multiple
    whole = predictor.prepared_size(*size, max(predictor.scales))
    before = whole if predictor.window is None else (min(predictor.window[0], whole[0]), min(predictor.window[1], whole[1]))
    after = (_half(before[0], multiple), _half(before[1], multiple))
    if after == before:
        smallest = f"{before[0]}x{before[1]}"
        raise DataError(f"out of memory for a {size[0]}x{size[1]} picture even in windows of {smallest}; free memory or shrink it")
    say(f"warning: out of memory; predicting a {size[0]}x{size[1]} picture in windows of {after[0]}x{after[1]}, which see less around them")
    predictor.window, predictor.stride = after, None
    predictor.windows_at_once = 1


def _half(side: int, multiple: int) -> int:
    return max(1, side // 2 // multiple) * multiple
