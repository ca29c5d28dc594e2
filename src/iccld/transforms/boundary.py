"""How far a pixel is from the edge of what was pasted."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def boundary_distance(mask: Tensor) -> Tensor:
    """(B, H, W) bool -> (B, H, W) float32 pixels, Euclidean, to the nearest pixel of the other kind; inf where there is none.

    1 on both sides of an edge.  OpenCV's exact transform, on the CPU.  Its last bit differs between calls, so the distances are
    rounded to roots of whole numbers, which they are (up to 2,000 pixels).
    """
    distances = np.empty(mask.shape, np.float32)
    for row, inside in enumerate(mask.cpu().numpy().astype(np.uint8)):
        if inside.all() or not inside.any():
            distances[row] = np.inf
            continue
        # Each transform is 0 on the other side, so their sum is the distance to the other kind on both.
        distances[row] = sum(cv2.distanceTransform(side, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for side in (inside, 1 - inside))
    exact = np.sqrt(np.rint(np.square(distances, dtype=np.float64))).astype(np.float32)
    return torch.from_numpy(exact).to(mask.device)
