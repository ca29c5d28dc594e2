"""Prediction in overlapping windows whose logits are averaged, as HRDA and MIC score their models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

from iccld.errors import ConfigError

Position = tuple[int, int]
"""(y, x) of a window's upper left pixel in the whole picture."""


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side: every `stride` pixels, the last one flush with the border; [0] when one covers all."""
    if window < 1 or stride < 1:
        raise ConfigError(f"a sliding window needs a size and a stride of at least 1, not {window} and {stride}")
    if stride > window:
        raise ConfigError(f"stride {stride} is larger than the window {window}: pixels between the windows would get no prediction")
    if length <= window:
        return [0]
    return [*range(0, length - window, stride), length - window]


def sliding_window(
    forward: Callable[[Tensor, Sequence[Position]], Tensor],
    images: Tensor,
    window: tuple[int, int],
    stride: int | tuple[int, int],
    *,
    windows_at_once: int = 1,
    by_cells: bool = False,
) -> Tensor:
    """Average the logits of overlapping windows: (B, C, H, W) -> (B, K, H, W) float32, or with `by_cells` (B, K, H / c, W / c).

    forward(crops (N, C, h, w), positions) -> (N, K, h', w') is called with N = B * len(positions) crops, all images of a position together;
    its logits are resized to the window.  A side shorter than the window gives one window of that side's length.
    windows_at_once: positions in one call; it changes memory, not the answer.  by_cells: logits of c x c pixels a cell are averaged as they
    are where every window and the picture begin and end between cells, and only where they do not at the size of the pixels.
    Raises ConfigError for a stride that leaves gaps.
    """
    num_images, _, height, width = images.shape
    window_height, window_width = min(window[0], height), min(window[1], width)
    stride_y, stride_x = (stride, stride) if isinstance(stride, int) else stride
    # The checks are those of the window asked for: a small picture must not hide a stride that leaves gaps on a large one.
    starts_y, starts_x = window_starts(height, window[0], stride_y), window_starts(width, window[1], stride_x)
    positions = [(y, x) for y in starts_y for x in starts_x]
    total: Tensor | None = None
    cell = 1
    for first in range(0, len(positions), max(1, windows_at_once)):
        group = positions[first : first + max(1, windows_at_once)]
        crops = torch.cat([images[:, :, y : y + window_height, x : x + window_width] for y, x in group])  # (N, C, h, w)
        logits = forward(crops, group).float()  # (N, K, h', w')
        if by_cells and first == 0:
            cell = _common_cell(logits, (window_height, window_width), [height, width, *starts_y, *starts_x])
        if logits.shape[2:] != (window_height // cell, window_width // cell):
            logits = functional.interpolate(logits, size=(window_height, window_width), mode="bilinear", align_corners=False)
        if len(positions) == 1:
            return logits
        if total is None:
            total = logits.new_zeros((num_images, logits.shape[1], height // cell, width // cell))
        for index, (y, x) in enumerate(group):
            part = logits[index * num_images : (index + 1) * num_images]  # (B, K, h, w)
            total[:, :, y // cell : (y + window_height) // cell, x // cell : (x + window_width) // cell] += part
    if total is None:
        raise ConfigError("a sliding window over an empty picture has no prediction")
    counts_y = _coverage([y // cell for y in starts_y], window_height // cell, height // cell, total)
    counts_x = _coverage([x // cell for x in starts_x], window_width // cell, width // cell, total)
    return total / (counts_y[:, None] * counts_x)


def _common_cell(logits: Tensor, window: tuple[int, int], places: Sequence[int]) -> int:
    """Pixels a side of the logits' cells, if all windows and the picture consist of whole ones; 1 otherwise."""
    cell = window[0] // int(logits.shape[2])
    is_whole = (cell * logits.shape[2], cell * logits.shape[3]) == window and all(place % cell == 0 for place in places)
    return cell if is_whole else 1


def _coverage(starts: Sequence[int], window: int, length: int, like: Tensor) -> Tensor:
    """(length,) how many windows cover each position along one side."""
    counts = like.new_zeros(length)
    for start in starts:
        counts[start : start + window] += 1
    return counts
