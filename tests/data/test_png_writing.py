"""Masks as PNG files: Pillow and this package's own reader see the very indices, of any size and number of colours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from iccld.data import png


@pytest.mark.parametrize("num_colors", [1, 2, 3, 4, 5, 16, 17, 256])
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (16, 9), (5, 64)])
def test_indices_and_palette_are_read_back(num_colors: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(num_colors)
    palette = rng.integers(0, 256, (num_colors, 3), dtype=np.uint8)
    indices = rng.integers(0, num_colors, size, dtype=np.uint8)
    data = png.encode(indices, palette)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P"
        assert image.getpalette()[: 3 * num_colors] == palette.ravel().tolist()
        assert np.array_equal(np.asarray(image), indices)
    png.refuse_missing_pixels(data, png.read_header(data))


@pytest.mark.parametrize("shape", [(5, 8), (5, 8, 3), (1, 1), (2, 1, 3)])
def test_grey_and_colours_are_read_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = png.encode(pixels)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == ("L" if len(shape) == 2 else "RGB")
        assert np.array_equal(np.asarray(image), pixels)
    assert png.read_header(data).bits == 8


def test_areas_take_few_bytes() -> None:
    indices = np.zeros((256, 512), np.uint8)
    indices[100:, 200:] = 3
    assert len(png.encode(indices, np.zeros((11, 3), np.uint8))) < 1000
