"""Traffic lights and traffic signs on their poles."""

from __future__ import annotations

import math

import numpy as np

from iccld.city.camera import Camera
from iccld.city.canvas import Canvas
from iccld.city.light import Light
from iccld.city.solid import Decal, Face, Point, Quad, Rgb, Stage, box, disc_z, patch, scaled

FENCE, POLE, TRAFFIC_LIGHT, SIGN, VOID = 4, 5, 6, 7, 255
_RED: Rgb = (255, 44, 34)
_AMBER: Rgb = (255, 176, 30)
_GREEN: Rgb = (60, 235, 150)
_BLUE: Rgb = (26, 70, 150)
_SIGN_RED: Rgb = (190, 26, 32)
_WHITE: Rgb = (228, 228, 224)
_YELLOW: Rgb = (232, 186, 34)


def grey(rng: np.random.Generator) -> Rgb:
    """The colour of galvanised or painted steel."""
    if rng.random() < 0.3:
        return scaled((44, 46, 48), float(rng.uniform(0.5, 1.4)))
    value = float(rng.uniform(84, 178))
    return (value, value, value * 1.02)


def upright(
    stage: Stage, y0: float, y1: float, x: float, radius: float, color: Rgb, top_radius: float | None = None, train_id: int | None = POLE
) -> None:
    """A vertical round bar from height y0 to y1, metres, lit on the sun's side.  Nothing nearer than 0.6 m is drawn."""
    pixels, depth = stage.pixels([(x, y0, 0.0), (x, y1, 0.0)])
    foot, top = depth.tolist()
    if min(foot, top) < 0.6:
        return
    far = (foot + top) / 2
    focal = stage.camera.focal_px
    width = max(2 * radius * focal / foot, 0.45)
    width2 = max(2 * (radius if top_radius is None else top_radius) * focal / top, 0.45)
    light = stage.light
    dim = stage.lit(color, light.ambient * 0.85 + light.intensity * 0.15)
    if width < 2.5:
        stage.canvas.line(
            pixels[0], pixels[1], width, stage.lit(color, light.ambient + 0.5 * light.intensity), train_id, far, width2_px=width2
        )
        return
    stage.canvas.line(pixels[0], pixels[1], width, dim, train_id, far, width2_px=width2)
    side = 1.0 if float(stage.camera.rotation[0] @ np.array(light.direction)) >= 0 else -1.0
    bright = stage.lit(color, light.ambient + 0.8 * light.intensity)
    shift = np.array([[side * width * 0.2, 0.0], [side * width2 * 0.2, 0.0]])
    moved = pixels + shift
    stage.canvas.line(moved[0], moved[1], width * 0.35, bright, width2_px=width2 * 0.35)


def _head(x: float, y: float, z: float, state: int, rng: np.random.Generator, is_small: bool, has_board: bool) -> list[Face]:
    """A signal head whose lamps look along -z turned to the front (own +z); y is its lower edge."""
    width, height, num = (0.24, 0.55, 2) if is_small else (0.30, 0.95, 3)
    case: Rgb = (22, 24, 24) if rng.random() < 0.9 else (200, 170, 40)
    faces: list[Face] = []
    if has_board:
        w, h0, h1 = width * 0.95, y - 0.12, y + height + 0.12
        if rng.random() < 0.4:  # a white rim
            faces += box(x - w - 0.03, x + w + 0.03, h0 - 0.03, h1 + 0.03, z - 0.02, z - 0.01, (226, 226, 222))
        faces += box(x - w, x + w, h0, h1, z - 0.02, z, (14, 15, 16))
    faces += box(x - width / 2, x + width / 2, y, y + height, z, z + 0.18, case)
    colors = (_GREEN, _RED) if is_small else (_GREEN, _AMBER, _RED)
    inside: Point = (x, y + height / 2, z)
    for i in range(num):
        is_on = (
            (state == 0 and i == 0)
            or (state == 1 and i == num - 1)
            or (state == 2 and num == 3 and i == 1)
            or (state == 3 and i >= 1 and num == 3)
        )
        center = y + height * (i + 0.5) / num
        radius = width * 0.36
        color = colors[i] if is_on else scaled(colors[i], 0.22)
        faces.append((disc_z(x, center, z + 0.185, radius, 10), color, inside, 0.95 if is_on else 0.0))
        if is_on:
            core = (0.5 * color[0] + 127, 0.5 * color[1] + 127, 0.5 * color[2] + 127)
            faces.append((Decal(disc_z(x, center, z + 0.186, radius * 0.5, 8)), core, inside, 1.0))
        y0, y1 = center + radius * 0.9, center + radius
        hood = [(x - radius, y1, z + 0.18), (x + radius, y1, z + 0.18), (x + radius, y0, z + 0.36), (x - radius, y0, z + 0.36)]
        faces.append((hood, (12, 12, 13), None, 0.0))
    return faces


def draw_traffic_light(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A traffic light: pole (label 5) and heads (label 6).  Its lamps look along the heading; some hang from an arm over the road
    (towards the camera's line), some have pedestrian heads at the side or further heads behind."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 1.0 or not camera.is_visible(position, 7.0):
        return
    color = grey(rng)
    state = int(rng.choice(4, p=(0.42, 0.44, 0.07, 0.07)))
    has_arm = rng.random() < 0.2
    height = float(rng.uniform(2.9, 3.9)) if not has_arm else float(rng.uniform(5.4, 6.4))
    has_board = rng.random() < 0.45
    stage.shadow(0.15, -0.15, 0.15, height)
    upright(stage, 0.0, height, 0.0, 0.06 if not has_arm else 0.1, color)
    faces = _head(0.0, height - 1.0 if not has_arm else 2.3, 0.06, state, rng, False, has_board)
    if has_arm:
        reach = float(rng.uniform(2.5, 5.5)) * (1 if (rng.random() < 0.9) == (stage.viewer[0] > 0) else -1)
        x0, x1 = sorted((0.0, reach))
        stage.paint(box(x0, x1, height - 0.12, height, -0.06, 0.06, color), POLE)
        faces += _head(reach, height - 0.75, 0.08, state, rng, False, True)
    if rng.random() < 0.4:  # a second head facing the other way, beside the pole
        stage.paint(
            [_turned(face) for face in _head(0.0, height - 1.0 if not has_arm else 2.3, 0.06, 1 - min(state, 1), rng, False, False)],
            TRAFFIC_LIGHT,
        )
    if rng.random() < 0.45:  # a pedestrian's head, seen from the side
        side = 1 if rng.random() < 0.5 else -1
        small = _head(0.0, 2.2, 0.06, 1 - min(state, 1), rng, True, False)
        stage.paint([_sideways(face, side) for face in small], TRAFFIC_LIGHT)
    if rng.random() < 0.3:
        stage.paint(box(-0.12, 0.12, 0.95, 1.2, 0.05, 0.18, _YELLOW), POLE)
    stage.paint(faces, TRAFFIC_LIGHT)


def _turned(face: Face) -> Face:
    points, color, inside, glow = face
    return [(-x, y, -z) for x, y, z in points], color, None if inside is None else (-inside[0], inside[1], -inside[2]), glow


def _sideways(face: Face, side: int) -> Face:
    points, color, inside, glow = face
    return [(side * z, y, x) for x, y, z in points], color, None if inside is None else (side * inside[2], inside[1], inside[0]), glow


def draw_traffic_sign(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A traffic sign: pole (label 5) and one to three plates (label 7).  The plates look along the heading; their backs are grey."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 1.0 or not camera.is_visible(position, 3.0):
        return
    color = grey(rng)
    kind = int(rng.choice(9, p=(0.25, 0.17, 0.15, 0.14, 0.09, 0.06, 0.04, 0.06, 0.04)))
    if kind in (5, 6):
        _direction_board(stage, rng, color)
        return
    if kind == 7:
        _keep_left_post(stage, rng)
        return
    size = float(rng.uniform(0.26, 0.40))
    center = float(rng.uniform(2.1, 2.9))
    upright(stage, 0.0, center + size, 0.0, 0.038, color)
    num = int(rng.choice(3, p=(0.65, 0.27, 0.08))) + 1
    for i in range(num):
        y = center - i * (2 * size + 0.06)
        if y - size < 1.0:
            break
        faces = _plate(kind if i == 0 else int(rng.integers(0, 5)), y, size if i == 0 else size * 0.85, rng)
        stage.paint(faces, SIGN)
    if rng.random() < 0.3:
        y = center - num * (2 * size + 0.06) + size * 0.5
        if y > 1.0:
            stage.paint(_layers([_rectangle(y, size * 1.0, size * 0.35)], [_WHITE]), SIGN)


def _rectangle(y: float, half_width: float, half_height: float, x: float = 0.0) -> list[Point]:
    return [
        (x - half_width, y - half_height, 0),
        (x + half_width, y - half_height, 0),
        (x + half_width, y + half_height, 0),
        (x - half_width, y + half_height, 0),
    ]


def _polygon(y: float, radius: float, corners: int, turn: float) -> list[Point]:
    return [
        (radius * math.sin(turn + 2 * math.pi * i / corners), y + radius * math.cos(turn + 2 * math.pi * i / corners), 0)
        for i in range(corners)
    ]


def _layers(outlines: list[list[Point]], colors: list[Rgb]) -> list[Face]:
    """Coloured layers on the front (own +z) of a plate, and its grey back."""
    inside: Point = (0.0, outlines[0][0][1], 0.0)
    faces: list[Face] = [([(x, y, 0.05) for x, y, _ in outlines[0]], (128, 130, 132), (0.0, inside[1], 0.5), 0.0)]
    for i, (outline, color) in enumerate(zip(outlines, colors, strict=True)):
        faces.append(([(x, y, 0.051 + 0.001 * i) for x, y, _ in outline], color, inside, 0.12))
    return faces


def _plate(kind: int, y: float, s: float, rng: np.random.Generator) -> list[Face]:
    """One plate by kind: round with a red rim, triangle, blue disc, rectangle, no entry or stop, give way, diamond."""
    ring = disc_z(0, y, 0, s, 16)
    ink: Rgb = (24, 24, 26)
    style = int(rng.integers(4))
    marks = [
        [_rectangle(y, s * 0.17, s * 0.32, -s * 0.25), _rectangle(y, s * 0.17, s * 0.32, s * 0.25)],  # a number
        [_rectangle(y - s * 0.1, s * 0.5, s * 0.16), _rectangle(y + s * 0.12, s * 0.26, s * 0.12)],  # a vehicle
        [_polygon(y + s * 0.1, s * 0.42, 3, 0.0), _rectangle(y - s * 0.3, s * 0.1, s * 0.25)],  # an arrow
        [],
    ][style]
    if kind == 0:
        fill = _WHITE if rng.random() < 0.8 else _BLUE
        bar = [(-s * 0.62, y + s * 0.5, 0.0), (-s * 0.5, y + s * 0.62, 0.0), (s * 0.62, y - s * 0.5, 0.0), (s * 0.5, y - s * 0.62, 0.0)]
        if fill is _BLUE:  # no waiting
            return _layers([ring, disc_z(0, y, 0, s * 0.74, 16), bar], [_SIGN_RED, fill, _SIGN_RED])
        return _layers([ring, disc_z(0, y, 0, s * 0.74, 16), *marks], [_SIGN_RED, fill, *[ink] * len(marks)])
    if kind == 1:
        turn = 0.0 if rng.random() < 0.75 else math.pi
        inner = _polygon(y, s * 0.72, 3, turn)
        return _layers(
            [_polygon(y, s * 1.15, 3, turn), inner, _rectangle(y - 0.05 * s, s * 0.10, s * 0.3)],
            [_SIGN_RED, _WHITE, ink if turn == 0.0 else _WHITE],
        )
    if kind == 2:
        return _layers([ring, _polygon(y, s * 0.62, 3, float(rng.integers(4)) * math.pi / 2)], [_BLUE, _WHITE])
    if kind == 3:
        wide = float(rng.uniform(0.7, 1.15)), float(rng.uniform(0.7, 1.3))
        colors: tuple[tuple[Rgb, Rgb], ...] = ((_BLUE, _WHITE), (_WHITE, ink), (_YELLOW, ink), (_BLUE, _WHITE), ((34, 110, 70), _WHITE))
        back, fore = colors[int(rng.integers(len(colors)))]
        marks = [_rectangle(y + s * 0.25, s * wide[0] * 0.6, s * 0.14), _rectangle(y - s * 0.25, s * wide[0] * 0.45, s * 0.12)]
        return _layers([_rectangle(y, s * wide[0], s * wide[1]), *marks], [back, fore, fore])
    if kind == 4:
        corners = 8 if rng.random() < 0.4 else 16
        return _layers([_polygon(y, s, corners, math.pi / corners), _rectangle(y, s * 0.72, s * 0.2)], [_SIGN_RED, _WHITE])
    return _layers([_polygon(y, s, 4, 0.0), _polygon(y, s * 0.72, 4, 0.0)], [_WHITE, _YELLOW])


def _direction_board(stage: Stage, rng: np.random.Generator, color: Rgb) -> None:
    """A board with destinations on two legs, or three finger posts."""
    width, height, base = float(rng.uniform(0.7, 1.7)), float(rng.uniform(0.4, 1.1)), float(rng.uniform(1.9, 2.6))
    # Nobody puts a big board where it is read from near by.
    width, height = min(width, 0.08 * stage.depth), min(height, 0.05 * stage.depth)
    for x in (-width * 0.6, width * 0.6):
        upright(stage, 0.0, base + 2 * height, x, 0.045, color)
    schemes: tuple[tuple[Rgb, Rgb], ...] = (
        (_WHITE, (24, 24, 26)),
        ((28, 100, 70), _WHITE),
        (_BLUE, _WHITE),
        (_YELLOW, (24, 24, 26)),
        ((100, 70, 50), _WHITE),
    )
    back, fore = schemes[int(rng.integers(len(schemes)))]
    y = base + height
    outlines = [_rectangle(y, width, height), _rectangle(y, width * 0.96, height * 0.94)]
    colors = [fore, back]
    rows = max(1, round(height / 0.28))
    for i in range(rows):
        line_y = y + height * (0.8 - 1.6 * (i + 0.5) / rows)
        length = float(rng.uniform(0.3, 0.6)) * width
        outlines.append(_rectangle(line_y, length, height * 0.3 / rows, -width * 0.9 + length))
        colors.append(fore)
    stage.paint(_layers(outlines, colors), SIGN)


def _keep_left_post(stage: Stage, rng: np.random.Generator) -> None:
    """The bollard of a traffic island: a white or yellow body (label 7, it is a lit sign) with a blue disc."""
    height = float(rng.uniform(0.95, 1.2))
    body: Rgb = _WHITE if rng.random() < 0.5 else _YELLOW
    stage.shadow(0.2, -0.15, 0.15, height)
    faces = box(-0.2, 0.2, 0.0, height, -0.12, 0.12, body, 0.1)
    quad: Quad = ((-0.2, 0, 0.12), (0.2, 0, 0.12), (0.2, height, 0.12), (-0.2, height, 0.12))
    inside: Point = (0.0, height / 2, 0.0)
    faces.append((patch(quad, 0.1, 0.9, 0.1, 0.5), _YELLOW if body is _WHITE else _WHITE, inside, 0.1))
    faces.append((disc_z(0.0, height * 0.74, 0.125, 0.17, 14), _BLUE, inside, 0.1))
    faces.append((disc_z(0.03, height * 0.72, 0.126, 0.07, 6), _WHITE, inside, 0.1))
    stage.paint(faces, SIGN)
