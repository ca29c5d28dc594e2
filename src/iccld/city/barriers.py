"""Walls and fences along the street."""

from __future__ import annotations

import math

import cv2
import numpy as np

from iccld.city.buildings import Point, between, clip_to_view, lit, outward, resolution, wall_quad
from iccld.city.camera import Camera, bounded
from iccld.city.canvas import Canvas
from iccld.city.layout import FENCE, VEGETATION, WALL
from iccld.city.light import Light, shade
from iccld.city.posters import draw_poster
from iccld.city.texture import Image, hsv, noise_tile, sample_material, sample_tile, tinted

Rgb = tuple[float, float, float]


_WALL_MATERIALS = ("brick", "stone", "concrete", "plaster", "rubble", "blocks")


def _wall_color(rng: np.random.Generator, material: str) -> Rgb:
    u = rng.uniform
    if material == "brick":  # red, buff, dark, or painted white
        draw = rng.random()
        if draw < 0.45:
            return hsv(u(6, 22), u(0.28, 0.6), u(0.3, 0.62))
        return hsv(u(26, 44), u(0.12, 0.45), u(0.4, 0.78)) if draw < 0.85 else hsv(u(30, 60), u(0, 0.08), u(0.75, 0.95))
    if material in {"stone", "rubble"}:
        return hsv(u(25, 60), u(0.03, 0.32), u(0.3, 0.75))
    if material == "plaster":
        return hsv(u(20, 60), u(0, 0.25), u(0.55, 0.95)) if rng.random() < 0.75 else hsv(u(0, 360), u(0.1, 0.45), u(0.4, 0.9))
    return hsv(u(30, 220), u(0, 0.08), u(0.35, 0.75))


def draw_wall(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, p: Point, q: Point, height: float, light: Light, graffiti: float = 0.1
) -> None:
    """A free-standing wall (label 3) from p to q: brick, stone, concrete, plaster, rubble or blocks, with coping, piers, stains, posters;
    ivy may hang over it (label 8).  p is left of q as seen from the street."""
    u = rng.uniform
    material = str(rng.choice(_WALL_MATERIALS, p=(0.4, 0.16, 0.08, 0.18, 0.1, 0.08)))
    color = _wall_color(rng, material)
    cap, plinth, dirt = float(u(0.04, 0.16)) if rng.random() < 0.75 else 0.0, float(u(0.15, 0.45)), float(u(0.1, 0.6))
    pier = float(u(1.8, 4.5)) if rng.random() < 0.4 else 0.0
    pier_tone = float(u(0.8, 1.2))
    has_ivy = rng.random() < 0.14
    part = clip_to_view(camera, p, q)
    if part is None:
        return
    a, b = between(p, q, part[0]), between(p, q, part[1])
    quad, depth = wall_quad(camera, a, b, 0.0, height)
    ppm = resolution(camera, float(depth.min()))
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    shape = (int(bounded(height * ppm, 3, 260)), int(bounded(length * ppm, 3, 480)))
    ppm_x = shape[1] / length
    tone = sample_material(material, shape, ppm, rng)
    stains = sample_tile(noise_tile(61, 1.1), shape, min(4.0, 9 / ppm), rng)
    tone = np.asarray(tone * (1 + 0.22 * dirt * stains), np.float32)
    foot = np.linspace(height, 0, shape[0], dtype=np.float32)[:, None]
    tone *= 1 - 0.5 * dirt * np.exp(-foot / 0.35)  # splashed from the ground
    if pier:  # piers stand out of the wall: a lighter face, a dark side
        at = (np.arange(shape[1]) / ppm_x + math.hypot(a[0] - p[0], a[1] - p[1])) % pier
        tone[:, at < 0.4] *= pier_tone
        tone[:, (at >= 0.4) & (at < 0.5)] *= 0.7
    texture = tinted(tone, color)
    if plinth < 0.3:
        texture[-max(1, int(plinth * ppm)) :] = texture[-max(1, int(plinth * ppm)) :] * 0.72
    if rng.random() < 0.1:  # posters
        _posters(rng, texture, ppm, ppm_x)
    if rng.random() < graffiti:
        x = int(u(0, 0.6) * shape[1])
        points = np.stack([x + np.cumsum(rng.integers(1, 8, 14)), shape[0] * rng.uniform(0.3, 0.85, 14)], axis=1).astype(np.int32)
        cv2.polylines(texture, [points], False, hsv(u(0, 360), u(0.4, 0.9), u(0.3, 0.9)), max(1, int(ppm * 0.08)), cv2.LINE_AA)
    if cap:
        rows = max(1, int(cap * ppm))
        texture[:rows] = np.clip(np.asarray(color) * float(u(0.85, 1.3)), 0, 255)
        texture[rows : rows + 1] = np.asarray(color) * 0.5
    canvas.textured_quad(quad, lit(texture, outward(a, b), light), WALL, depth)
    if has_ivy:
        _hang_ivy(canvas, camera, rng, a, b, height, light)


def _posters(rng: np.random.Generator, texture: Image, ppm: float, ppm_x: float) -> None:
    """Bills stuck side by side onto a wall's texture."""
    rows, columns = texture.shape[:2]
    x, width, height = float(rng.uniform(0, 0.7)) * columns, float(rng.uniform(0.4, 1.3)) * ppm_x, float(rng.uniform(0.6, 1.6)) * ppm
    top = max(0.0, rows - height - float(rng.uniform(0.4, 1.0)) * ppm)
    for _ in range(int(rng.integers(1, 6))):
        if x > columns or rng.random() < 0.1:
            break
        draw_poster(rng, texture, (int(x), int(top), int(x + width), int(top + height)))
        x += width * 1.05


def _hang_ivy(canvas: Canvas, camera: Camera, rng: np.random.Generator, a: Point, b: Point, height: float, light: Light) -> None:
    """Ivy over the top of a wall: labelled vegetation where it hides the wall."""
    start = float(rng.uniform(0, 0.6))
    p, q = between(a, b, start), between(a, b, min(1.0, start + float(rng.uniform(0.2, 0.6))))
    quad, depth = wall_quad(camera, p, q, 0.0, height * 1.06)
    ppm = resolution(camera, float(depth.min()))
    shape = (int(bounded(height * ppm, 4, 120)), int(bounded(math.hypot(q[0] - p[0], q[1] - p[1]) * ppm, 4, 200)))
    grain = sample_tile(noise_tile(57, 0.45), shape, min(2.0, 20 / ppm), rng)
    reach = 0.45 + 0.25 * sample_tile(noise_tile(58, 0.8), (1, shape[1]), min(2.0, 12 / ppm), rng)
    down = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    alpha = np.clip((reach - down + 0.1 * grain) * 8, 0, 1) * np.clip((down + 0.04 * grain) * 30, 0, 1)
    color = hsv(float(rng.uniform(80, 120)), float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.18, 0.4)))
    texture = lit(tinted(np.asarray(1.1 - 0.4 * down + 0.25 * grain, np.float32), color), outward(a, b), light)
    canvas.textured_quad(quad, texture, VEGETATION, depth, alpha=np.asarray(alpha, np.float32))


def draw_hoarding(canvas: Canvas, camera: Camera, rng: np.random.Generator, p: Point, q: Point, height: float, light: Light) -> None:
    """Boards around a building site (label 3, wall): painted panels with seams, pictures and posters."""
    u = rng.uniform
    color = hsv(u(20, 60), u(0, 0.1), u(0.7, 0.95)) if rng.random() < 0.55 else hsv(u(0, 360), u(0.15, 0.8), u(0.2, 0.75))
    panel, has_pictures, band = float(u(1.2, 2.5)), rng.random() < 0.6, hsv(u(0, 360), u(0.1, 0.8), u(0.2, 0.9))
    part = clip_to_view(camera, p, q)
    if part is None:
        return
    a, b = between(p, q, part[0]), between(p, q, part[1])
    quad, depth = wall_quad(camera, a, b, 0.0, height)
    ppm = resolution(camera, float(depth.min()))
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    rows, columns = int(bounded(height * ppm, 3, 260)), int(bounded(length * ppm, 3, 480))
    tone = np.asarray(1 + 0.05 * sample_tile(noise_tile(61, 1.1), (rows, columns), min(4.0, 9 / ppm), rng), np.float32)
    at = (np.arange(columns) * length / columns) % panel
    tone[:, at < 0.05] *= 0.75
    texture = tinted(np.asarray(tone, np.float32), color)
    if has_pictures:
        texture[int(0.08 * rows) : int(0.22 * rows)] = np.asarray(band)
        for x in np.arange(0, columns, panel * columns / length).tolist():
            if rng.random() < 0.6:
                right = int(x + 0.9 * panel * columns / length)
                draw_poster(rng, texture, (int(x) + 1, int(u(0.25, 0.4) * rows), right, int(u(0.6, 0.9) * rows)))
    canvas.textured_quad(quad, lit(texture, outward(a, b), light), WALL, depth)


def draw_fence(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, p: Point, q: Point, height: float, light: Light,
    kind: str = "railing", base: float = 0.0,
) -> None:  # fmt: skip
    """A fence (label 4) from p to q, `base` metres above the ground (on a wall): railing, mesh, picket, panels or wood.  Labels cover the
    whole fence, gaps included, as annotators draw it."""
    part = clip_to_view(camera, p, q)
    if part is None:
        return
    a, b = between(p, q, part[0]), between(p, q, part[1])
    quad, depth = wall_quad(camera, a, b, base, base + height)
    near = max(0.8, float(depth.min()))
    ppm = bounded(1.6 * camera.pixels_per_metre(near), 3, 36)
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    rows, columns = int(bounded(height * ppm, 4, 160)), int(bounded(length * ppm, 4, 900))
    ppm_x = columns / length
    color, texture, alpha = _pattern(rng, kind, rows, columns, ppm, ppm_x)
    paint = np.asarray(shade(color, outward(a, b), light), np.float32)
    painted = np.clip(texture[..., None] * paint, 0, 255).astype(np.uint8)
    canvas.textured_quad(quad, painted, FENCE, depth, alpha=alpha, is_filled=True)


def _pattern(rng: np.random.Generator, kind: str, rows: int, columns: int, ppm: float, ppm_x: float) -> tuple[Rgb, np.ndarray, np.ndarray]:
    """Colour, brightness (rows, columns) and opacity (rows, columns) of a fence."""
    u = rng.uniform
    tone = np.ones((rows, columns), np.float32)
    alpha = np.zeros((rows, columns), np.float32)
    x = np.arange(columns) / ppm_x
    if kind == "wood":
        boards = np.random.default_rng(int(rng.integers(1 << 30))).normal(1, 0.1, int(columns / ppm_x / 0.14) + 2).astype(np.float32)
        tone *= boards[(x / 0.14).astype(int)][None]
        tone[:, (x % 0.14) < 0.02] *= 0.6
        alpha[...] = 1
        tone *= 1 + 0.12 * sample_tile(noise_tile(61, 1.1), (rows, columns), min(4.0, 9 / ppm), rng)
        return hsv(u(15, 45), u(0.08, 0.5), u(0.25, 0.65)), tone, alpha
    if kind == "panels":  # lapped boards between posts
        alpha[...] = 1
        tone *= 1 + 0.06 * sample_tile(noise_tile(61, 1.1), (rows, columns), 1, rng)
        tone[(np.arange(rows) / ppm) % 0.16 < 0.04] *= 0.7
        tone[:, (x % 1.9) < 0.1] = 1.35 if rng.random() < 0.5 else 0.7
        return hsv(u(15, 40), u(0.15, 0.5), u(0.25, 0.6)), tone, alpha
    if kind == "mesh":
        yy = np.arange(rows)[:, None] / ppm
        alpha = np.where((((x[None] + yy) % 0.16) < 0.035) | (((x[None] - yy) % 0.16) < 0.035), 0.8, 0.08).astype(np.float32)
        alpha[:, (x % 2.5) < 0.07] = 1
        alpha[: max(1, int(0.06 * ppm))] = 1
        return hsv(u(90, 220), u(0, 0.3), u(0.35, 0.65)), tone, alpha
    if kind == "picket":
        alpha[:, (x % 0.17) < 0.1] = 1
        for y in (0.2, 0.7):
            alpha[int(rows * y) : int(rows * y) + max(1, int(0.08 * ppm))] = 1
        white = rng.random() < 0.6
        return ((232, 230, 224) if white else hsv(u(20, 40), u(0.2, 0.5), u(0.3, 0.6))), tone, alpha
    gap = float(u(0.11, 0.2))
    alpha[:, (x % gap) < 0.032] = 1
    alpha[:, (x % 2.2) < 0.08] = 1
    rail = max(1, int(0.06 * ppm))
    alpha[:rail] = 1
    alpha[int(rows * 0.88) : int(rows * 0.88) + rail] = 1
    if rng.random() < 0.4:
        alpha[int(rows * 0.14) : int(rows * 0.14) + rail] = 1
    color = (28, 30, 32) if rng.random() < 0.6 else hsv(u(90, 220), u(0, 0.4), u(0.3, 0.75))
    return color, tone, alpha
