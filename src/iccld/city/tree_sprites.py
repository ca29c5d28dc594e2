"""A library of trees, drawn once in a process from fixed seeds: brightness, opacity and the area an annotator would outline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from iccld.city.texture import FloatMap, noise_tile

SIZE = 224
SIDES = {"leafy": SIZE, "bare": 384, "sparse": 384, "conifer": SIZE, "bush": SIZE, "thicket": SIZE}
"""Side of each kind's sprite, px: branches are finer than leaves."""
SPECIMENS = {"leafy": 14, "bare": 10, "sparse": 5, "conifer": 8, "bush": 14, "thicket": 6}


@dataclass(frozen=True)
class TreeSprite:
    """tone (side, side) brightness around 1; alpha 0..1; outline 0..1 (> 0.5 is labelled vegetation): what is opaque, small gaps between
    leaves filled; wood (side, side) 0..1 share of bark colour.  The foot stands at the middle of the lower edge; the crown fills the
    square."""

    tone: FloatMap
    alpha: FloatMap
    outline: FloatMap
    wood: FloatMap


@lru_cache(maxsize=512)
def packed_sprite(kind: str, number: int, level: int, is_mirrored: bool) -> npt.NDArray[np.uint8]:
    """(side >> level, side >> level, 4) uint8: tone x 128, alpha, outline and wood x 255; ready to be cut and scaled."""
    if is_mirrored:
        return np.ascontiguousarray(packed_sprite(kind, number, level, False)[:, ::-1])
    side = SIDES[kind] >> level
    if level > 0:
        return np.asarray(cv2.resize(packed_sprite(kind, number, level - 1, False), (side, side), interpolation=cv2.INTER_AREA))
    sprite = tree_sprite(kind, number)
    channels = [(sprite.tone, 128), (sprite.alpha, 255), (sprite.outline, 255), (sprite.wood, 255)]
    return np.asarray(cv2.merge([cv2.convertScaleAbs(channel, alpha=scale) for channel, scale in channels]), np.uint8)


@lru_cache(maxsize=64)
def tree_sprite(kind: str, number: int) -> TreeSprite:
    """kind: leafy, bare, sparse (a few leaves left), conifer, bush, thicket (a bare bush); number: which specimen."""
    rng = np.random.default_rng([number, {"leafy": 1, "bare": 2, "conifer": 3, "bush": 4, "sparse": 5, "thicket": 6}[kind]])
    if kind == "bare":
        return _bare(rng, number, 0.0)
    if kind == "sparse":
        return _bare(rng, number, float(rng.uniform(0.15, 0.7)))
    if kind == "conifer":
        return _leaves(rng, number, _conifer_blobs(rng), 0.12, 0.0)
    if kind == "bush":
        return _leaves(rng, number, _round_blobs(rng, 0.5, 0.62, 0.48, 0.36, 60), 0.0, 0.0)
    if kind == "thicket":
        return _thicket(rng, number)
    openness = float(rng.choice([0.0, 0.5, 1.1]))
    round_crown = number % 4 == 3
    blobs = _round_blobs(rng, 0.5, 0.38, float(rng.uniform(0.34, 0.46)), 0.36, 90) if round_crown else _crown_blobs(rng)
    return _leaves(rng, number, blobs, 0.3, openness)


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


def _crown_blobs(rng: np.random.Generator) -> list[Blob]:
    """A crown of several boughs, each a cloud of tufts: round, tall, wide or lopsided."""
    wide, tall = float(rng.uniform(0.22, 0.44)), float(rng.uniform(0.32, 0.46))
    lean, low = float(rng.normal(0, 0.04)), float(rng.uniform(0.42, 0.5))
    blobs: list[Blob] = []
    num = int(rng.integers(5, 11))
    for bough in range(num):
        angle, radius = 2.4 * bough + float(rng.normal(0, 0.3)), math.sqrt((bough + 0.5) / num)
        cx, cy = 0.5 + lean + wide * 0.72 * radius * math.cos(angle), low - 0.04 + tall * 0.72 * radius * math.sin(angle)
        size = float(rng.uniform(0.11, 0.19))
        shade = 0.98 - 0.45 * (cy - low + tall) / (2 * tall) + float(rng.normal(0, 0.06))
        for _ in range(32):
            turn, out = float(rng.uniform(0, 2 * math.pi)), math.sqrt(float(rng.uniform(0, 1)))
            x, y = cx + size * out * math.cos(turn), max(0.03, cy + 0.8 * size * out * math.sin(turn))
            tuft = float(rng.uniform(0.018, 0.05))
            blobs.append((x, y, tuft, tuft * 0.8, shade - 0.32 * out * math.sin(turn) + float(rng.normal(0, 0.07))))
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


def _leaves(rng: np.random.Generator, number: int, blobs: list[Blob], trunk: float, openness: float) -> TreeSprite:
    """A crown of leaves; `openness`: 0 closed, 1 with many gaps through which one sees what lies behind."""
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
    ragged = np.clip((soft + 0.14 * grain + 0.1 * clump - 0.42) * 5, 0, 1) * (soft > 0.05)
    holes = np.clip((clump + 0.6 * grain + 2.35 - openness) * 2, 0.0, 1)  # gaps through which the sky shows
    leaf_alpha = ragged * holes
    final_alpha = np.maximum(leaf_alpha, wood)
    leaves = cv2.GaussianBlur(tone, (0, 0), 1.5) * (1 + 0.2 * grain + 0.1 * clump)
    # Gaps of a few pixels are filled as people fill them; larger ones show what lies behind, in the label too.
    outline = np.maximum(np.clip((cv2.GaussianBlur(leaf_alpha, (0, 0), 1.6) - 0.2) * 1.6, 0, 1), wood)
    return TreeSprite(np.clip(leaves, 0.25, 1.7).astype(np.float32), final_alpha.astype(np.float32), outline.astype(np.float32), wood)


def _thicket(rng: np.random.Generator, number: int) -> TreeSprite:
    """A leafless bush: a fan of many thin rods, dense below and open above."""
    big = SIZE * 2
    ink = np.zeros((big, big), np.uint8)
    for _ in range(190):
        x, angle = big * (0.5 + float(rng.normal(0, 0.16))), float(rng.normal(0, 0.4))
        y, length = float(big), big * float(rng.uniform(0.3, 0.95))
        for step in range(3):
            angle += float(rng.normal(0, 0.35))
            x1, y1 = x + length / 2 * math.sin(angle), y - length / 2 * abs(math.cos(angle))
            cv2.line(ink, (int(x * 8), int(y * 8)), (int(x1 * 8), int(y1 * 8)), 255 - 50 * step, 1 + (step == 0), cv2.LINE_AA, 3)
            x, y, length = x1, y1, length * 0.7
    alpha = np.clip(cv2.resize(ink, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 170, 0, 1)
    tone = np.clip(1 + 0.25 * np.roll(noise_tile(54, 0.5)[:SIZE, :SIZE], number * 29, axis=0), 0.5, 1.5).astype(np.float32)
    wood = np.full((SIZE, SIZE), float(rng.uniform(0.5, 1.0)), np.float32)
    return TreeSprite(tone, alpha.astype(np.float32), np.clip(alpha * 1.45, 0, 1).astype(np.float32), wood)


@dataclass(frozen=True)
class Habit:
    """How a leafless tree grows.  trunk: share of the height below the first fork.  lead: how straight the leading shoot goes on, 0..1.
    fork: angle of side shoots, radians.  shrink: length of a shoot over that of its parent.  droop: how twigs bend, radians a level:
    positive hangs, negative rises.  levels: of branching.  thick: trunk's width over the height."""

    trunk: float
    lead: float
    fork: float
    shrink: tuple[float, float]
    droop: float
    levels: int
    thick: float


HABITS = (
    Habit(0.2, 0.35, 0.55, (0.7, 0.88), 0.0, 6, 0.03),  # spreading: oak, plane
    Habit(0.16, 0.9, 0.5, (0.66, 0.84), -0.07, 6, 0.024),  # upright: lime, poplar
    Habit(0.22, 0.75, 0.6, (0.7, 0.86), 0.16, 6, 0.022),  # hanging: birch, willow
    Habit(0.34, 0.2, 0.65, (0.5, 0.72), -0.1, 5, 0.038),  # cut back: pollard
    Habit(0.3, 0.8, 0.6, (0.6, 0.78), -0.05, 5, 0.017),  # young, few branches
)


def _grow(rng: np.random.Generator, habit: Habit, ink: npt.NDArray[np.uint8], foot: tuple[float, float], side: float) -> list[Blob]:
    """Draw a leafless tree of about `side` px into `ink` from `foot` upwards; returns the tips of its twigs (x, y, 0, 0, level)."""
    tips: list[Blob] = []
    shoots = [(foot[0], foot[1], float(rng.normal(0, 0.05)), side * habit.trunk, side * habit.thick * float(rng.uniform(0.8, 1.25)), 0)]
    while shoots:
        x, y, angle, length, width, level = shoots.pop()
        bend = float(rng.normal(0, 0.1))
        middle = (x + 0.5 * length * math.sin(angle), y - 0.5 * length * math.cos(angle))
        angle += bend + (habit.droop * math.copysign(1.0, angle) if level > 2 else 0.0)
        tip = (middle[0] + 0.5 * length * math.sin(angle), middle[1] - 0.5 * length * math.cos(angle))
        strength = 255 if width > 1.0 else int(255 * max(0.45, width))
        for p, q in (((x, y), middle), (middle, tip)) if level < 4 else (((x, y), tip),):
            cv2.line(ink, (int(p[0] * 8), int(p[1] * 8)), (int(q[0] * 8), int(q[1] * 8)), strength, max(1, round(width)), cv2.LINE_AA, 3)
        if level >= habit.levels:
            tips.append((tip[0], tip[1], 0.0, 0.0, float(level)))
            continue
        leads = rng.random() < habit.lead
        for number in range(int(rng.integers(2, 4)) + (level in (1, 2))):
            if leads and number == 0:
                turned, share, thin = angle * 0.7 + float(rng.normal(0, 0.08)), 0.95, 0.78
            else:
                turned = angle + float(rng.choice([-1, 1])) * habit.fork * float(rng.uniform(0.5, 1.35))
                share, thin = 1.0, 0.6
            longer = length * share * float(rng.uniform(*habit.shrink)) * (1.25 if level == 0 else 1.0)
            shoots.append((tip[0], tip[1], turned, longer, width * thin, level + 1))
    return tips


def _bare(rng: np.random.Generator, number: int, leaves: float) -> TreeSprite:
    """A leafless tree, or one with `leaves` (share of the twigs) left.  Its outline is what is drawn: between branches is no tree."""
    side = SIDES["bare"]
    big = 2 * side
    habit = HABITS[number % len(HABITS)]
    ink = np.zeros((2 * big, 3 * big), np.uint8)  # room for the widest tree; cut to what grew
    tips = _grow(rng, habit, ink, (ink.shape[1] / 2, float(ink.shape[0])), big)
    rows, columns = np.nonzero(ink.any(axis=1))[0], np.nonzero(ink.any(axis=0))[0]
    middle, foot = ink.shape[1] // 2, ink.shape[0]
    half = int(1.04 * max(middle - columns[0], columns[-1] - middle))
    top = max(0, foot - int(1.03 * (foot - rows[0])))
    left = max(0, middle - half)
    grown = ink[top:, left : middle + half]
    scale_x, scale_y = side / grown.shape[1], side / grown.shape[0]
    branches = cv2.resize(grown, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    # The finest twigs are a grey veil close to the drawn ones: never more than half opaque, and with gaps.
    grain = np.roll(noise_tile(53, 0.35, 512)[:side, :side], number * 41, axis=1)
    veil = np.clip(cv2.GaussianBlur(branches, (0, 0), 2.2) * float(rng.uniform(0.5, 1.3)) * (1 + 0.7 * grain), 0, 0.5)
    veil[int(side * 0.88) :] = 0
    alpha = np.maximum(np.clip(branches * 1.25, 0, 1), veil)
    wood = np.ones((side, side), np.float32)
    tone = np.clip(1 + 0.15 * np.roll(noise_tile(54, 0.5, 512)[:side, :side], number * 17, axis=0), 0.6, 1.4).astype(np.float32)
    if number % 4 == 1:  # ivy up the trunk
        for _ in range(60):
            y = side * (1 - float(rng.uniform(0.0, 0.3 + habit.trunk)))
            x = side * 0.5 + float(rng.normal(0, 0.022)) * side
            _leaf(tone, alpha, wood, (x, y), float(rng.uniform(0.008, 0.022)) * side, float(rng.uniform(0.5, 0.9)))
    for x, y, *_ in tips:
        if rng.random() < leaves:
            at = ((x - left) * scale_x, (y - top) * scale_y)
            _leaf(tone, alpha, wood, at, float(rng.uniform(0.005, 0.014)) * side, float(rng.uniform(0.7, 1.3)))
    # People outline what looks closed: a veil of more than a third is tree, thinner is what lies behind.
    outline = np.clip(alpha * 1.45, 0, 1)
    return TreeSprite(tone, alpha.astype(np.float32), outline.astype(np.float32), wood)


def _leaf(tone: FloatMap, alpha: FloatMap, wood: FloatMap, at: tuple[float, float], size: float, value: float) -> None:
    """A tuft of leaves."""
    center, axes = (int(at[0]), int(at[1])), (max(1, int(size * 1.2)), max(1, int(size)))
    for sheet, level in ((tone, value), (alpha, 0.95), (wood, 0.0)):
        cv2.ellipse(sheet, center, axes, 0, 0, 360, float(level), -1)
