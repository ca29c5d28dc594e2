"""Roofs without walls: columns, canopies over shop fronts and forecourts.  All of it is building (2), as people label it."""

from __future__ import annotations

import math

import numpy as np

from iccld.city.buildings import Point, between, outward
from iccld.city.camera import Camera
from iccld.city.canvas import Canvas
from iccld.city.layout import BUILDING
from iccld.city.light import Light, shade
from iccld.city.signals import upright
from iccld.city.solid import Rgb, Stage, box


def draw_column(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], light: Light, height: float, radius: float,
    color: Rgb,
) -> None:  # fmt: skip
    """A round or square column with its base and capital."""
    heading = float(rng.normal(0, 0.1))
    stage = Stage(canvas, camera, position, heading, light)
    if stage.depth < 0.8 or not camera.is_visible(position, 1.0):
        return
    is_square = rng.random() < 0.4
    stage.shadow(radius, -radius, radius, height)
    if is_square:
        stage.paint(box(-radius, radius, 0.0, height, -radius, radius, color), BUILDING)
    else:
        upright(stage, 0.0, height, 0.0, radius, color, train_id=BUILDING)
    if rng.random() < 0.5:
        for low in (0.0, height - 0.3):
            stage.paint(box(-1.3 * radius, 1.3 * radius, low, low + 0.3, -1.3 * radius, 1.3 * radius, color), BUILDING)


def draw_roof(
    canvas: Canvas, camera: Camera, p: Point, q: Point, out: float, high: float, thick: float, color: Rgb, band: Rgb, light: Light
) -> None:
    """A flat roof over the strip from the line p..q (left to right as seen from the front) to `out` metres in front of it, its underside
    `high` metres above the ground, its edge `thick` metres high in the colour `band`."""
    nx, _, nz = outward(p, q)
    p_out, q_out = (p[0] + nx * out, p[1] + nz * out), (q[0] + nx * out, q[1] + nz * out)
    under = [(a[0], high, a[1]) for a in (p, q, q_out, p_out)]
    canvas.fill3d(camera, under, shade(color, (0.0, -1.0, 0.0), light), BUILDING)
    if camera.height_m > high + thick:
        canvas.fill3d(camera, [(x, high + thick, z) for x, _, z in under], shade(color, (0.0, 1.0, 0.0), light), BUILDING)
    for a, b in ((p, p_out), (q_out, q), (p_out, q_out)):
        n = outward(a, b)
        if -(a[0] * n[0] + a[1] * n[2]) > 0.05:
            edge = [(a[0], high, a[1]), (a[0], high + thick, a[1]), (b[0], high + thick, b[1]), (b[0], high, b[1])]
            canvas.fill3d(camera, edge, shade(band, n, light), BUILDING)


def column_places(p: Point, q: Point, out: float, gap: float) -> list[Point]:
    """Where the columns of a roof over p..q stand: `out` metres in front, about `gap` metres apart."""
    nx, _, nz = outward(p, q)
    count = max(1, round(math.hypot(q[0] - p[0], q[1] - p[1]) / gap))
    places = [between(p, q, i / count) for i in range(count + 1)]
    return [(x + nx * out, z + nz * out) for x, z in places]
