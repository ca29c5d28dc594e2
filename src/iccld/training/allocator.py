"""Keep freed memory instead of giving it back to the kernel after every tensor.

glibc maps blocks above a threshold (at most 32 MiB, by default 128 KiB and growing) afresh on every allocation, and the kernel zeroes
each page again: activations of a few MiB then cost more in page faults than in arithmetic.  A convolution of 8x32x96x128 floats,
forward and backward, took 247 ms before and 53 ms after on two cores (`docs/performance.md`).  Blocks of hundreds of MiB, which networks
of the paper's size make, still go back: their arithmetic takes far longer than their page faults, and a heap of them is full of holes.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""Parameter numbers of mallopt(3)."""


def keep_freed_memory(threshold: int = 1 << 26) -> bool:
    """Ask glibc to reuse freed blocks of up to `threshold` bytes; returns whether it agreed (False where there is no glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, threshold)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
