"""What else moves in streets: shopping trolleys, pushchairs, hand carts and animals (void, 255), and auto-rickshaws (car, 13)."""

from __future__ import annotations

import numpy as np

from iccld.city.camera import Camera
from iccld.city.canvas import VOID, Canvas
from iccld.city.figures import Body, garment
from iccld.city.light import Light
from iccld.city.solid import Decal, Face, Point, Rgb, Stage, box, disc_x, mixed, scaled
from iccld.city.texture import hsv

CAR = 13
RUBBER: Rgb = (24, 24, 26)
PUSHED = ("pushchair", "trolley")


def push(stage: Stage, rng: np.random.Generator, kind: str) -> None:
    """What a person at the stage's origin pushes ahead: a pushchair or a shopping trolley.  Void: the guides of Cityscapes and CamVid
    keep it apart from its person."""
    body = Body(stage, VOID)
    if kind == "pushchair":
        color = garment(rng, 0.6)
        body.trunk([((0, 0.42, 0.62), 0.20, 0.22), ((0, 0.75, 0.5), 0.22, 0.30), ((0, 0.95, 0.42), 0.18, 0.14)], color, 0.0)
        for x in (-0.24, 0.24):
            body.limb((x, 0.14, 0.4), (x, 0.14, 0.78), 0.10, 0.10, (30, 30, 32), 0.1)
            body.limb((x, 0.2, 0.5), (x * 0.8, 1.0, 0.2), 0.015, 0.015, (70, 70, 72), 0.1)
        body.paint()
        return
    _basket(body, rng, 0.45)
    body.paint()


def _basket(body: Body, rng: np.random.Generator, z: float) -> None:
    """A shopping trolley whose handle is at z: a wire basket on a frame with four wheels."""
    tone = float(rng.uniform(120, 195))
    wire: Rgb = (tone, tone, 1.03 * tone)
    handle: Rgb = hsv(float(rng.uniform(0, 360)), float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.2, 0.8)))
    for x in (-0.26, 0.26):
        for y, start, end in ((0.98, 0.0, 0.82), (0.78, 0.06, 0.8), (0.58, 0.1, 0.76), (0.2, 0.05, 0.75)):
            body.limb((x, y, z + start), (x, y, z + end), 0.013, 0.013, wire, 0.03)
        for step in (0.1, 0.28, 0.46, 0.64, 0.8):
            body.limb((x, 0.57, z + step), (x, 0.98, z + step), 0.009, 0.009, wire, 0.03)
        body.limb((x, 1.04, z), (x, 0.15, z + 0.12), 0.014, 0.014, wire, 0.03)
        for step in (0.1, 0.72):
            body.limb((x, 0.08, z + step), (x, 0.1, z + step), 0.06, 0.06, (40, 40, 42), 0.03)
    body.limb((-0.26, 1.04, z), (0.26, 1.04, z), 0.018, 0.018, handle, 0.05)
    for end in (0.1, 0.8):
        for y in (0.6, 0.78, 0.97):
            body.limb((-0.26, y, z + end), (0.26, y, z + end), 0.011, 0.011, wire, 0.0)


def draw_trolley(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A shopping trolley that somebody left (label 255)."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 1.0 or not camera.is_visible(position, 2.0):
        return
    stage.shadow(0.28, -0.4, 0.4, 0.9)
    body = Body(stage, VOID)
    _basket(body, rng, -0.42)
    body.paint()


def draw_cart(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A hand cart or stall on wheels (label 255): a board with goods, sometimes under a roof of cloth."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 2.0 or not camera.is_visible(position, 3.0):
        return
    u = rng.uniform
    half, length, wood = float(u(0.45, 0.65)), float(u(0.8, 1.2)), hsv(u(15, 40), u(0.2, 0.6), u(0.25, 0.65))
    stage.shadow(half, -length, length, 1.0)
    faces: list[Face] = []
    for side in (-1, 1):
        x = side * (half + 0.05)
        for z in (-0.55 * length, 0.55 * length):
            faces.append((disc_x(x, 0.32, z, 0.32, 14), RUBBER, None, 0.0))
            faces.append((Decal(disc_x(x, 0.32, z, 0.24, 12)), scaled(wood, 0.7), None, 0.0))
    faces += box(-half, half, 0.66, 0.84, -length, length, wood)
    for _ in range(int(u(3, 9))):  # heaps of goods
        x, z, size = float(u(-0.8, 0.8)) * half, float(u(-0.8, 0.8)) * length, float(u(0.1, 0.24))
        faces += box(x - size, x + size, 0.84, 0.84 + float(u(0.1, 0.45)), z - size, z + size, hsv(u(0, 360), u(0.1, 0.9), u(0.3, 0.9)))
    if rng.random() < 0.45:
        cloth = hsv(u(0, 360), u(0.1, 0.8), u(0.3, 0.95))
        for x in (-half, half):
            for z in (-length, length):
                faces += box(x - 0.02, x + 0.02, 0.84, 2.0, z - 0.02, z + 0.02, scaled(wood, 0.6))
        faces += box(-half - 0.2, half + 0.2, 2.0, 2.1, -length - 0.2, length + 0.2, cloth)
    stage.paint(faces, VOID)
    stage.roughen(rng, VOID, 0.15)


_FUR: tuple[Rgb, ...] = ((196, 186, 168), (120, 88, 60), (52, 44, 40), (168, 132, 92), (226, 220, 208))


def draw_animal(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """A cow or a dog (label 255)."""
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 1.5 or not camera.is_visible(position, 2.0):
        return
    is_cow = rng.random() < 0.5
    s = float(rng.uniform(0.9, 1.1)) * (1.0 if is_cow else 0.42)
    color = scaled(_FUR[int(rng.integers(len(_FUR)))], float(rng.uniform(0.8, 1.1)))
    stage.shadow(0.3 * s, -0.8 * s, 0.8 * s, 1.2 * s, is_round=True)
    body = Body(stage, VOID)
    for side in (-1, 1):
        for z in (-0.62, 0.55):
            step = float(rng.normal(0, 0.12))
            body.limb(
                (side * 0.2 * s, 0.75 * s, z * s), (side * 0.19 * s, 0.04 * s, (z + step) * s), 0.1 * s, 0.055 * s, scaled(color, 0.85)
            )
    body.trunk(
        [
            ((0.0, 0.62 * s, 0.0), 0.24 * s, 0.72 * s),
            ((0.0, 0.95 * s, -0.02), 0.31 * s, 0.8 * s),
            ((0.0, 1.25 * s, 0.0), 0.2 * s, 0.74 * s),
        ],
        color,
    )
    body.limb((0.0, 1.1 * s, 0.68 * s), (0.0, 1.32 * s, 0.98 * s), 0.2 * s, 0.14 * s, color, 0.02)
    body.limb((0.0, 1.35 * s, 0.98 * s), (0.0, 1.15 * s, 1.3 * s), 0.14 * s, 0.09 * s, scaled(color, 0.92), 0.04)
    body.limb((0.0, 1.2 * s, -0.78 * s), (0.0, 0.6 * s, -0.9 * s), 0.035 * s, 0.03 * s, scaled(color, 0.8), 0.0)
    for side in (-1, 1):
        tip = (side * 0.26 * s, 1.52 * s, 0.98 * s)
        body.limb((side * 0.1 * s, 1.42 * s, 0.96 * s), tip, 0.04 * s, 0.02 * s, scaled(color, 0.6), 0.05)
    body.paint()
    stage.roughen(rng, VOID, 0.2)


def draw_rickshaw(stage: Stage, rng: np.random.Generator) -> None:
    """An auto-rickshaw with three wheels (label 13): a tub, a roof of cloth, open sides."""
    u = rng.uniform
    paint: Rgb = ((226.0, 186.0, 40.0), (40.0, 120.0, 70.0), (30.0, 60.0, 130.0), (28.0, 30.0, 32.0))[
        int(rng.choice(4, p=(0.4, 0.3, 0.15, 0.15)))
    ]
    cloth: Rgb = scaled(((30.0, 30.0, 32.0), (220.0, 184.0, 50.0), (40.0, 90.0, 60.0))[int(rng.integers(3))], float(u(0.8, 1.1)))
    half, height = float(u(0.6, 0.68)), float(u(1.65, 1.8))
    stage.shadow(half, -1.3, 1.25, height)
    dark: Rgb = (26, 26, 28)
    inside: Point = (0.0, 0.9, -0.2)
    faces: list[Face] = box(-half * 0.7, half * 0.7, 0.12, 0.4, -1.1, 0.9, (18, 18, 19))
    for side in (-1, 1):
        x = side * (half - 0.05)
        faces.append((disc_x(x, 0.23, -0.85, 0.23, 14), RUBBER, None, 0.0))
        faces.append((Decal(disc_x(x + side * 0.01, 0.23, -0.85, 0.12, 10)), (150, 150, 152), None, 0.0))
    faces.append((disc_x(0.0, 0.23, 1.05, 0.23, 14), RUBBER, None, 0.0))
    faces.append((((-0.07, 0.0, 1.28), (0.07, 0.0, 1.28), (0.07, 0.46, 1.28), (-0.07, 0.46, 1.28)), RUBBER, inside, 0.0))
    seats = box(-half * 0.9, half * 0.9, 0.45, 1.15, -1.0, -0.5, dark) + box(-0.3, 0.3, 0.45, 0.95, 0.0, 0.3, dark)
    tub = box(-half, half, 0.28, 0.74, -1.25, 0.35, paint)
    nose: list[Face] = []
    for side in (-1, 1):  # the tub narrows to the front wheel
        a, b = (side * half, 0.28, 0.35), (side * 0.22, 0.34, 1.22)
        nose.append(((a, b, (b[0], 0.95, 1.15), (a[0], 1.0, 0.6)), scaled(paint, 0.97), inside, 0.0))
    front = ((-0.22, 0.34, 1.22), (0.22, 0.34, 1.22), (0.22, 0.95, 1.15), (-0.22, 0.95, 1.15))
    nose.append((front, paint, inside, 0.0))
    nose.append((((-half, 1.0, 0.6), (half, 1.0, 0.6), (0.22, 0.95, 1.15), (-0.22, 0.95, 1.15)), scaled(paint, 1.05), inside, 0.0))
    nose.append((disc_x(0.0, 0.72, 1.24, 0.01, 6), paint, inside, 0.0))
    lamp: Rgb = (236, 236, 228)
    nose.append(
        (Decal(((-0.1, 0.62, 1.24), (0.1, 0.62, 1.24), (0.1, 0.8, 1.22), (-0.1, 0.8, 1.22))), lamp, inside, 0.3 + 0.6 * stage.light.night)
    )
    glass = mixed((40, 46, 52), (190, 200, 210), 0.25)
    screen: list[Face] = [
        (((-half, 1.0, 0.62), (half, 1.0, 0.62), (half * 0.9, height - 0.12, 0.45), (-half * 0.9, height - 0.12, 0.45)), glass, None, 0.0)
    ]
    back: list[Face] = [
        (
            ((-half, 0.74, -1.25), (half, 0.74, -1.25), (half * 0.92, height - 0.1, -1.1), (-half * 0.92, height - 0.1, -1.1)),
            cloth,
            None,
            0.0,
        )
    ]
    back.append((Decal(((-0.25, 1.25, -1.2), (0.25, 1.25, -1.2), (0.25, 1.45, -1.17), (-0.25, 1.45, -1.17))), dark, None, 0.0))
    for x in (-half * 0.85, half * 0.7):
        back.append(
            (Decal(((x, 0.5, -1.26), (x + 0.1, 0.5, -1.26), (x + 0.1, 0.66, -1.26), (x, 0.66, -1.26))), (190, 24, 22), (0, 0.5, 0), 0.3)
        )
    roof = box(-half * 0.95, half * 0.95, height - 0.16, height, -1.15, 0.55, cloth)
    posts = [
        face for x in (-half * 0.95, half * 0.9) for z in (-0.45, 0.42) for face in box(x, x + 0.05, 0.74, height - 0.1, z, z + 0.06, cloth)
    ]
    ahead = nose + screen if stage.viewer[2] > 0 else screen + back
    behind = back if stage.viewer[2] > 0 else nose
    stage.paint([*faces, *behind, *seats, *tub, *posts, *ahead, *roof], CAR)
    stage.roughen(rng, CAR, 0.14)
