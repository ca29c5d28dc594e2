"""Posters, billboards, totems and banners: what stands free is a sign (7), what hangs on a wall takes the wall's class."""

from __future__ import annotations

import math

import cv2
import numpy as np

from iccld.city.camera import Camera, bounded
from iccld.city.canvas import Canvas
from iccld.city.layout import BUILDING, POLE, SIGN
from iccld.city.light import Light
from iccld.city.signals import VOID, grey, upright
from iccld.city.solid import Face, Point, Rgb, Stage, box
from iccld.city.texture import Image, hsv


def draw_poster(rng: np.random.Generator, texture: Image, box_px: tuple[int, int, int, int]) -> None:
    """A poster within `box_px` (x0, y0, x1, y1) of a texture: a ground, pictures, lines of writing."""
    x0, y0, x1, y1 = box_px
    u = rng.uniform
    paper = hsv(u(0, 360), u(0, 0.8), u(0.3, 1.0))
    cv2.rectangle(texture, (x0, y0), (x1, y1), paper, -1)
    w, h = x1 - x0, y1 - y0
    if w < 4 or h < 4:
        return
    for _ in range(int(rng.integers(1, 4))):
        left, top = x0 + int(u(0.05, 0.6) * w), y0 + int(u(0.05, 0.6) * h)
        tint = hsv(u(0, 360), u(0, 0.9), u(0.1, 0.95))
        if rng.random() < 0.4:
            cv2.ellipse(texture, (left + w // 5, top + h // 6), (max(1, w // 5), max(1, h // 6)), 0, 0, 360, tint, -1)
        else:
            right, low = min(x1, left + int(u(0.15, 0.6) * w)), min(y1, top + int(u(0.08, 0.4) * h))
            cv2.rectangle(texture, (left, top), (right, low), tint, -1)
    ink = (20, 20, 24) if sum(paper) > 380 else (240, 240, 236)
    for row in np.linspace(y0 + 0.65 * h, y0 + 0.92 * h, 3).tolist():
        cv2.line(texture, (x0 + w // 8, int(row)), (x0 + int(w * u(0.4, 0.88)), int(row)), ink, max(1, h // 30))


def poster(rng: np.random.Generator, rows: int, columns: int) -> Image:
    """A poster of its own, RGB (rows, columns, 3): a picture with soft transitions, a frame, writing."""
    u = rng.uniform
    corners = np.array([hsv(u(0, 360), u(0, 0.7), u(0.2, 1.0)) for _ in range(4)], np.float32).reshape(2, 2, 3)
    image = np.asarray(cv2.resize(corners, (columns, rows), interpolation=cv2.INTER_LINEAR), np.uint8)
    for _ in range(int(rng.integers(1, 5))):
        center = (int(u(0, columns)), int(u(0.1, 0.9) * rows))
        axes = (max(1, int(u(0.05, 0.3) * columns)), max(1, int(u(0.05, 0.35) * rows)))
        cv2.ellipse(image, center, axes, float(u(0, 180)), 0, 360, hsv(u(0, 360), u(0, 0.8), u(0.1, 1.0)), -1)
    if rng.random() < 0.7:
        y0 = int(u(0, 0.75) * rows)
        draw_poster(rng, image, (0, y0, columns, min(rows, y0 + int(u(0.2, 0.5) * rows))))
    return image


def draw_billboard(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A billboard facing along the heading, on two legs or as a lit pillar (label 7; CamVid names them sign symbols, in Cityscapes nobody
    scores them)."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 1.5 or not camera.is_visible(position, 5.0):
        return
    is_pillar = rng.random() < 0.45
    u = rng.uniform
    width, height, base = (1.3, 1.9, 0.45) if is_pillar else (float(u(2.0, 6.0)), float(u(1.4, 3.2)), float(u(0.8, 2.8)))
    for x in (-width * 0.3, width * 0.3):
        stage.paint(box(x - 0.08, x + 0.08, 0.0, base + 0.2, -0.08, 0.08, (60, 62, 64)), POLE if base > 1.2 else SIGN)
    rim = float(u(40, 160))
    stage.paint(box(-width / 2 - 0.1, width / 2 + 0.1, base - 0.1, base + height + 0.1, -0.1, 0.1, (rim, rim, rim)), SIGN)
    _face(stage, rng, (-width / 2, width / 2, base, base + height), 0.11, SIGN)


def _face(stage: Stage, rng: np.random.Generator, edges: tuple[float, float, float, float], z: float, train_id: int) -> None:
    """A poster on the plane z of a stage, x0..x1 by y0..y1 metres, seen from the front only."""
    if stage.viewer[2] < z:
        return
    x0, x1, y0, y1 = edges
    # The poster's left is on the viewer's left, who looks against the heading.
    corners = [(x1, y1, z), (x0, y1, z), (x0, y0, z), (x1, y0, z)]
    pixels, depth = stage.pixels(corners)
    if float(depth.min()) < 0.6:
        return
    ppm = bounded(stage.camera.focal_px / float(depth.min()), 4, 40)
    image = poster(rng, max(4, int((y1 - y0) * ppm)), max(4, int((x1 - x0) * ppm)))
    glow = 0.25 + 0.6 * stage.light.night
    gain = glow + (1 - glow) * stage.factor((0.0, 0.0, 1.0))
    lit = np.asarray(cv2.convertScaleAbs(image, alpha=float(gain)), np.uint8)
    stage.canvas.textured_quad(pixels, lit, train_id, depth)


def draw_totem(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """The tall board of a shop or filling station, with names and prices (label 7)."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 1.5 or not camera.is_visible(position, 3.0):
        return
    u = rng.uniform
    half, height, low = float(u(0.4, 1.1)), float(u(2.2, 6.5)), 0.0 if rng.random() < 0.6 else float(u(0.8, 2.4))
    color: Rgb = hsv(u(0, 360), u(0.1, 0.9), u(0.3, 0.95))
    if low:
        for x in (-0.7 * half, 0.7 * half):
            upright(stage, 0.0, low, x, 0.06, grey(rng))
    stage.shadow(half, -0.15, 0.15, height)
    faces: list[Face] = box(-half, half, low, height, -0.16, 0.16, color, 0.1)
    inside: Point = (0.0, height / 2, 0.0)
    y = height - 0.15
    while y > low + 0.3:
        step = float(u(0.25, 0.9))
        tint: Rgb = hsv(u(0, 360), u(0, 0.9), u(0.15, 1.0)) if rng.random() < 0.5 else (236, 236, 232)
        for z in (0.165, -0.165):
            x0, x1, y0 = -0.9 * half, float(u(0.2, 0.9)) * half, max(low + 0.1, y - step * 0.8)
            faces.append((((x0, y0, z), (x1, y0, z), (x1, y, z), (x0, y, z)), tint, inside, 0.15))
        y -= step
    stage.paint(faces, SIGN)
    stage.roughen(rng, SIGN, 0.1)


def draw_banner(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A banner or flag (label 7) on its pole (label 5)."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 1.5 or not camera.is_visible(position, 3.0):
        return
    u = rng.uniform
    height, wide, long = float(u(3.5, 7.0)), float(u(0.6, 1.1)), float(u(1.4, 3.2))
    upright(stage, 0.0, height, 0.0, 0.045, grey(rng))
    side = 1.0 if rng.random() < 0.5 else -1.0
    sway, z = float(rng.normal(0, 0.15)), float(rng.normal(0, 0.1))
    quad: list[Point] = [
        (side * 0.08, height - 0.1, 0.0), (side * wide, height - 0.1 - abs(sway), z), (side * (wide + sway), height - long, z),
        (side * 0.08, height - long, 0.0),
    ]  # fmt: skip
    pixels, depth = stage.pixels(quad)
    if float(depth.min()) < 0.6:
        return
    image = poster(rng, 48, 20)
    image = np.asarray(cv2.convertScaleAbs(image, alpha=float(stage.light.factor((0.3, 0.3, -0.9)))), np.uint8)
    canvas.textured_quad(pixels, image, SIGN, depth)


def draw_advertising_column(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A round pillar full of posters (label 255, void: guides differ)."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 1.5 or not camera.is_visible(position, 3.0):
        return
    radius, height = float(rng.uniform(0.5, 0.75)), float(rng.uniform(2.6, 3.6))
    stage.shadow(radius, -radius, radius, height, is_round=True)
    upright(stage, 0.0, height, 0.0, radius, hsv(float(rng.uniform(0, 360)), 0.15, 0.6), train_id=VOID)
    toward = math.atan2(stage.viewer[0], stage.viewer[2])
    for step in (-0.8, 0.0, 0.8):
        turn = toward + step
        a, b = turn - 0.36, turn + 0.36
        y0, y1 = float(rng.uniform(0.5, 1.0)), height - float(rng.uniform(0.3, 0.8))
        corners = [(radius * math.sin(t), y, radius * math.cos(t)) for t, y in ((b, y1), (a, y1), (a, y0), (b, y0))]
        pixels, depth = stage.pixels(corners)
        if float(depth.min()) > 0.6:
            image = cv2.convertScaleAbs(poster(rng, 40, 24), alpha=float(stage.factor((math.sin(turn), 0.0, math.cos(turn)))))
            canvas.textured_quad(pixels, np.asarray(image, np.uint8))
    upright(stage, height, height + 0.25, 0.0, radius * 1.12, (70, 74, 72), train_id=VOID)


def draw_hanging_sign(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A shop's sign that sticks out of its wall over the pavement (label 2: it belongs to the building).  position: at the wall; the sign
    reaches along the heading, its faces look to the sides."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 1.5 or not camera.is_visible(position, 3.0):
        return
    u = rng.uniform
    out, y0 = float(u(0.5, 1.1)), float(u(2.5, 3.6))
    y1 = y0 + float(u(0.4, 1.0) if rng.random() < 0.7 else u(1.2, 3.0))
    color: Rgb = hsv(u(0, 360), u(0.1, 0.9), u(0.2, 0.95))
    faces = box(-0.06, 0.06, y0, y1, 0.1, out, color, 0.15)
    inside: Point = (0.0, (y0 + y1) / 2, out / 2)
    tint: Rgb = (240, 238, 230) if sum(color) < 380 else hsv(u(0, 360), u(0.2, 0.9), u(0.1, 0.5))
    for x in (-0.065, 0.065):
        low, high = y0 + 0.25 * (y1 - y0), y0 + 0.7 * (y1 - y0)
        faces.append((((x, low, 0.2), (x, low, out - 0.1), (x, high, out - 0.1), (x, high, 0.2)), tint, inside, 0.15))
    stage.paint(faces, BUILDING)
