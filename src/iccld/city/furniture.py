"""Street furniture: poles, street lights, bollards, bus stops, bins, guard rails; lights, signs and posters come from their files."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from iccld.city.camera import Camera, FloatArray
from iccld.city.canvas import Canvas
from iccld.city.light import Light
from iccld.city.posters import draw_billboard
from iccld.city.signals import FENCE, POLE, SIGN, VOID, draw_traffic_light, draw_traffic_sign, grey, upright
from iccld.city.solid import Face, Quad, Rgb, Stage, box, disc_z, patch, scaled
from iccld.city.two_wheelers import bar_outline

__all__ = [
    "draw_billboard",
    "draw_bin",
    "draw_bollard",
    "draw_bus_stop",
    "draw_guard_rail",
    "draw_pole",
    "draw_pylon",
    "draw_street_light",
    "draw_traffic_light",
    "draw_traffic_sign",
]
BUILDING = 2
_BOX_COLORS: tuple[Rgb, ...] = (
    (24, 26, 28),
    (60, 92, 66),
    (96, 100, 102),
    (44, 60, 50),
    (140, 142, 140),
    (160, 24, 26),
    (40, 60, 110),
    (70, 66, 60),
)


def draw_pole(
    canvas: Canvas,
    camera: Camera,
    rng: np.random.Generator,
    position: tuple[float, float],
    heading_rad: float,
    light: Light,
    *,
    height_m: float | None = None,
) -> None:
    """A bare pole (label 5): of wood or steel, 3 to 9 m high unless `height_m` says otherwise, sometimes with a cross-arm."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    is_wood = rng.random() < 0.3
    height = float(rng.uniform(6.5, 9.0) if is_wood else rng.uniform(2.8, 7.0))
    color: Rgb = scaled((104, 84, 64), float(rng.uniform(0.6, 1.2))) if is_wood else grey(rng)
    radius = float(rng.uniform(0.10, 0.15) if is_wood else rng.uniform(0.04, 0.09))
    height = height if height_m is None else height_m
    if stage.depth < 0.6 or not camera.is_visible(position, 2.0):
        return
    upright(stage, 0.0, height, 0.0, radius, color, radius * 0.8)
    if is_wood and rng.random() < 0.6:
        for y in (height - 0.3, height - 0.9)[: int(rng.integers(1, 3))]:
            _beam(stage, (-0.9, y, 0.0), (0.9, y, 0.0), 0.05, color, POLE)


def _beam(
    stage: Stage, a: tuple[float, float, float], b: tuple[float, float, float], radius: float, color: Rgb, train_id: int | None
) -> None:
    """A bar between two points in own axes."""
    pixels, depth = stage.pixels([a, b])
    near, far = depth.tolist()
    if min(near, far) < 0.6:
        return
    focal = stage.camera.focal_px
    width, width2 = max(2 * radius * focal / near, 0.5), max(2 * radius * focal / far, 0.5)
    lit = stage.lit(color, stage.light.factor((0.0, 0.4, -0.6)))
    stage.canvas.line(pixels[0], pixels[1], width, lit, train_id, (near + far) / 2, width2_px=width2)


def draw_street_light(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A street light (label 5, lamp included); its mast arm reaches along the heading, over the road."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    kind = int(rng.choice(4, p=(0.45, 0.25, 0.15, 0.15)))
    color = grey(rng) if rng.random() < 0.8 else (36.0, 56.0, 48.0)
    if stage.depth < 0.6 or not camera.is_visible(position, 4.0):
        return
    glow: Rgb = (255, 236, 190) if light.night > 0.3 else scaled((196, 198, 196), 0.9)
    if kind == 3:  # a lantern
        height = float(rng.uniform(3.2, 4.6))
        upright(stage, 0.0, height, 0.0, 0.07, color, 0.045)
        upright(stage, 0.0, 0.8, 0.0, 0.12, color)
        stage.paint(box(-0.17, 0.17, height, height + 0.42, -0.17, 0.17, glow, 0.9 * light.night), POLE)
        stage.paint(box(-0.22, 0.22, height + 0.42, height + 0.52, -0.22, 0.22, color), POLE)
        return
    height, reach = float(rng.uniform(6.5, 10.5)), float(rng.uniform(0.8, 2.4))
    upright(stage, 0.0, height, 0.0, float(rng.uniform(0.07, 0.11)), color, 0.05)
    upright(stage, 0.0, 1.2, 0.0, 0.12, color)
    sides = (1.0, -1.0) if kind == 2 else (1.0,)
    for side in sides:
        rise = float(rng.uniform(0.1, 0.9)) if kind != 1 else 0.0
        elbow = (0.0, height + 0.65 * rise, side * reach * 0.4)
        tip = (0.0, height + rise, side * reach)
        _beam(stage, (0.0, height - 0.05, 0.0), elbow, 0.05, color, POLE)
        _beam(stage, elbow, tip, 0.04, color, POLE)
        z0, z1 = sorted((side * reach * 0.9, side * (reach + 0.55)))
        faces = box(-0.14, 0.14, tip[1] - 0.06, tip[1] + 0.08, z0, z1, scaled(color, 0.9))
        faces.append(
            (
                ((-0.12, tip[1] - 0.07, z0), (0.12, tip[1] - 0.07, z0), (0.12, tip[1] - 0.07, z1), (-0.12, tip[1] - 0.07, z1)),
                glow,
                None,
                light.night,
            )
        )
        stage.paint(faces, POLE)


def draw_bollard(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A bollard (label 5): iron, wood, stone, plastic with reflecting bands."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 0.6 or not camera.is_visible(position, 2.0):
        return
    height, radius = float(rng.uniform(0.75, 1.15)), float(rng.uniform(0.06, 0.13))
    options: tuple[Rgb, ...] = ((22, 22, 24), (28, 30, 32), (112, 110, 104), (96, 76, 56), (150, 150, 150), (32, 54, 44))
    color = options[int(rng.integers(len(options)))]
    stage.shadow(radius, -radius, radius, height)
    upright(stage, 0.0, height, 0.0, radius, color, radius * float(rng.uniform(0.7, 1.05)))
    if rng.random() < 0.5:
        band: Rgb = ((226, 226, 222), (190, 28, 30), (220, 180, 40))[int(rng.integers(3))]
        upright(stage, height * 0.72, height * 0.86, 0.0, radius * 0.95, band)


def draw_bin(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A litter bin, a switch cabinet, a post box or a wheelie bin (label 255, void)."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 0.6 or not camera.is_visible(position, 2.0):
        return
    kind = int(rng.integers(4))
    color = scaled(_BOX_COLORS[int(rng.integers(len(_BOX_COLORS)))], float(rng.uniform(0.8, 1.2)))
    width, depth, height = ((0.5, 0.5, 1.0), (0.9, 0.4, 1.25), (0.5, 0.45, 1.55), (0.58, 0.62, 1.05))[kind]
    width, height = width * float(rng.uniform(0.85, 1.3)), height * float(rng.uniform(0.85, 1.15))
    stage.shadow(width / 2, -depth / 2, depth / 2, height)
    faces = box(-width / 2, width / 2, 0.0, height, -depth / 2, depth / 2, color)
    for z in (-depth / 2, depth / 2):
        quad: Quad = ((-width / 2, 0, z), (width / 2, 0, z), (width / 2, height, z), (-width / 2, height, z))
        inside = (0.0, height / 2, 0.0)
        if kind in (0, 2):
            faces.append((patch(quad, 0.15, 0.85, 0.72, 0.86), (12, 12, 13), inside, 0.0))
        if kind == 1:
            faces.append((patch(quad, 0.49, 0.51, 0.05, 0.95), scaled(color, 0.6), inside, 0.0))
        faces.append((patch(quad, 0.3, 0.7, 0.4, 0.55), scaled(color, 1.5), inside, 0.0))
    faces += box(-width / 2 - 0.03, width / 2 + 0.03, height - 0.08, height, -depth / 2 - 0.03, depth / 2 + 0.03, scaled(color, 0.8))
    stage.paint(faces, VOID)


def draw_bus_stop(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A bus stop: a shelter (label 2, building; its panes keep what is behind them) or a flag on a pole (5 and 7).

    Its open side looks along the heading.
    """
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 2.5 or not camera.is_visible(position, 5.0):
        return
    color = grey(rng)
    width, depth, height = float(rng.uniform(2.6, 4.2)), 1.3, 2.5
    flag_at = (width / 2 + 0.7, 0.0)
    if rng.random() < 0.3:
        _flag(stage, rng, (0.0, 0.0), color)
        return
    glass: Rgb = (150, 166, 172)
    back: Quad = (
        (-width / 2, 0.25, -depth / 2),
        (width / 2, 0.25, -depth / 2),
        (width / 2, height, -depth / 2),
        (-width / 2, height, -depth / 2),
    )
    posts = [(x, z) for z in (-depth / 2, depth / 2) for x in (-width / 2, 0.0, width / 2)]
    posts.sort(key=lambda p: -math.hypot(p[0] - stage.viewer[0], p[1] - stage.viewer[2]))
    for x, z in posts:
        _beam(stage, (x, 0.0, z), (x, height, z), 0.04, color, BUILDING)
    lit = stage.lit(glass, 0.9)
    canvas.fill3d(camera, stage.world(back), lit, BUILDING, alpha=0.45)
    for side in (-1, 1):
        pane = [
            (side * width / 2, 0.25, -depth / 2),
            (side * width / 2, 0.25, depth / 2),
            (side * width / 2, height, depth / 2),
            (side * width / 2, height, -depth / 2),
        ]
        canvas.fill3d(camera, stage.world(pane), lit, BUILDING, alpha=0.4)
        if side > 0 or rng.random() < 0.4:  # a poster at the end wall
            ad = (float(rng.uniform(30, 230)), float(rng.uniform(30, 230)), float(rng.uniform(30, 230)))
            end: Quad = (pane[0], pane[1], pane[2], pane[3])
            faces: list[Face] = [
                (patch(end, 0.08, 0.92, 0.06, 0.82), (40, 42, 44), None, 0.0),
                (patch(end, 0.14, 0.86, 0.10, 0.78), ad, None, 0.3),
            ]
            faces.append((patch(end, 0.2, 0.8, 0.45, 0.62), scaled(ad, 0.5), None, 0.3))
            stage.paint(faces, BUILDING)
    stage.paint(box(-width * 0.4, width * 0.4, 0.42, 0.5, -depth / 2 + 0.05, -depth / 2 + 0.4, (110, 90, 70)), BUILDING)
    stage.paint(
        box(-width / 2 - 0.1, width / 2 + 0.1, height, height + 0.12, -depth / 2 - 0.1, depth / 2 + 0.1, scaled(color, 0.8)), BUILDING
    )
    _flag(stage, rng, flag_at, color)


def _flag(stage: Stage, rng: np.random.Generator, at: tuple[float, float], color: Rgb) -> None:
    """A bus stop's pole with its flag (label 7)."""
    x, z = at
    moved = Stage(
        stage.canvas, stage.camera, (float(stage.world([(x, 0, z)])[0, 0]), float(stage.world([(x, 0, z)])[0, 2])), 0.0, stage.light
    )
    upright(moved, 0.0, 2.9, 0.0, 0.04, color)
    flag: Rgb = ((200, 30, 36), (226, 226, 222), (230, 190, 40), (40, 90, 170), (40, 130, 70))[int(rng.integers(5))]
    if rng.random() < 0.4:
        faces: list[Face] = [
            (disc_z(0.0, 2.75, 0.0, 0.24, 12), flag, None, 0.0),
            (disc_z(0.0, 2.75, 0.0, 0.14, 12), (226, 226, 222), None, 0.0),
        ]
    else:
        quad: Quad = ((-0.05, 2.35, 0.0), (0.42, 2.35, 0.0), (0.42, 2.95, 0.0), (-0.05, 2.95, 0.0))
        faces = [
            (quad, flag, None, 0.0),
            (patch(quad, 0.15, 0.85, 0.5, 0.85), scaled(flag, 0.5), None, 0.0),
            (patch(quad, 0.1, 0.9, 0.1, 0.3), (230, 230, 228), None, 0.0),
        ]
    moved.paint(faces, SIGN)


def draw_guard_rail(
    canvas: Canvas,
    camera: Camera,
    rng: np.random.Generator,
    position: tuple[float, float],
    heading_rad: float,
    light: Light,
    *,
    length_m: float | None = None,
) -> None:
    """A barrier (label 4) along the heading, centred: pedestrian railing, crash barrier or bars; 4 to 12 m unless `length_m` is given.

    Railings are labelled between their bars as well, as people outline them.
    """
    stage = Stage(canvas, camera, position, heading_rad, light)
    kind = int(rng.choice(3, p=(0.6, 0.25, 0.15)))
    length = float(rng.uniform(4.0, 12.0)) if length_m is None else length_m
    if stage.is_behind:
        return
    color = grey(rng) if rng.random() < 0.75 else ((28.0, 28.0, 30.0), (230.0, 230.0, 226.0), (40.0, 80.0, 60.0))[int(rng.integers(3))]
    z0 = -length / 2
    if kind == 1:
        stage.paint(box(-0.05, 0.05, 0.42, 0.76, z0, -z0, color), FENCE)
        for y in (0.52, 0.66):
            stage.paint(box(-0.06, 0.06, y - 0.02, y + 0.02, z0, -z0, scaled(color, 0.6)), FENCE)
        for i in range(int(length // 2) + 1):
            stage.paint(box(-0.05, 0.05, 0.0, 0.42, z0 + 2.0 * i - 0.06, z0 + 2.0 * i + 0.06, scaled(color, 0.8)), FENCE)
        return
    height = 1.05 if kind == 0 else 0.95
    sheet = [(0.0, 0.08, z0), (0.0, 0.08, -z0), (0.0, height, -z0), (0.0, height, z0)]
    canvas.fill3d(camera, stage.world(sheet), stage.lit(color, 0.6), FENCE, alpha=0.28 if kind == 0 else 0.08)
    step = 0.14 if kind == 0 else 1.2
    far_step = max(step, 4.0 / stage.scale, length / 60)
    bars: list[tuple[float, float, float]] = []
    for i in range(int(length / far_step) + 1):
        bars += [(0.0, 0.08, z0 + i * far_step), (0.0, height, z0 + i * far_step)]
    _bars(stage, bars, 0.012 if kind == 0 else 0.03, color)
    posts = [(0.0, y, z0 + i * 2.0) for i in range(int(length // 2) + 1) for y in (0.0, height + 0.03)]
    _bars(stage, posts, 0.035, scaled(color, 0.85))
    levels = (0.12, height) if kind == 0 else (0.35, 0.65, height)
    steps = np.linspace(z0, -z0, 5)
    _bars(stage, [(0.0, y, float(z)) for y in levels for a, b in pairwise(steps) for z in (a, b)], 0.025, color)


def _bars(stage: Stage, ends: list[tuple[float, float, float]], radius: float, color: Rgb) -> None:
    """Many bars of a fence: pairs of ends in own axes."""
    if not ends:
        return
    corners, depths = stage.pixels(ends)
    pixels, depth = corners.tolist(), depths.tolist()
    height, width = stage.canvas.size
    lit = stage.lit(color, stage.light.factor((0.5, 0.5, -0.5)))
    px = (2 * radius * stage.camera.focal_px / np.maximum(depths, 0.6)).tolist()
    shapes: list[FloatArray] = []
    fars: list[float] = []
    for i in range(0, len(ends), 2):
        a, b = pixels[i], pixels[i + 1]
        if (
            depth[i] < 0.6
            or depth[i + 1] < 0.6
            or max(a[0], b[0]) < 0
            or min(a[0], b[0]) > width
            or max(a[1], b[1]) < 0
            or min(a[1], b[1]) > height
        ):
            continue
        if px[i] > 1.3:
            shapes.append(bar_outline(corners[i : i + 2], px[i] - 0.8))
            fars.append(depth[i])
        else:
            stage.canvas.line(a, b, max(px[i], 0.4), lit, FENCE, depth[i])
    if shapes:
        stage.fill(shapes, [lit] * len(shapes), fars, [True] * len(shapes), FENCE)


def draw_pylon(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A lattice mast of a power line or of telephones (label 5): the sky between its bars stays sky."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 6.0 or not camera.is_visible(position, 6.0):
        return
    height, foot = float(rng.uniform(12, 30)), float(rng.uniform(0.7, 2.0))
    color, thick = grey(rng), float(rng.uniform(0.05, 0.1))
    steps = int(rng.integers(5, 9))
    half = [foot * (1 - 0.85 * i / steps) for i in range(steps + 1)]
    level = [height * i / steps for i in range(steps + 1)]
    for z in (-1.0, 1.0):
        for i in range(steps):
            a, b = half[i], half[i + 1]
            for x in (-1.0, 1.0):
                _beam(stage, (x * a, level[i], z * a), (x * b, level[i + 1], z * b), thick, color, POLE)
                _beam(stage, (x * a, level[i], z * a), (-x * b, level[i + 1], z * b), thick * 0.6, scaled(color, 0.85), POLE)
    for share in (0.72, 0.85, 0.97)[int(rng.integers(3)) :]:
        reach = float(rng.uniform(1.5, 4.0))
        _beam(stage, (-reach, share * height, 0.0), (reach, share * height, 0.0), thick, color, POLE)
