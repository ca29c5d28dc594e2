"""A library of trees, drawn once in a process from fixed seeds: brightness, opacity and the area an annotator would outline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from iccld.city.texture import FloatMap, noise_tile

SIZE = 224


@dataclass(frozen=True)
class TreeSprite:
    """tone (SIZE, SIZE) brightness around 1; alpha 0..1; outline 0..1, the filled crown (> 0.5 is labelled vegetation); wood (SIZE, SIZE)
    0..1 share of bark colour.  The foot stands at the middle of the lower edge; the crown fills the square."""

    tone: FloatMap
    alpha: FloatMap
    outline: FloatMap
    wood: FloatMap


@lru_cache(maxsize=512)
def packed_sprite(kind: str, number: int, level: int, is_mirrored: bool) -> npt.NDArray[np.uint8]:
    """(SIZE >> level, SIZE >> level, 4) uint8: tone x 128, alpha, outline and wood x 255; ready to be cut and scaled."""
    sprite = tree_sprite(kind, number)
    channels = [sprite.tone * 128, sprite.alpha * 255, sprite.outline * 255, sprite.wood * 255]
    packed = cv2.merge([np.clip(c, 0, 255).astype(np.uint8) for c in channels])
    side = SIZE >> level
    packed = cv2.resize(packed, (side, side), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(packed[:, ::-1]) if is_mirrored else np.asarray(packed)


@lru_cache(maxsize=64)
def tree_sprite(kind: str, number: int) -> TreeSprite:
    """kind: leafy, bare, conifer, bush; number: which specimen."""
    rng = np.random.default_rng([number, {"leafy": 1, "bare": 2, "conifer": 3, "bush": 4}[kind]])
    if kind == "bare":
        return _bare(rng, number)
    if kind == "conifer":
        return _leaves(rng, number, _conifer_blobs(rng), 0.12)
    if kind == "bush":
        return _leaves(rng, number, _round_blobs(rng, 0.5, 0.62, 0.48, 0.36, 60), 0.0)
    return _leaves(rng, number, _round_blobs(rng, 0.5, 0.38, float(rng.uniform(0.34, 0.46)), 0.36, 90), 0.3)


Blob = tuple[float, float, float, float, float]


def _round_blobs(rng: np.random.Generator, cx: float, cy: float, rx: float, ry: float, count: int) -> list[Blob]:
    blobs: list[Blob] = []
    for _ in range(count):
        angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
        x, y = cx + rx * radius * np.cos(angle) * 0.85, cy + ry * radius * np.sin(angle) * 0.85
        size = rng.uniform(0.05, 0.13)
        # Light comes from above: upper blobs are brighter, blobs near the middle are deeper in the crown.
        tone = 0.72 + 0.5 * (cy + ry - y) / (2 * ry) + 0.14 * (radius - 0.5) + rng.normal(0, 0.09)
        blobs.append((x, y, size, size * rng.uniform(0.6, 0.9), tone))
    return sorted(blobs, key=lambda b: b[4])


def _conifer_blobs(rng: np.random.Generator) -> list[Blob]:
    blobs: list[Blob] = []
    for level in np.linspace(0.05, 0.9, 16):
        half = 0.04 + 0.33 * level
        for x in np.linspace(-half, half, 3 + int(level * 7)):
            blobs.append(
                (
                    0.5 + x + rng.normal(0, 0.012),
                    level + 0.05 * abs(x),
                    0.06,
                    0.035,
                    0.95 - 0.4 * level * rng.uniform(0.3, 1) + rng.normal(0, 0.1),
                )
            )
    return blobs


def _leaves(rng: np.random.Generator, number: int, blobs: list[Blob], trunk: float) -> TreeSprite:
    tone = np.full((SIZE, SIZE), 0.55, np.float32)
    alpha = np.zeros((SIZE, SIZE), np.float32)
    wood = np.zeros((SIZE, SIZE), np.float32)
    if trunk > 0:
        x, width = SIZE * 0.5, SIZE * float(rng.uniform(0.022, 0.045))
        shape = np.array([[x - width, SIZE], [x - width * 0.6, SIZE * 0.5], [x + width * 0.6, SIZE * 0.5], [x + width, SIZE]])
        cv2.fillPoly(wood, [shape.astype(np.int32)], 1.0)
        alpha = np.maximum(alpha, wood)
    for x, y, rx, ry, value in blobs:
        center, axes = (int(x * SIZE), int(y * SIZE)), (max(2, int(rx * SIZE)), max(2, int(ry * SIZE)))
        cv2.ellipse(tone, center, axes, 0, 0, 360, float(value), -1)
        cv2.ellipse(alpha, center, axes, 0, 0, 360, 1.0, -1)
        cv2.ellipse(wood, center, axes, 0, 0, 360, 0.0, -1)
    grain = np.roll(noise_tile(51, 0.25)[:SIZE, :SIZE], number * 37, axis=1)
    clump = np.roll(noise_tile(52, 0.9)[:SIZE, :SIZE], number * 53, axis=0)
    soft = cv2.GaussianBlur(alpha, (0, 0), 3.0)
    ragged = np.clip((soft + 0.14 * grain + 0.1 * clump - 0.42) * 5, 0, 1)
    holes = np.clip((clump + 0.6 * grain + 2.35) * 2, 0.0, 1)  # gaps through which the sky shows
    leaf_alpha = ragged * holes
    final_alpha = np.maximum(leaf_alpha, wood)
    leaves = cv2.GaussianBlur(tone, (0, 0), 1.5) * (1 + 0.2 * grain + 0.1 * clump)
    outline = np.maximum(np.clip((cv2.GaussianBlur(alpha, (0, 0), 2.0) - 0.2) * 2, 0, 1), wood)
    return TreeSprite(np.clip(leaves, 0.25, 1.7).astype(np.float32), final_alpha.astype(np.float32), outline.astype(np.float32), wood)


def _bare(rng: np.random.Generator, number: int) -> TreeSprite:
    big = SIZE * 2
    ink = np.zeros((2 * big, 3 * big), np.uint8)  # room for the widest tree; cut to what grew

    def grow(x: float, y: float, angle: float, length: float, width: float, level: int) -> None:
        bend = float(rng.normal(0, 0.12))
        x1, y1 = x + length * float(np.sin(angle + bend)), y - length * float(np.cos(angle + bend))
        strength = 255 if width > 1.2 else int(255 * max(0.4, width / 1.2))
        cv2.line(ink, (int(x * 8), int(y * 8)), (int(x1 * 8), int(y1 * 8)), strength, max(1, round(width)), cv2.LINE_AA, 3)
        if level == 0:
            return
        for _ in range(int(rng.integers(2, 4)) + (level > 4)):
            grow(x1, y1, angle + bend + float(rng.normal(0, 0.5)), length * float(rng.uniform(0.6, 0.86)), width * 0.66, level - 1)

    middle, foot = ink.shape[1] // 2, ink.shape[0]
    grow(middle, foot, 0.0, big * 0.24, big * float(rng.uniform(0.02, 0.036)), 6)
    rows, columns = np.nonzero(ink)
    # The twigs' haze reaches past them: leave a margin, or the crown ends in a straight edge.
    half = int(1.2 * max(middle - columns.min(), columns.max() - middle))
    top = max(0, foot - int(1.1 * (foot - rows.min())))
    grown = ink[top:, max(0, middle - half) : middle + half]
    alpha = cv2.resize(grown, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    # Fine twigs merge into a haze around the branches.
    mass = cv2.GaussianBlur(alpha, (0, 0), 7.0)
    crown = np.clip((mass - 0.03) * 14, 0, 1)
    crown[int(SIZE * 0.8) :] = 0
    grain = np.clip(np.roll(noise_tile(53, 0.2)[:SIZE, :SIZE], number * 41, axis=1) * 0.22 + 0.3, 0, 1)
    haze = crown * grain * float(rng.uniform(0.35, 1.1))
    full = np.maximum(alpha * 1.15, haze)
    outline = np.maximum(cv2.GaussianBlur(np.clip((mass - 0.022) * 30, 0, 1), (0, 0), 2.0), (alpha > 0.5).astype(np.float32))
    outline[int(SIZE * 0.8) :] = (alpha[int(SIZE * 0.8) :] > 0.4).astype(np.float32)
    tone = np.clip(1 + 0.15 * noise_tile(54, 0.5)[:SIZE, :SIZE], 0.6, 1.4)
    return TreeSprite(
        tone.astype(np.float32), np.clip(full, 0, 1).astype(np.float32), outline.astype(np.float32), np.ones((SIZE, SIZE), np.float32)
    )
