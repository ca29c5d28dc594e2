"""Trees, bushes and tree lines in the scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from iccld.city.buildings import Point, between, clip_to_view, lit, outward, resolution, wall_quad
from iccld.city.camera import Camera, FloatArray, bounded
from iccld.city.canvas import Canvas, put
from iccld.city.layout import VEGETATION
from iccld.city.light import Light
from iccld.city.texture import Image, hsv, noise_tile, sample_tile, tinted
from iccld.city.tree_sprites import SIDES, SPECIMENS, packed_sprite

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Season:
    """hue, saturation, value: ranges for leaves.  bare, thin: shares of broad-leaved trees without leaves and with few."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]
    bare: float
    thin: float


def make_season(rng: np.random.Generator, world: str) -> Season:
    """Summer, spring, autumn or winter."""
    pick = rng.choice(4, p=(0.28, 0.12, 0.16, 0.44) if world == "sim" else (0.5, 0.1, 0.2, 0.2))
    return (
        Season((72, 118), (0.3, 0.62), (0.26, 0.5), 0.03, 0.05),
        Season((66, 92), (0.35, 0.65), (0.38, 0.6), 0.15, 0.3),
        Season((22, 70), (0.35, 0.7), (0.3, 0.58), 0.25, 0.35),
        Season((60, 110), (0.2, 0.45), (0.2, 0.38), 0.86, 0.06),
    )[int(pick)]


_WOOD_SHARES = np.full((1, 256, 4), 255, np.uint8)
_WOOD_SHARES[0, :, 3] = np.arange(256)


def bark_and_leaf(wood: Image, mix: FloatArray) -> Image:
    """Colours (h, w, 3) of the shares of bark (h, w): `mix` (3, 4) times (255, 255, 255, share).

    The matrix fills a table of all shares: that takes a fifth of the time of the matrix on every pixel."""
    colors = cv2.transform(_WOOD_SHARES, mix)
    return np.asarray(cv2.applyColorMap(wood, colors.reshape(256, 1, 3)), np.uint8)


def draw_tree(
    canvas: Canvas,
    camera: Camera,
    rng: np.random.Generator,
    season: Season,
    position: tuple[float, float],
    height: float,
    light: Light,
    kind: str = "tree",
) -> None:
    """A tree (kind: tree, conifer, bush) of `height` metres with its foot at (x, z)."""
    leaf = hsv(float(rng.uniform(*season.hue)), float(rng.uniform(*season.saturation)), float(rng.uniform(*season.value)))
    bark = hsv(float(rng.uniform(20, 40)), float(rng.uniform(0.08, 0.3)), float(rng.uniform(0.14, 0.36)))
    name = _sprite_name(rng, season, kind)
    number, mirror, aspect = int(rng.integers(SPECIMENS[name])), bool(rng.random() < 0.5), float(rng.uniform(0.75, 1.2))
    side = SIDES[name]
    (ax, _, az, ao), (bx, _, bz, bo), (cx, _, cz, co) = camera.rows
    depth = cx * position[0] + cz * position[1] + co
    if depth < 0.8:
        return
    scale = camera.focal_px / depth
    x = camera.cx + (ax * position[0] + az * position[1] + ao) * scale
    y = camera.cy - (bx * position[0] + bz * position[1] + bo) * scale
    tall = height * camera.focal_px / depth
    wide = tall * aspect
    if tall < 2 or x + wide / 2 < 0 or x - wide / 2 > canvas.size[1]:
        return
    level = int(bounded(math.log2(side / max(wide, tall, 1.0)), 0, 5))  # a smaller copy for far trees
    box = _visible_part(canvas, x, y, wide, tall, side >> level)
    if box is None:
        return
    (left, top, right, bottom), crop, size = box
    # A near tree is many times the picture: cut the sprite first, then scale the cut.
    packed = cv2.resize(packed_sprite(name, number, level, mirror)[crop[1] : crop[3], crop[0] : crop[2]], size)
    strength = light.ambient * 0.85 + light.intensity * 0.75
    rows = []
    for own_leaf, own_bark, tint in zip(leaf, bark, light.color, strict=True):
        lit_leaf, lit_bark = own_leaf * tint * strength, own_bark * tint * strength
        rows.append((lit_leaf / 255, 0.0, 0.0, (lit_bark - lit_leaf) / 255))
    mix = np.array(rows)
    tone, alpha, outline, wood = cv2.split(packed)
    paint = cv2.multiply(bark_and_leaf(np.asarray(wood, np.uint8), mix), cv2.cvtColor(tone, cv2.COLOR_GRAY2RGB), scale=1 / 128)
    view = canvas.color[top:bottom, left:right]
    weight = cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB)
    cv2.add(cv2.multiply(paint, weight, scale=1 / 255), cv2.multiply(view, cv2.bitwise_not(weight), scale=1 / 255), dst=view)
    inside = outline > 127
    put(canvas.label[top:bottom, left:right], VEGETATION, inside)
    put(canvas.depth[top:bottom, left:right], depth, inside)


def _sprite_name(rng: np.random.Generator, season: Season, kind: str) -> str:
    """Which sprite a tree (kind: tree, conifer, bush) shows in this season."""
    draw = rng.random()
    if kind == "bush":
        return "thicket" if draw < 0.6 * season.bare else "bush"
    if kind != "tree":
        return kind
    return "bare" if draw < season.bare else "sparse" if draw < season.bare + season.thin else "leafy"


def _visible_part(
    canvas: Canvas, x: float, y: float, wide: float, tall: float, side: int
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int], tuple[int, int]] | None:
    """Canvas box, crop of a sprite of side x side pixels, and box size (w, h), for a sprite standing at (x, y) px."""
    height, width = canvas.size
    x0, y0 = x - wide / 2, y - tall
    left, top = max(0, round(x0)), max(0, round(y0))
    right, bottom = min(width, round(x0 + wide)), min(height, round(y))
    if right - left < 1 or bottom - top < 1:
        return None
    scale_x, scale_y = side / wide, side / tall
    c0, c1 = min(side - 1, max(0, int((left - x0) * scale_x))), min(side, max(1, round((right - x0) * scale_x)))
    r0, r1 = min(side - 1, max(0, int((top - y0) * scale_y))), min(side, max(1, round((bottom - y0) * scale_y)))
    return (left, top, right, bottom), (c0, r0, max(c0 + 1, c1), max(r0 + 1, r1)), (right - left, bottom - top)


def draw_tree_line(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, season: Season, light: Light, haze: Rgb, distance: float
) -> None:
    """A far row of trees along the whole horizon."""
    scale = camera.focal_px / distance
    base = camera.horizon_y + camera.height_m * scale
    count = 90
    x = np.linspace(-10, canvas.size[1] + 10, count)
    start = int(rng.integers(256))
    bumps = (
        noise_tile(55, 0.9)[start % 200, (np.arange(count) + start) % 256] * 2.0
        + noise_tile(56, 0.2)[3, (np.arange(count) + start) % 256] * 0.5
    )
    height = np.clip(float(rng.uniform(3, 10)) + bumps, 0.4, 30) * scale
    leaf = hsv(float(rng.uniform(*season.hue)), float(rng.uniform(*season.saturation)) * 0.7, float(rng.uniform(*season.value)))
    if season.bare > 0.5:
        leaf = hsv(float(rng.uniform(15, 45)), 0.15, 0.35)
    share = min(0.7, distance / 500)
    tint = tuple(c * 0.7 * (light.ambient + 0.5 * light.intensity) * (1 - share) + h * share for c, h in zip(leaf, haze, strict=True))
    roll = (x - camera.cx) * np.tan(camera.roll)
    top = np.stack([x, base - height + roll], axis=1)
    low = np.stack([x[::-1], base + roll[::-1] + 1], axis=1)
    if season.bare > 0.5:  # the upper half is twigs: the sky shows between them
        _draw_twigs(canvas, rng, (tint[0], tint[1], tint[2]), np.concatenate([top, low]), distance)
        top[:, 1] += 0.45 * height
    canvas.fill(np.concatenate([top, low]), (tint[0], tint[1], tint[2]), VEGETATION, distance)


def _draw_twigs(canvas: Canvas, rng: np.random.Generator, tint: Rgb, outline: FloatArray, distance: float) -> None:
    """A thin veil of twigs within an outline (N, 2) px, denser below; labelled where it hides more than it shows."""
    box = canvas.roi(outline)
    if box is None:
        return
    left, top, right, bottom = box
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(mask, [np.round(outline - (left, top)).astype(np.int32)], 255)
    # Upright grain: twigs are finer across than along.
    grain = sample_tile(noise_tile(59, 0.3), mask.shape, 1.0, rng) + 0.8 * sample_tile(noise_tile(60, 1.0), mask.shape, 0.7, rng)
    near = cv2.blur(mask, (3, 7)).astype(np.float32) / 255
    alpha = np.clip((0.45 + 0.3 * grain) * near, 0, 0.95).astype(np.float32) * (mask > 0)
    view = canvas.color[top:bottom, left:right]
    weight = alpha[..., None]
    view[...] = view + (np.asarray(tint, np.float32) - view) * weight + np.float32(0.5)
    inside = alpha > 0.4
    put(canvas.label[top:bottom, left:right], VEGETATION, inside)
    put(canvas.depth[top:bottom, left:right], distance, inside)


def draw_hedge(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, season: Season, p: Point, q: Point, height: float, light: Light
) -> None:
    """A clipped hedge from p to q (p left of q as seen from the street): a leafy wall with a ragged top."""
    part = clip_to_view(camera, p, q)
    if part is None:
        return
    a, b = between(p, q, part[0]), between(p, q, part[1])
    quad, depth = wall_quad(camera, a, b, 0.0, height * 1.12)
    ppm = resolution(camera, float(depth.min()))
    rows, columns = int(bounded(height * 1.12 * ppm, 4, 160)), int(bounded(np.hypot(b[0] - a[0], b[1] - a[1]) * ppm, 4, 300))
    leaf = hsv(float(rng.uniform(*season.hue)), float(rng.uniform(*season.saturation)), float(rng.uniform(*season.value)) * 0.9)
    grain = sample_tile(noise_tile(57, 0.45), (rows, columns), min(2.0, 20 / ppm), rng)
    shape = np.linspace(1.12, 0.72, rows, dtype=np.float32)[:, None]  # light from above
    ragged = 0.1 + 0.05 * sample_tile(noise_tile(58, 0.8), (1, columns), min(2.0, 20 / ppm), rng)
    alpha = np.clip((np.arange(rows, dtype=np.float32)[:, None] / rows - ragged + 0.02 * grain) * 25 + 0.5, 0, 1)
    texture = lit(tinted(shape * (1 + 0.22 * grain), leaf), outward(p, q), light)
    canvas.textured_quad(quad, texture, VEGETATION, depth, alpha=alpha)
