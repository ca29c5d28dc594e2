"""Passenger cars as solids: one parametric body for hatchback, saloon, estate, SUV, van, pick-up and small cars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iccld.city.solid import Decal, Face, Point, Quad, Rgb, box, disc_x, mixed, patch, scaled


@dataclass(frozen=True)
class Shape:
    """Metres.  cowl: windscreen base behind the nose.  screen: run of the windscreen.  rear_roof: roof end before the tail.  rear_base:
    rear glass base before the tail.  belt, nose, tail: heights of shoulder line, bonnet edge, boot edge.  clear: ground clearance."""

    length: float
    width: float
    height: float
    cowl: float
    screen: float
    rear_roof: float
    rear_base: float
    belt: float = 0.93
    nose: float = 0.68
    tail: float = 0.92
    clear: float = 0.24
    wheel: float = 0.30
    roof_inset: float = 0.78
    windows: int = 2
    has_bed: bool = False


SHAPES: dict[str, tuple[float, Shape]] = {
    "hatchback": (0.30, Shape(3.85, 1.66, 1.44, 0.95, 0.75, 0.50, 0.10)),
    "small": (0.10, Shape(3.45, 1.60, 1.50, 0.72, 0.70, 0.42, 0.08, belt=0.92, nose=0.70)),
    "saloon": (0.18, Shape(4.50, 1.74, 1.42, 1.15, 0.80, 1.45, 0.78, tail=0.96)),
    "coupe": (0.05, Shape(4.20, 1.74, 1.32, 1.25, 0.75, 1.50, 0.62, belt=0.86, nose=0.60, tail=0.88, clear=0.19, windows=1)),
    "estate": (0.11, Shape(4.55, 1.74, 1.47, 1.10, 0.80, 0.40, 0.08, windows=3)),
    "mpv": (0.08, Shape(4.35, 1.80, 1.66, 0.80, 0.95, 0.35, 0.08, belt=1.00, nose=0.76, tail=0.98, windows=3)),
    "suv": (0.10, Shape(4.50, 1.86, 1.74, 1.10, 0.65, 0.35, 0.10, belt=1.10, nose=0.88, tail=1.08, clear=0.34, wheel=0.36, windows=3)),
    "van": (
        0.07,
        Shape(4.90, 1.92, 2.05, 0.55, 0.80, 0.12, 0.03, belt=1.15, nose=0.85, tail=1.12, clear=0.28, wheel=0.33, roof_inset=0.88),
    ),
    "pickup": (
        0.03,
        Shape(5.00, 1.80, 1.72, 1.20, 0.65, 2.00, 1.85, belt=1.02, nose=0.92, tail=1.00, clear=0.34, wheel=0.36, has_bed=True),
    ),
}
GLASS: Rgb = (34, 38, 44)
RUBBER: Rgb = (24, 24, 26)
PLASTIC: Rgb = (38, 38, 40)


def vary(shape: Shape, rng: np.random.Generator) -> Shape:
    """The shape of one car: each measure a few percent off."""
    s = (1 + 0.04 * rng.standard_normal(5).clip(-2, 2)).tolist()  # plain floats: with numpy's, a car takes a third longer
    return Shape(
        shape.length * s[0], shape.width * (0.5 + 0.5 * s[1]), shape.height * (0.3 + 0.7 * s[2]), shape.cowl * s[3], shape.screen * s[4],
        shape.rear_roof * s[3], shape.rear_base, shape.belt * (0.5 + 0.5 * s[2]), shape.nose * (0.5 + 0.5 * s[4]), shape.tail, shape.clear,
        shape.wheel * (0.5 + 0.5 * s[1]), shape.roof_inset, shape.windows, shape.has_bed,
    )  # fmt: skip


@dataclass(frozen=True)
class Trim:
    """Colours and choices of one car.  lamps: 0 off .. 1 head and tail lights shine.  brakes: whether the brake lights shine."""

    paint: Rgb
    bumper: Rgb
    glass: Rgb
    sky: Rgb
    rim: Rgb
    plate_rear: Rgb
    strip: bool
    lamps: float
    brakes: bool
    blind_rear: bool = False
    taxi_sign: bool = False
    roof_rails: bool = False
    tall_lights: bool = False


def _side_points(shape: Shape) -> list[tuple[float, float, float]]:
    """Stations nose -> tail of one side: share of half width, z, shoulder height."""
    front, rear = shape.length / 2, -shape.length / 2
    cowl_z = front - shape.cowl
    bonnet = 0.45 * shape.nose + 0.55 * shape.belt
    return [
        (0.68, front, shape.nose - 0.06),
        (0.93, front - 0.25, shape.nose + 0.03),
        (1.0, front - 0.25 - 0.4 * (shape.cowl - 0.25), bonnet),
        (1.0, cowl_z, shape.belt),
        (1.0, rear + max(shape.rear_base, 0.45), shape.belt + 0.03),
        (0.95, rear + 0.22, (shape.belt + shape.tail) / 2 + 0.02),
        (0.74, rear, shape.tail),
    ]


def car_faces(shape: Shape, trim: Trim, viewer: Point, is_detailed: bool) -> list[Face]:
    """All faces of a car in painting order.  viewer: the camera in the car's own axes; only the sides it can see are built."""
    half = shape.width / 2
    stations = _side_points(shape)
    levels = ((shape.clear, 0.93, 0.06), (shape.clear + 0.30 + 0.3 * (shape.belt - 0.93), 1.0, 0.0), (0.0, 0.95, 0.05))
    rings: list[list[Point]] = []
    for level, (y, spread, inset) in enumerate(levels):
        ring: list[Point] = []
        for i, (share, z, shoulder) in enumerate(stations):
            shift = -inset if i == 0 else (inset if i == 6 else 0.0)
            ring.append((half * share * spread, shoulder if level == 2 else y, z + shift))
        rings.append(ring)
    inside = (0.0, 0.5, 0.0)
    faces = _underbody(shape, half, is_detailed)
    mirror = _mirrored
    for side in (-1, 1):
        if viewer[0] * side < half * 0.7:
            continue
        for i in range(6):
            for low, high, color in ((0, 1, trim.bumper if i in (0, 5) else trim.paint), (1, 2, trim.paint)):
                quad = (rings[low][i], rings[low][i + 1], rings[high][i + 1], rings[high][i])
                faces.append((quad if side > 0 else mirror(quad), color, inside, 0.0))
        faces += _side_details(shape, trim, rings, side, is_detailed)
    for end in (0, 6):
        if viewer[2] * (1 if end == 0 else -1) > 0:
            corner = 1 if end == 0 else 5
            for side in (-1, 1):  # the corners turn towards the front and the rear as well
                if viewer[0] * side < half * 0.7:
                    for low, high, color in ((0, 1, trim.bumper), (1, 2, trim.paint)):
                        quad = (rings[low][end], rings[low][corner], rings[high][corner], rings[high][end])
                        faces.append((quad if side > 0 else mirror(quad), color, inside, 0.0))
            faces += _end_faces(trim, rings, end, corner, inside, is_detailed)
    top = rings[2]
    for i in (*range(3), *range(4, 6)):
        quad = (top[i], top[i + 1], _flip(top[i + 1]), _flip(top[i]))
        faces.append((quad, scaled(trim.paint, 1.08 if not (shape.has_bed and i > 3) else 0.3), inside, 0.0))
    if shape.has_bed:
        z0, z1 = -shape.length / 2 + 0.2, -shape.length / 2 + shape.rear_base
        faces.append((((half * 0.85, shape.belt, z0), (half * 0.85, shape.belt, z1), (-half * 0.85, shape.belt, z1),
                       (-half * 0.85, shape.belt, z0)), (30, 30, 32), inside, 0.0))  # fmt: skip
    return faces + _cabin(shape, trim, viewer, half, is_detailed)


def _flip(p: Point) -> Point:
    return (-p[0], p[1], p[2])


def _mirrored(quad: Quad) -> Quad:
    return (_flip(quad[0]), _flip(quad[1]), _flip(quad[2]), _flip(quad[3]))


def _underbody(shape: Shape, half: float, is_detailed: bool) -> list[Face]:
    """The dark space between the wheels, and the treads of the tyres as seen from front and rear."""
    front, rear, r = shape.length / 2 - 0.75, -shape.length / 2 + 0.72, shape.wheel
    faces = box(-half * 0.9, half * 0.9, shape.clear - 0.06, shape.clear + 0.12, rear - 0.4, front + 0.4, (14, 14, 15))
    for z in (rear, front):
        for side in (-1, 1) if is_detailed else ():
            a, b = sorted((side * half * 0.68, side * half * 0.95))
            faces += box(a, b, 0.0, 1.5 * r, z - 0.8 * r, z + 0.8 * r, RUBBER)[:4]
    return faces


def _side_details(shape: Shape, trim: Trim, rings: list[list[Point]], side: int, is_detailed: bool) -> list[Face]:
    """Wheels in their arches, sill, door lines, rubbing strip and the shoulder's highlight on one side."""
    half, r = shape.width / 2, shape.wheel
    inside = (0.0, 0.5, 0.0)
    x = side * half
    faces: list[Face] = []
    door = (rings[0][2], rings[0][4], rings[2][4], rings[2][2])
    panel: Quad = door if side > 0 else _mirrored(door)
    faces.append((patch(panel, 0, 1, 0, 0.12), scaled(trim.bumper, 0.45), inside, 0.0))
    faces.append((patch(panel, 0, 1, 0.12, 0.36), scaled(trim.paint, 0.88), inside, 0.0))
    faces.append((patch(panel, 0, 1, 0.90, 0.97), scaled(trim.paint, 1.22), inside, 0.0))
    if is_detailed:
        if trim.strip:
            faces.append((patch(panel, 0, 1, 0.42, 0.51), PLASTIC, inside, 0.0))
        for u in (0.22, 0.60, 0.96)[: 3 if shape.windows > 1 else 2]:
            faces.append((patch(panel, u, u + 0.012, 0.12, 0.95), scaled(trim.paint, 0.45), inside, 0.0))
        for u in (0.50, 0.86)[: 2 if shape.windows > 1 else 1]:
            faces.append((patch(panel, u, u + 0.06, 0.74, 0.79), scaled(trim.paint, 0.55), inside, 0.0))
    for z in (shape.length / 2 - 0.75, -shape.length / 2 + 0.72):
        arch = [(x, max(p[1], shape.clear * 0.6), p[2]) for p in disc_x(x, r, z, r + 0.075, 12)]
        faces.append((arch, (10, 10, 11), inside, 0.0))
        faces.append((disc_x(x * 0.99, r, z, r, 12), RUBBER, inside, 0.0))
        faces.append((Decal(disc_x(x, r, z, r * 0.66, 10)), trim.rim, inside, 0.0))
        if is_detailed:
            faces.append((Decal(disc_x(x, r, z, r * 0.44, 8)), scaled(trim.rim, 0.62), inside, 0.0))
            faces.append((Decal(disc_x(x, r, z, r * 0.16, 6)), scaled(trim.rim, 1.1), inside, 0.0))
    return faces


def _end_faces(trim: Trim, rings: list[list[Point]], end: int, corner: int, inside: Point, is_detailed: bool) -> list[Face]:
    """Bumper, panel, lights, plate and grille of the nose (end 0) or the tail (end 6)."""
    low, mid, top = rings[0][end], rings[1][end], rings[2][end]
    bumper: Quad = (_flip(low), low, mid, _flip(mid))
    panel: Quad = (_flip(mid), mid, top, _flip(top))
    faces: list[Face] = [(bumper, trim.bumper, inside, 0.0), (panel, trim.paint, inside, 0.0)]
    around: list[Quad] = []
    for flip in (False, True):
        quad: Quad = (rings[1][corner], rings[1][end], rings[2][end], rings[2][corner])
        around.append(_mirrored(quad) if flip else quad)
    if end == 0:
        lamp: Rgb = mixed((205, 208, 210), (255, 252, 235), trim.lamps)
        glow = 0.15 + 0.8 * trim.lamps
        faces.append((patch(panel, 0.24, 0.76, 0.15, 0.75), PLASTIC, inside, 0.0))
        faces.append((patch(bumper, 0.15, 0.85, 0.12, 0.55), (20, 20, 22), inside, 0.0))
        for quad in around:
            faces.append((patch(quad, 0.25, 1.0, 0.30, 0.85), lamp, inside, glow))
        for u0, u1 in ((0.0, 0.22), (0.78, 1.0)):
            faces.append((patch(panel, u0, u1, 0.25, 0.82), lamp, inside, glow))
        if is_detailed:
            faces.append((patch(panel, 0.46, 0.54, 0.30, 0.65), (150, 150, 152), inside, 0.0))
            faces.append((patch(bumper, 0.30, 0.70, 0.60, 0.92), (225, 225, 220), inside, 0.1))
        return faces
    lamp = (225, 26, 22) if trim.brakes else (150 + 60 * trim.lamps, 18, 20)
    glow = 0.95 if trim.brakes else 0.1 + 0.6 * trim.lamps
    v0, v1 = (0.15, 1.0) if trim.tall_lights else (0.45, 0.92)
    for quad in around:
        faces.append((patch(quad, 0.35, 1.0, v0, v1), lamp, inside, glow))
    for u0, u1 in ((0.0, 0.11), (0.89, 1.0)):
        faces.append((patch(panel, u0, u1, v0, v1), lamp, inside, glow))
    if is_detailed:
        faces.append((patch(bumper, 0.0, 1.0, 0.0, 0.25), scaled(trim.bumper, 0.35), inside, 0.0))
        faces.append((patch(panel, 0.06, 0.94, 0.02, 0.06), scaled(trim.paint, 0.4), inside, 0.0))
        for u0 in (0.11, 0.83):
            faces.append((patch(panel, u0, u0 + 0.06, v0 + 0.1, v1 - 0.3), (220, 200, 190), inside, 0.1))
    faces.append((patch(panel, 0.32, 0.68, 0.16, 0.46), trim.plate_rear, inside, 0.1))
    return faces


def _cabin(shape: Shape, trim: Trim, viewer: Point, half: float, is_detailed: bool) -> list[Face]:
    """Pillars, glass and roof."""
    front, rear = shape.length / 2 - shape.cowl, -shape.length / 2 + shape.rear_base
    roof_front, roof_rear = front - shape.screen, -shape.length / 2 + shape.rear_roof
    mid = (roof_front + roof_rear) / 2
    base, inset = half * 0.94, half * shape.roof_inset
    b0, b1 = (base, shape.belt, front), (base * (0.97 if rear > -shape.length / 2 + 0.3 else 0.93), shape.belt + 0.02, rear)
    r0, r1 = (inset * 0.97, shape.height - 0.05, roof_front), (inset * 0.96, shape.height - 0.07, roof_rear)
    rm = (inset, shape.height, mid)
    inside = (0.0, shape.belt, (front + rear) / 2)
    reflected = mixed(trim.glass, trim.sky, 0.28)
    faces: list[Face] = []
    mirror_at = (base + 0.02, shape.belt - 0.02, front - 0.35)

    def wing_mirror(side: int) -> list[Face]:
        x0, x1 = sorted((side * mirror_at[0], side * (mirror_at[0] + 0.15)))
        return box(x0, x1, mirror_at[1], mirror_at[1] + 0.16, mirror_at[2], mirror_at[2] + 0.1, scaled(trim.paint, 0.75))

    if is_detailed:
        faces += wing_mirror(-1 if viewer[0] > 0 else 1)
    for side in (-1, 1):
        if viewer[0] * side < 0:
            continue
        outline = [b0, r0, rm, r1, b1]
        faces.append((outline if side > 0 else [_flip(p) for p in outline], scaled(trim.paint, 0.97), inside, 0.0))
        pane: Quad = (b0, b1, (r1[0], rm[1] - 0.02, r1[2]), (r0[0], rm[1] - 0.02, r0[2]))
        pane = pane if side > 0 else _mirrored(pane)
        faces += _side_windows(shape, trim, pane, inside, reflected)
    if viewer[2] > front:
        screen: Quad = (_flip(b0), b0, r0, _flip(r0))
        faces.append((screen, scaled(trim.paint, 0.9), inside, 0.0))
        faces.append((patch(screen, 0.05, 0.95, 0.03, 0.94), mixed(trim.glass, trim.sky, 0.16), inside, 0.0))
        faces.append((patch(screen, 0.06, 0.94, 0.55, 0.92), reflected, inside, 0.0))
        if is_detailed:
            faces.append((patch(screen, 0.05, 0.95, 0.03, 0.14), scaled(trim.glass, 0.7), inside, 0.0))
    elif viewer[2] < rear:
        back: Quad = (_flip(b1), b1, r1, _flip(r1))
        faces.append((back, trim.paint, inside, 0.0))
        if not trim.blind_rear:
            low = 0.06 if shape.rear_base > 0.3 else 0.10
            faces.append((patch(back, 0.08, 0.92, low, 0.88), trim.glass, inside, 0.0))
            faces.append((patch(back, 0.09, 0.91, 0.50, 0.87), mixed(trim.glass, trim.sky, 0.22), inside, 0.0))
            if is_detailed:
                for u in (0.2, 0.6):
                    faces.append((patch(back, u, u + 0.18, low, 0.5), scaled(trim.glass, 0.55), inside, 0.0))
        if trim.brakes and is_detailed:
            faces.append((patch(back, 0.42, 0.58, 0.90, 0.96), (230, 30, 25), inside, 0.9))
    roof_color = scaled(trim.paint, 1.1)
    faces.append(((_flip(r0), r0, rm, _flip(rm)), roof_color, inside, 0.0))
    faces.append(((_flip(rm), rm, r1, _flip(r1)), roof_color, inside, 0.0))
    if trim.taxi_sign:
        faces += box(-0.3, 0.3, shape.height, shape.height + 0.16, mid - 0.08, mid + 0.08, (240, 210, 90), 0.3)
    if trim.roof_rails and is_detailed:
        for x in (-inset, inset):
            faces += box(x - 0.02, x + 0.02, shape.height - 0.05, shape.height + 0.03, roof_rear + 0.3, roof_front - 0.25, (60, 60, 62))
    return faces + (wing_mirror(1 if viewer[0] > 0 else -1) if is_detailed else [])


def _side_windows(shape: Shape, trim: Trim, pane: Quad, inside: Point, reflected: Rgb) -> list[Face]:
    """Glass of one side: 1 to 3 panes between the pillars, lighter where the sky is mirrored."""
    cuts = {1: ((0.14, 0.86),), 2: ((0.10, 0.50), (0.54, 0.90)), 3: ((0.10, 0.40), (0.43, 0.68), (0.71, 0.93))}[shape.windows]
    if trim.blind_rear:
        cuts = ((0.06, 0.28),)
    faces: list[Face] = []
    for u0, u1 in cuts:
        faces.append((patch(pane, u0, u1, 0.07, 0.86), trim.glass, inside, 0.0))
        faces.append((patch(pane, u0 + 0.01, u1 - 0.01, 0.50, 0.85), reflected, inside, 0.0))
    return faces
