"""What flows through the corridor: one picture (`Sample`), one training batch of two domains (`DomainBatch`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


class Sample(NamedTuple):
    """One picture as read from disk, on the CPU.

    image: (H, W, 3) uint8 RGB.  label: (H, W) uint8 train ids of the label space, 255 = ignore, or None.
    depth: (H, W) float32 metres, or None.  name: the file's stem-like identifier, unique in its dataset.  index: its position.
    """

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8] | None
    depth: npt.NDArray[np.float32] | None
    name: str
    index: int  # type: ignore[assignment]  # hides tuple.index(), which nobody calls on a Sample


class DomainBatch(NamedTuple):
    """One training batch.  There is no target label here, but in a run that measures a ceiling: leakage cannot be written.

    source_image, target_image: (B, 3, H, W) uint8 RGB, or float32 in 0..1 after the geometric transforms.
    source_label: (B, H, W) uint8 or int64 train ids, 255 = ignore.  source_depth, target_depth: (B, H, W) float32 metres.
    target_valid: (B, H, W) bool, the target pixels that may teach.  source_index, target_index: (B,) int64 dataset positions.
    source_class: (B,) int64, the class for whose sake rare-class sampling drew each source picture; None where it drew none.
    source_size, target_size: (B, 2) int64, height and width of each picture, which fills its row from the upper left; None where all fill
    the whole of theirs.  What lies beside a picture is 0, its label 255, its valid False.
    target_label: (B, H, W) uint8, as source_label; None unless the configuration says `target.truth`.
    All maps of one domain share its image's geometry.
    """

    source_image: Tensor
    source_label: Tensor
    target_image: Tensor
    source_index: Tensor
    target_index: Tensor
    source_depth: Tensor | None = None
    target_depth: Tensor | None = None
    target_valid: Tensor | None = None
    source_class: Tensor | None = None
    source_size: Tensor | None = None
    target_size: Tensor | None = None
    target_label: Tensor | None = None
