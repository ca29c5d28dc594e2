"""JPEG below the pixels: how many scans it has, and a decoder that does not keep quiet about damage."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""In coded data 0xFF is followed by 0 or a restart marker; anything else ends the scan."""


def count_scans(data: bytes) -> int:
    """Scans of the first picture in `data`; thumbnails, further pictures and films behind it do not count.

    Each scan of a progressive JPEG passes over all pixels, however few bytes it has.
    """
    scans, position = 0, 2
    while position + 4 <= len(data):
        if data[position] != 0xFF or data[position + 1] == 0xFF:
            position += 1  # padding, or garbage that decoders skip as well
            continue
        marker = data[position + 1]
        if marker == END_OF_IMAGE:
            break
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == START_OF_SCAN:
            scans += 1
            following = _MARKER_AFTER_SCAN.search(data, position)
            if following is None:
                break
            position = following.start()
    return scans


def decode(data: bytes, size: tuple[int, int], channels: str) -> npt.NDArray[Any]:
    """(H, W, C) uint8; channels: "rgb" or "mono"; size: (H, W) that the caller found sane.

    The same libjpeg-turbo as Pillow's, hence the same pixels, but a warning of the decoder (data missing, codes that do not exist) is an
    error here; Pillow fills with grey and says nothing.  ValueError: corrupt, or of another size.
    """
    import kornia_rs.io

    try:
        found = kornia_rs.io.ImageDecoder().read_header(data)
        if (found.height, found.width) != size:  # two readers of one header disagree: nothing is allocated
            raise ValueError(f"its headers say {size[1]}x{size[0]} and {found.width}x{found.height}")
        return np.asarray(kornia_rs.io.decode_image_jpegturbo(data, channels))
    except ValueError:
        raise
    except Exception:  # kornia_rs raises bare Exception, with no word of the reason
        raise ValueError("the coded data is damaged") from None
