"""Trees, bushes and tree lines in the scene."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from iccld.data.city.camera import Camera
from iccld.data.city.canvas import Canvas
from iccld.data.city.layout import VEGETATION
from iccld.data.city.light import Light
from iccld.data.city.texture import hsv, noise_tile
from iccld.data.city.tree_sprites import tree_sprite

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Season:
    """leaf: hue range and saturation of leaves.  bare: share of broad-leaved trees without leaves."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]
    bare: float


def make_season(rng: np.random.Generator, world: str) -> Season:
    """Summer, spring, autumn or winter."""
    pick = rng.choice(4, p=(0.4, 0.12, 0.16, 0.32) if world == "sim" else (0.5, 0.1, 0.2, 0.2))
    return (
        Season((72, 118), (0.3, 0.62), (0.26, 0.5), 0.03),
        Season((66, 92), (0.35, 0.65), (0.38, 0.6), 0.15),
        Season((22, 70), (0.35, 0.7), (0.3, 0.58), 0.25),
        Season((60, 110), (0.2, 0.45), (0.2, 0.38), 0.88),
    )[int(pick)]


def draw_tree(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, season: Season, position: tuple[float, float], height: float, light: Light, kind: str = "tree"
) -> None:
    """A tree (kind: tree, conifer, bush) of `height` metres with its foot at (x, z)."""
    leaf = hsv(float(rng.uniform(*season.hue)), float(rng.uniform(*season.saturation)), float(rng.uniform(*season.value)))
    bark = hsv(float(rng.uniform(20, 40)), float(rng.uniform(0.08, 0.3)), float(rng.uniform(0.14, 0.36)))
    number, mirror, aspect = int(rng.integers(14)), bool(rng.random() < 0.5), float(rng.uniform(0.75, 1.2))
    name = "bare" if kind == "tree" and rng.random() < season.bare else {"tree": "leafy"}.get(kind, kind)
    foot = camera.to_camera(np.array([[position[0], 0.0, position[1]]]))
    depth = float(foot[0, 2])
    if depth < 0.8:
        return
    x, y = camera.camera_to_pixel(foot)[0]
    tall = height * camera.focal_px / depth
    wide = tall * aspect
    if tall < 2 or x + wide / 2 < 0 or x - wide / 2 > canvas.size[1]:
        return
    sprite = tree_sprite(name, number)
    box = _visible_part(canvas, x, y, wide, tall)
    if box is None:
        return
    (left, top, right, bottom), crop, size = box

    def scaled(array: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        if mirror:
            array = array[:, ::-1]
        # A near tree is many times the picture: cut the sprite first, then scale the cut.
        part = array[crop[1] : crop[3], crop[0] : crop[2]]
        shrink = size[0] < part.shape[1] or size[1] < part.shape[0]
        return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR))

    tone, alpha, wood, outline = scaled(sprite.tone), scaled(sprite.alpha), scaled(sprite.wood), scaled(sprite.outline)
    strength = light.ambient * 0.85 + light.intensity * 0.75
    lit_leaf = np.asarray(leaf, np.float32) * np.asarray(light.color, np.float32) * strength
    lit_bark = np.asarray(bark, np.float32) * np.asarray(light.color, np.float32) * strength
    paint = (lit_leaf + (lit_bark - lit_leaf) * wood[..., None]) * tone[..., None]
    view = canvas.color[top:bottom, left:right]
    weight = alpha[..., None]
    view[...] = np.clip(view + (paint - view) * weight, 0, 255).astype(np.uint8)
    inside = outline > 0.5
    canvas.label[top:bottom, left:right][inside] = VEGETATION
    canvas.depth[top:bottom, left:right][inside] = depth


def _visible_part(
    canvas: Canvas, x: float, y: float, wide: float, tall: float
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int], tuple[int, int]] | None:
    """Canvas box, sprite crop and box size (w, h) of a sprite standing at (x, y) px."""
    height, width = canvas.size
    x0, y0 = x - wide / 2, y - tall
    left, top = max(0, round(x0)), max(0, round(y0))
    right, bottom = min(width, round(x0 + wide)), min(height, round(y))
    if right - left < 1 or bottom - top < 1:
        return None
    scale_x, scale_y = 224 / wide, 224 / tall
    c0, c1 = int(np.clip((left - x0) * scale_x, 0, 223)), int(np.clip((right - x0) * scale_x, 1, 224))
    r0, r1 = int(np.clip((top - y0) * scale_y, 0, 223)), int(np.clip((bottom - y0) * scale_y, 1, 224))
    return (left, top, right, bottom), (c0, r0, max(c0 + 1, c1), max(r0 + 1, r1)), (right - left, bottom - top)


def draw_tree_line(canvas: Canvas, camera: Camera, rng: np.random.Generator, season: Season, light: Light, haze: Rgb, distance: float) -> None:
    """A far row of trees along the whole horizon."""
    scale = camera.focal_px / distance
    base = camera.horizon_y + camera.height_m * scale
    count = 90
    x = np.linspace(-10, canvas.size[1] + 10, count)
    start = int(rng.integers(256))
    bumps = noise_tile(55, 0.9)[start % 200, (np.arange(count) + start) % 256] * 2.0 + noise_tile(56, 0.2)[3, (np.arange(count) + start) % 256] * 0.5
    height = np.clip(float(rng.uniform(3, 10)) + bumps, 0.4, 30) * scale
    leaf = hsv(float(rng.uniform(*season.hue)), float(rng.uniform(*season.saturation)) * 0.7, float(rng.uniform(*season.value)))
    if season.bare > 0.5:
        leaf = hsv(float(rng.uniform(15, 45)), 0.15, 0.35)
    share = min(0.7, distance / 500)
    tint = tuple(c * 0.7 * (light.ambient + 0.5 * light.intensity) * (1 - share) + h * share for c, h in zip(leaf, haze, strict=True))
    roll = (x - camera.cx) * np.tan(camera.roll)
    top = np.stack([x, base - height + roll], axis=1)
    low = np.stack([x[::-1], base + roll[::-1] + 1], axis=1)
    canvas.fill(np.concatenate([top, low]), (tint[0], tint[1], tint[2]), VEGETATION, distance)


def draw_hedge(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, season: Season, p: tuple[float, float], q: tuple[float, float], height: float, light: Light
) -> None:
    """A hedge as a row of overlapping bushes from p to q."""
    length = float(np.hypot(q[0] - p[0], q[1] - p[1]))
    count = max(2, int(length / (height * 0.45)))
    order = sorted(np.linspace(0, 1, count), key=lambda s: -float(np.hypot(p[0] + (q[0] - p[0]) * s, p[1] + (q[1] - p[1]) * s)))
    for share in order:
        at = (p[0] + (q[0] - p[0]) * share, p[1] + (q[1] - p[1]) * share)
        draw_tree(canvas, camera, rng, season, at, height * float(rng.uniform(1.0, 1.25)), light, "bush")
