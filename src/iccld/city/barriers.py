"""Walls and fences along the street."""

from __future__ import annotations

import math

import cv2
import numpy as np

from iccld.city.buildings import Point, between, clip_to_view, lit, outward, resolution, wall_quad
from iccld.city.camera import Camera, bounded
from iccld.city.canvas import Canvas
from iccld.city.layout import FENCE, WALL
from iccld.city.light import Light, shade
from iccld.city.texture import hsv, sample_material, tinted

Rgb = tuple[float, float, float]


def draw_wall(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, p: Point, q: Point, height: float, light: Light, graffiti: float = 0.1
) -> None:
    """A free-standing wall from p to q with a coping; p is left of q as seen from the street."""
    u = rng.uniform
    material = str(rng.choice(["brick", "stone", "concrete", "plaster"]))
    color = {
        "brick": hsv(u(8, 40), u(0.2, 0.5), u(0.35, 0.65)), "stone": hsv(u(25, 50), u(0.05, 0.25), u(0.4, 0.7)),
        "concrete": hsv(u(30, 220), u(0, 0.06), u(0.4, 0.72)), "plaster": hsv(u(20, 60), u(0, 0.2), u(0.6, 0.92)),
    }[material]  # fmt: skip
    part = clip_to_view(camera, p, q)
    if part is None:
        return
    a, b = between(p, q, part[0]), between(p, q, part[1])
    quad, depth = wall_quad(camera, a, b, 0.0, height)
    ppm = resolution(camera, float(depth.min()))
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    shape = (int(bounded(height * ppm, 3, 200)), int(bounded(length * ppm, 3, 400)))
    texture = tinted(sample_material(material, shape, ppm, rng), color)
    cap = max(1, int(0.14 * ppm))
    texture[:cap] = np.clip(np.asarray(color) * 1.18, 0, 255)
    texture[cap : cap + 1] = np.asarray(color) * 0.5
    texture[-max(1, int(0.2 * ppm)) :] = texture[-max(1, int(0.2 * ppm)) :] * 0.65
    if rng.random() < graffiti:
        x = int(u(0, 0.6) * shape[1])
        points = np.stack([x + np.cumsum(rng.integers(1, 8, 14)), shape[0] * rng.uniform(0.3, 0.85, 14)], axis=1).astype(np.int32)
        cv2.polylines(texture, [points], False, hsv(u(0, 360), u(0.4, 0.9), u(0.3, 0.9)), max(1, int(ppm * 0.08)), cv2.LINE_AA)
    canvas.textured_quad(quad, lit(texture, outward(a, b), light), WALL, depth)


def draw_fence(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, p: Point, q: Point, height: float, light: Light, kind: str = "railing"
) -> None:
    """A fence from p to q: railing, mesh, picket or wood.  Labels cover the whole fence, gaps included, as annotators draw it."""
    part = clip_to_view(camera, p, q)
    if part is None:
        return
    a, b = between(p, q, part[0]), between(p, q, part[1])
    quad, depth = wall_quad(camera, a, b, 0.0, height)
    near = max(0.8, float(depth.min()))
    ppm = bounded(1.6 * camera.pixels_per_metre(near), 3, 36)
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    rows, columns = int(bounded(height * ppm, 4, 160)), int(bounded(length * ppm, 4, 900))
    ppm_x = columns / length
    color, texture, alpha = _pattern(rng, kind, rows, columns, ppm, ppm_x)
    base = np.asarray(shade(color, outward(a, b), light), np.float32)
    painted = np.clip(texture[..., None] * base, 0, 255).astype(np.uint8)
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
        return hsv(u(20, 40), u(0.15, 0.5), u(0.3, 0.65)), tone, alpha
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
