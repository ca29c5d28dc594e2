"""Tileable textures: noise, brick, stone, plaster, concrete, paving.  Made once in a process, from fixed seeds."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from iccld.city.camera import bounded

FloatMap = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

TILE = 256


@lru_cache(maxsize=64)
def noise_tile(seed: int, falloff: float = 1.0, size: int = TILE) -> FloatMap:
    """Periodic noise (size, size) float32, mean 0, deviation 1; power falls with frequency ** (2 falloff): 0 is grain, 2 is clouds."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    radius = np.sqrt(fx * fx + fy * fy)
    radius[0, 0] = 1.0
    spectrum = spectrum / radius**falloff
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray(np.clip(noise / noise.std(), -3, 3), np.float32)


@lru_cache(maxsize=8)
def _courses(seed: int, course: int, length: int, spread: float, joint: float) -> FloatMap:
    """Masonry (TILE, TILE): rows of `course` px with blocks of `length` px, half-bond, brightness around 1."""
    rng = np.random.default_rng(seed)
    tile = np.ones((TILE, TILE), np.float32)
    for row in range(TILE // course + 1):
        shift = (row % 2) * length // 2
        values = 1 + rng.normal(0, spread, TILE // length + 2)
        for i, value in enumerate(values):
            tile[row * course : (row + 1) * course, max(0, i * length - shift) : (i + 1) * length - shift] = value
            joint_x = (i + 1) * length - shift - 1
            if joint > 0 and joint_x < TILE:
                tile[row * course : (row + 1) * course, joint_x] = 1 + joint
        tile[(row + 1) * course - 1 : (row + 1) * course] = 1 + joint
    return np.clip(tile + noise_tile(seed, 0.3) * 0.03, 0.4, 1.6)


@lru_cache(maxsize=16)
def material_tile(kind: str) -> FloatMap:
    """Brightness (TILE, TILE) around 1 of a wall material, 32 px a metre: brick, stone, rubble, blocks, plaster, render,
    concrete, wood, metal, tiles."""
    if kind == "brick":
        return np.clip(_courses(11, 3, 8, 0.13, 0.12) + 0.05 * noise_tile(12, 1.6), 0.4, 1.6)
    if kind == "stone":
        return np.clip(_courses(13, 12, 26, 0.08, -0.12) + 0.06 * noise_tile(14, 1.2), 0.4, 1.6)
    if kind == "rubble":  # stones of every size: cells around random points
        rng = np.random.default_rng(24)
        points = rng.uniform(0, TILE, (420, 2))
        wrapped = np.concatenate([points + np.array([dx, dy]) for dx in (-TILE, 0, TILE) for dy in (-TILE, 0, TILE)])
        near = wrapped[np.all((wrapped > -30) & (wrapped < TILE + 30), axis=1)]
        y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
        first, second, cell = np.full_like(x, 1e9), np.full_like(x, 1e9), np.zeros_like(x)
        for number, (px, py) in enumerate(near.tolist()):
            # No pixel's second nearest point is farther than 30: the window holds all that a point can change, in a tenth of the time.
            part = (slice(max(0, int(py) - 25), max(0, int(py) + 27)), slice(max(0, int(px) - 37), max(0, int(px) + 39)))
            distance = (x[part] - px) ** 2 + 2.2 * (y[part] - py) ** 2
            closer = distance < first[part]
            second[part] = np.where(closer, first[part], np.minimum(second[part], distance))
            first[part], cell[part] = np.where(closer, distance, first[part]), np.where(closer, np.float32(number), cell[part])
        value = 1 + 0.16 * np.sin(cell * 12.9898)
        stones = np.where(np.sqrt(second) - np.sqrt(first) < 1.2, 0.8, value)
        return np.asarray(np.clip(stones + 0.06 * noise_tile(14, 1.2), 0.4, 1.6), np.float32)
    if kind == "blocks":
        return np.clip(_courses(25, 7, 14, 0.05, -0.1) + 0.05 * noise_tile(14, 1.2), 0.4, 1.6)
    if kind == "render":  # roughcast: grain and broad stains
        return np.asarray(np.clip(1 + 0.07 * noise_tile(26, 0.1) + 0.06 * noise_tile(27, 1.4), 0.4, 1.6), np.float32)
    if kind == "wood":
        planks = np.repeat(1 + np.random.default_rng(15).normal(0, 0.09, TILE // 4), 4)[None, :].astype(np.float32)
        planks = np.repeat(planks, TILE, axis=0)
        planks[:, ::4] *= 0.75
        return np.clip(planks + 0.05 * noise_tile(16, 0.8), 0.4, 1.6)
    if kind == "metal":
        ribs = 1 + 0.1 * np.sin(np.arange(TILE) * 2 * np.pi / 8)
        return np.asarray(np.repeat(ribs[None], TILE, axis=0) + 0.03 * noise_tile(17, 1.5), np.float32)
    if kind == "tiles":
        return np.clip(_courses(18, 6, 6, 0.1, -0.18) + 0.06 * noise_tile(19, 1.5), 0.4, 1.6)
    if kind == "concrete":
        tile = 1 + 0.05 * noise_tile(20, 1.3) + 0.03 * noise_tile(21, 0.2)
        tile[::64] *= 0.8
        tile[:, ::85] *= 0.85
        return np.asarray(tile, np.float32)
    # Plaster: blotches, and stains that run down.
    stains = cv2.GaussianBlur(noise_tile(22, 0.5), (3, 61), 0)
    return np.asarray(1 + 0.05 * noise_tile(23, 1.5) + 0.25 * stains + 0.03 * noise_tile(26, 0.1), np.float32)


@lru_cache(maxsize=64)
def _shrunk(kind: str, level: int) -> FloatMap:
    """A material's tile at 1 / 2^level of its size."""
    side = TILE >> level
    return np.asarray(cv2.resize(material_tile(kind), (side, side), interpolation=cv2.INTER_AREA))


def sample_material(kind: str, shape: tuple[int, int], ppm: float, rng: np.random.Generator) -> FloatMap:
    """A piece (h, w) of a wall material at `ppm` pixels a metre, from a random place."""
    scale = 32 / ppm
    level = int(bounded(float(np.log2(max(1.0, scale))), 0, 4))
    return sample_tile(_shrunk(kind, level), shape, scale / (1 << level), rng)


def sample_tile(tile: FloatMap, shape: tuple[int, int], scale: float, rng: np.random.Generator) -> FloatMap:
    """A crop (h, w) of a periodic square tile at a random place; `scale` tile pixels per output pixel."""
    h, w = shape
    side = len(tile)
    need_h, need_w = max(1, int(np.ceil(h * scale))), max(1, int(np.ceil(w * scale)))
    y, x = int(rng.integers(side)), int(rng.integers(side))
    crop = _span(_span(tile, y, need_h, 0), x, need_w, 1)
    if crop.shape == (h, w):
        return crop
    return np.asarray(cv2.resize(crop, (w, h), interpolation=cv2.INTER_AREA if scale > 2 else cv2.INTER_LINEAR))


def _span(tile: FloatMap, start: int, count: int, axis: int) -> FloatMap:
    """Rows (axis 0) or columns (1) start .. start + count of a periodic tile: few slices instead of an index for each."""
    side, end = tile.shape[axis], start + count
    bounds = [(max(0, start - i), min(side, end - i)) for i in range(0, end, side)]
    pieces = [tile[a:b] if axis == 0 else tile[:, a:b] for a, b in bounds]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=axis)


def tinted(tone: FloatMap, color: tuple[float, float, float]) -> Image:
    """Brightness (h, w) around 1 times a colour: RGB (h, w, 3) uint8."""
    grey = cv2.convertScaleAbs(tone, alpha=128)
    return np.asarray(cv2.transform(cv2.merge([grey, grey, grey]), np.diag(np.asarray(color, np.float64) / 128)))


def lookup(tile: FloatMap, x: FloatMap, y: FloatMap) -> FloatMap:
    """Bilinear lookup of a periodic tile at coordinates (h, w) in tile pixels."""
    wrapped = cv2.remap(tile, _wrapped(x), _wrapped(y), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(wrapped)


def _wrapped(x: FloatMap) -> FloatMap:
    """x modulo TILE, without numpy's slow modulo."""
    turns = np.multiply(x, np.float32(1 / TILE), dtype=np.float32)
    turns -= np.floor(turns)
    turns *= np.float32(TILE)
    return turns


def hsv(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """Hue 0..360, saturation and value 0..1 -> RGB 0..255."""
    sector = (hue / 60.0) % 6
    chroma = value * saturation
    second = chroma * (1 - abs(sector % 2 - 1))
    low = value - chroma
    high, middle, low = (chroma + low) * 255, (second + low) * 255, (0 + low) * 255
    if sector < 3:
        return (high, middle, low) if sector < 1 else (middle, high, low) if sector < 2 else (low, high, middle)
    return (low, middle, high) if sector < 4 else (middle, low, high) if sector < 5 else (high, low, middle)
