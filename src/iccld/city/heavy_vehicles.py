"""Trucks, buses and trams as solids."""

from __future__ import annotations

import math

import numpy as np

from iccld.city.solid import Decal, Face, Point, Quad, Rgb, Stage, box, disc_x, mixed, patch, scaled

TRUCK, BUS, TRAM = 14, 15, 16
RUBBER: Rgb = (24, 24, 26)
DARK: Rgb = (20, 20, 22)
_CARGO: tuple[Rgb, ...] = (
    (226, 227, 226), (226, 227, 226), (200, 202, 205), (36, 66, 128), (150, 30, 34), (40, 92, 60), (210, 160, 50), (90, 94, 100),
    (60, 110, 160), (190, 180, 160),
)  # fmt: skip
_LIVERIES: tuple[tuple[Rgb, Rgb], ...] = (
    ((170, 24, 30), (170, 24, 30)), ((186, 32, 36), (220, 214, 196)), ((228, 228, 226), (40, 84, 160)), ((36, 80, 150), (224, 216, 190)),
    ((228, 228, 226), (40, 130, 80)), ((226, 196, 60), (60, 62, 66)), ((66, 130, 190), (222, 224, 226)), ((230, 230, 228), (190, 40, 40)),
    ((196, 198, 202), (90, 30, 90)), ((40, 110, 70), (220, 214, 180)), ((222, 120, 40), (230, 230, 228)),
)  # fmt: skip


class Hull:
    """A tall body with bevelled upright edges and a slightly narrower roof, metres in own axes."""

    def __init__(
        self, half: float, y0: float, y1: float, z0: float, z1: float, bevel: float = 0.18, roof: float = 0.2, lean: float = 0.0
    ) -> None:
        self.inside: Point = (0.0, (y0 + y1) / 2, (z0 + z1) / 2)
        top = y1 - roof
        inner = half - bevel
        # Plan, right half, nose -> tail; `lean` moves the upper front edge back.
        plan = [(inner, z1), (half, z1 - bevel), (half, z0 + bevel), (inner, z0)]
        self.low = [(x, y0, z) for x, z in plan]
        self.high = [(x, top, z - (lean if i < 2 else 0.0)) for i, (x, z) in enumerate(plan)]
        self.roof = [(x * 0.9, y1, z - ((lean + 0.08) if i < 2 else -0.05)) for i, (x, z) in enumerate(plan)]
        self.front: Quad = (_flip(self.low[0]), self.low[0], self.high[0], _flip(self.high[0]))
        self.rear: Quad = (_flip(self.low[3]), self.low[3], self.high[3], _flip(self.high[3]))

    def side(self, side: int) -> Quad:
        """The flat of one side: u runs tail -> nose, v upwards."""
        quad: Quad = (self.low[2], self.low[1], self.high[1], self.high[2])
        return quad if side > 0 else _mirror(quad)

    def corner(self, side: int, is_front: bool) -> Quad:
        """An upright bevel: u runs away from the centre line."""
        i, j = (0, 1) if is_front else (3, 2)
        quad: Quad = (self.low[i], self.low[j], self.high[j], self.high[i])
        return quad if side > 0 else _mirror(quad)

    def faces(self, color: Rgb) -> list[Face]:
        """The closed body."""
        out: list[Face] = []
        for side in (-1, 1):
            out.append((self.side(side), color, self.inside, 0.0))
            out += [(self.corner(side, is_front), color, self.inside, 0.0) for is_front in (False, True)]
            for i in range(3):
                quad: Quad = (self.high[i], self.high[i + 1], self.roof[i + 1], self.roof[i])
                out.append((quad if side > 0 else _mirror(quad), scaled(color, 1.05), self.inside, 0.0))
        out += [(self.front, color, self.inside, 0.0), (self.rear, color, self.inside, 0.0)]
        for i in (0, 3):
            out.append(((_flip(self.high[i]), self.high[i], self.roof[i], _flip(self.roof[i])), scaled(color, 1.05), self.inside, 0.0))
        out.append(((*self.roof, *[_flip(p) for p in reversed(self.roof)]), scaled(color, 1.1), self.inside, 0.0))
        return out

    def band(self, v0: float, v1: float, color: Rgb, glow: float = 0.0, ends: tuple[bool, bool] = (True, True)) -> list[Face]:
        """A stripe around the body between heights v0 and v1 (shares); ends: whether it covers the tail and the nose."""
        out: list[Face] = []
        for side in (-1, 1):
            out.append((patch(self.side(side), 0, 1, v0, v1), color, self.inside, glow))
            for k, is_front in enumerate((False, True)):
                if ends[k]:
                    out.append((patch(self.corner(side, is_front), 0, 1, v0, v1), color, self.inside, glow))
        for k, quad in enumerate((self.rear, self.front)):
            if ends[k]:
                out.append((patch(quad, 0, 1, v0, v1), color, self.inside, glow))
        return out


def _flip(p: Point) -> Point:
    return (-p[0], p[1], p[2])


def _mirror(quad: Quad) -> Quad:
    return (_flip(quad[0]), _flip(quad[1]), _flip(quad[2]), _flip(quad[3]))


def _seen(stage: Stage) -> tuple[int, ...]:
    """The side that the camera can see: +1 right, -1 left."""
    return (1,) if stage.viewer[0] > 0 else (-1,)


def _choice(rng: np.random.Generator, options: tuple[Rgb, ...]) -> Rgb:
    color = options[int(rng.integers(len(options)))]
    if rng.random() < 0.08:
        color = (float(rng.uniform(30, 230)), float(rng.uniform(30, 230)), float(rng.uniform(30, 230)))
    return scaled(color, float(rng.uniform(0.85, 1.05)))


def _wheels(half: float, radius: float, places: list[float], rim: Rgb = (120, 120, 122)) -> list[Face]:
    """Wheels at the given z on both sides, in dark arches."""
    faces: list[Face] = []
    for side in (-1, 1):
        x = side * (half + 0.005)
        inside: Point = (0.0, radius, 0.0)
        for z in places:
            faces.append(([(x, max(0.25, p[1]), p[2]) for p in disc_x(x, radius, z, radius + 0.1, 12)], (12, 12, 13), inside, 0.0))
            faces.append((disc_x(x, radius, z, radius, 14), RUBBER, inside, 0.0))
            faces.append((Decal(disc_x(x, radius, z, radius * 0.58, 10)), rim, inside, 0.0))
            faces.append((Decal(disc_x(x, radius, z, radius * 0.25, 8)), scaled(rim, 0.5), inside, 0.0))
    return faces


def _treads(half: float, radius: float, places: list[float]) -> list[Face]:
    faces: list[Face] = []
    for z in places:
        for side in (-1, 1):
            x0, x1 = sorted((side * (half - 0.42), side * (half - 0.03)))
            faces += box(x0, x1, 0.0, radius * 1.6, z - radius * 0.8, z + radius * 0.8, RUBBER)[:4]
    return faces


def _lamps(quad: Quad, inside: Point, v0: float, v1: float, color: Rgb, glow: float, width: float = 0.13) -> list[Face]:
    return [(patch(quad, u, u + width, v0, v1), color, inside, glow) for u in (0.02, 0.98 - width)]


def _tail_color(rng: np.random.Generator, night: float) -> tuple[Rgb, float]:
    if rng.random() < 0.35:
        return (235, 28, 24), 0.95
    return (150, 18, 20), 0.15 + 0.6 * night


def _windows(hull: Hull, side: int, u0: float, u1: float, v0: float, v1: float, num: int, glass: Rgb, sky: Rgb, glow: float) -> list[Face]:
    """A row of panes on one side; each pane mirrors the sky a little differently."""
    faces: list[Face] = []
    quad = hull.side(side)
    step = (u1 - u0) / num
    for i in range(num):
        a, b = u0 + i * step + 0.06 * step, u0 + (i + 1) * step - 0.03 * step
        faces.append((patch(quad, a, b, v0, v1), glass, hull.inside, glow))
        faces.append((patch(quad, a, b, v0 + 0.55 * (v1 - v0), v1), mixed(glass, sky, 0.16 + 0.1 * ((i * 7) % 3)), hull.inside, glow))
    return faces


def draw_truck(stage: Stage, rng: np.random.Generator) -> None:
    """A truck (label 14): box, curtain, tank, tipper or flat bed behind a cab."""
    half = float(rng.uniform(1.05, 1.25))
    is_big = rng.random() < 0.55
    body_length = float(rng.uniform(5.5, 9.0) if is_big else rng.uniform(3.2, 4.8))
    height = float(rng.uniform(3.2, 4.0) if is_big else rng.uniform(2.6, 3.3))
    cab_length = 1.9 if is_big else 1.7
    front = (body_length + cab_length + 0.2) / 2
    rear = -front
    cab_rear = front - cab_length
    cab_height = min(height - 0.1, float(rng.uniform(2.9, 3.5) if is_big else rng.uniform(2.2, 2.6)))
    color, cab_color = _choice(rng, _CARGO), _choice(rng, _CARGO)
    stage.shadow(half, rear, front, height)
    radius = 0.5 if is_big else 0.4
    places = [front - 1.2, rear + 1.3] + ([rear + 2.4] if is_big else [])
    under = _treads(half, radius, places) + box(-half * 0.8, half * 0.8, radius * 0.8, 1.05, rear + 0.1, cab_rear, DARK)
    cargo = _cargo(rng, half, height, rear, cab_rear - 0.2, color, stage)
    cab = _cab(rng, half * 0.98, cab_height, cab_rear, front, cab_color, stage)
    wheels = _wheels(half, radius, places)
    stage.paint(under + (cargo + cab if stage.viewer[2] > cab_rear else cab + cargo) + wheels, TRUCK)
    stage.roughen(rng, TRUCK, 0.12)


def _cargo(rng: np.random.Generator, half: float, height: float, z0: float, z1: float, color: Rgb, stage: Stage) -> list[Face]:
    kind = rng.choice(5, p=(0.45, 0.25, 0.1, 0.1, 0.1))
    tail, glow = _tail_color(rng, stage.light.night)
    base = 1.0
    bar: Quad = ((-half, 0.62, z0), (half, 0.62, z0), (half, 0.86, z0), (-half, 0.86, z0))
    inside: Point = (0.0, 0.8, (z0 + z1) / 2)
    lights: list[Face] = [(bar, DARK, inside, 0.0), *_lamps(bar, inside, 0.1, 0.9, tail, glow, 0.18)]
    lights.append((patch(bar, 0.38, 0.62, 0.1, 0.9), (220, 200, 90), inside, 0.1))
    if kind == 2:  # tank
        radius, y = min(half, (height - base) / 2), base + min(half, (height - base) / 2)
        turn = [(radius * math.cos(i * math.pi / 6), y + radius * math.sin(i * math.pi / 6)) for i in range(12)]
        center: Point = (0.0, y, (z0 + z1) / 2)
        ends: list[Face] = [([(px, py, z) for px, py in turn], scaled(color, 0.9), center, 0.0) for z in (z0, z1)]
        around: list[Face] = []
        for (ax, ay), (bx, by) in zip(turn, turn[1:] + turn[:1], strict=True):
            around.append((((ax, ay, z0), (bx, by, z0), (bx, by, z1), (ax, ay, z1)), color, center, 0.0))
        return lights + around + ends
    if kind in (3, 4):  # tipper, flat bed with a load
        top = base + (1.1 if kind == 3 else 0.35)
        load = box(-half * 0.85, half * 0.85, base, top + float(rng.uniform(0.1, 0.9)), z0 + 0.4, z1 - 0.5, (110, 92, 70))
        return lights + load + box(-half, half, base, top, z0, z1, color)
    faces = lights + box(-half, half, base, height, z0, z1, color)
    center = (0.0, height / 2, (z0 + z1) / 2)
    back: Quad = ((-half, base, z0), (half, base, z0), (half, height, z0), (-half, height, z0))
    for u in (0.03, 0.49, 0.95):
        faces.append((patch(back, u, u + 0.02, 0.03, 0.97), scaled(color, 0.55), center, 0.0))
    faces.append((patch(back, 0.0, 1.0, 0.96, 1.0), scaled(color, 0.7), center, 0.0))
    accent = _choice(rng, _CARGO)
    for side in _seen(stage):
        quad: Quad = ((side * half, base, z0), (side * half, base, z1), (side * half, height, z1), (side * half, height, z0))
        if kind == 1:  # curtain: folds and a dark hem
            for i in range(8):
                faces.append((patch(quad, i / 8, i / 8 + 0.03, 0.08, 0.95), scaled(color, 0.86), center, 0.0))
            faces.append((patch(quad, 0, 1, 0.0, 0.06), (60, 60, 62), center, 0.0))
        if rng.random() < 0.6:  # a firm's sign
            u, v = rng.uniform(0.1, 0.4), rng.uniform(0.35, 0.6)
            faces.append((patch(quad, u, u + 0.45, v, v + 0.22), accent, center, 0.0))
        faces.append((patch(quad, 0.0, 1.0, -0.02, 0.02), scaled(color, 0.5), center, 0.0))
    return faces


def _cab(rng: np.random.Generator, half: float, height: float, z0: float, z1: float, color: Rgb, stage: Stage) -> list[Face]:
    hull = Hull(half, 0.55, height, z0, z1, bevel=0.15, roof=0.2, lean=0.12)
    glass: Rgb = scaled((36, 40, 46), float(rng.uniform(0.7, 1.1)))
    sky = mixed((205, 215, 228), (40, 44, 60), stage.light.night)
    faces = hull.faces(color)
    mirrors: list[Face] = []
    bottom = (height * 0.5 - 0.55) / (height - 0.75)
    faces += hull.band(0.0, 0.12, (40, 40, 42))
    faces.append((patch(hull.front, 0.0, 1.0, bottom, 0.93), glass, hull.inside, 0.0))
    faces.append((patch(hull.front, 0.02, 0.98, (bottom + 0.93) / 2, 0.92), mixed(glass, sky, 0.22), hull.inside, 0.0))
    faces.append((patch(hull.front, 0.15, 0.85, 0.2, bottom - 0.08), (36, 36, 38), hull.inside, 0.0))
    faces += _lamps(hull.front, hull.inside, 0.05, 0.16, (225, 226, 224), 0.2 + 0.75 * stage.light.night, 0.16)
    faces.append((patch(hull.front, 0.38, 0.62, 0.02, 0.09), (226, 226, 220), hull.inside, 0.1))
    for side in (-1, 1):
        pane = patch(hull.side(side), 0.35, 0.98, bottom + 0.02, 0.92)
        faces.append((pane, glass, hull.inside, 0.0))
        faces.append((patch(pane, 0.05, 0.95, 0.5, 0.95), mixed(glass, sky, 0.25), hull.inside, 0.0))
        x0, x1 = sorted((side * (half + 0.05), side * (half + 0.22)))
        mirrors += box(x0, x1, height * 0.55, height * 0.55 + 0.5, z1 - 0.25, z1 - 0.1, (30, 30, 32))
    return faces + mirrors if stage.viewer[2] > z1 - 0.2 else mirrors + faces


def draw_bus(stage: Stage, rng: np.random.Generator) -> None:
    """A bus (label 15): single decker, double decker, coach or minibus."""
    kind = ("single", "double", "coach", "mini")[int(rng.choice(4, p=(0.42, 0.28, 0.2, 0.1)))]
    length, height, half = {
        "single": (11.5, 3.0, 1.25),
        "double": (10.8, 4.3, 1.26),
        "coach": (12.0, 3.5, 1.26),
        "mini": (6.8, 2.75, 1.05),
    }[kind]
    length *= float(rng.uniform(0.85, 1.06))
    height *= float(rng.uniform(0.96, 1.04))
    base, roof = 0.32, 0.16
    front, rear = length / 2, -length / 2
    colors = _LIVERIES[int(rng.integers(len(_LIVERIES)))]
    color, accent = scaled(colors[0], float(rng.uniform(0.8, 1.05))), scaled(colors[1], float(rng.uniform(0.8, 1.05)))
    night = stage.light.night
    inner = float(night * 0.7)
    glass: Rgb = mixed(scaled((36, 40, 46), float(rng.uniform(0.7, 1.2))), (225, 205, 150), inner)
    sky = mixed((205, 215, 228), (60, 60, 66), night)
    stage.shadow(half, rear, front, height)
    places = [front - (2.4 if kind != "mini" else 1.2), rear + (2.8 if kind != "mini" else 1.3)]
    hull = Hull(half, base, height, rear, front, bevel=0.16, roof=roof, lean=0.1 if kind == "coach" else 0.03)
    faces = _treads(half, 0.48, places) + box(-half * 0.9, half * 0.9, 0.2, 0.5, rear + 0.3, front - 0.3, DARK)
    faces += hull.faces(color)
    tall = height - roof - base
    decks = [(0.95, 1.0)] if kind != "double" else [(0.95, 0.85), (2.62, 0.85)]
    if kind == "coach":
        decks = [(1.45, 1.1)]
    faces += hull.band(0.0, 0.10, scaled(accent, 0.55))
    if accent != color:
        v = (decks[0][0] - 0.35) / tall
        faces += hull.band(v * float(rng.uniform(0.4, 0.8)), v, accent)
    num = max(3, round(length / 1.5))
    for level, (bottom, size) in enumerate(decks):
        v0, v1 = bottom / tall, min(0.97, (bottom + size) / tall)
        for side in _seen(stage):
            if rng.random() < 0.7:
                faces.append((patch(hull.side(side), 0.02, 0.99, v0 - 0.01, v1 + 0.01), scaled(glass, 0.6), hull.inside, inner))
            faces += _windows(hull, side, 0.02, 0.99, v0, v1, num, glass, sky, inner * 0.8)
            if level == 0 and side > 0:
                faces += _doors(hull, glass, v1)
        faces += _bus_ends(hull, level, len(decks), v0, v1, glass, sky, inner)
    if kind == "double" and rng.random() < 0.6:
        v0 = (decks[0][0] + decks[0][1] + 0.1) / tall
        ad = (float(rng.uniform(40, 240)), float(rng.uniform(40, 240)), float(rng.uniform(40, 240)))
        for side in (-1, 1):
            faces.append((patch(hull.side(side), 0.15, 0.75, v0, decks[1][0] / tall - 0.02), ad, hull.inside, 0.0))
    faces += _bus_lights(hull, rng, color, night, kind == "double") + _wheels(half, 0.48, places)
    mirrors: list[Face] = []
    for side in (-1, 1):
        x0, x1 = sorted((side * (half + 0.02), side * (half + 0.2)))
        mirrors += box(x0, x1, 1.9, 2.35, front - 0.05, front + 0.08, (25, 25, 27))
    stage.paint(faces + mirrors if stage.viewer[2] > front else mirrors + faces, BUS)
    stage.roughen(rng, BUS, 0.12)


def _doors(hull: Hull, glass: Rgb, v1: float) -> list[Face]:
    faces: list[Face] = []
    for u in (0.88, 0.52):
        door = patch(hull.side(1), u, u + 0.10, 0.06, v1)
        faces.append((door, (30, 30, 32), hull.inside, 0.0))
        for a in (0.06, 0.54):
            faces.append((patch(door, a, a + 0.40, 0.08, 0.95), scaled(glass, 1.2), hull.inside, 0.0))
    return faces


def _bus_ends(hull: Hull, level: int, num_decks: int, v0: float, v1: float, glass: Rgb, sky: Rgb, inner: float) -> list[Face]:
    """Windscreens at the nose, rear windows at the tail, round the corners at the nose."""
    low = v0 - 0.08 if level == 0 else v0
    faces: list[Face] = [(patch(hull.front, 0.0, 1.0, low, v1), glass, hull.inside, inner * 0.5)]
    faces.append((patch(hull.front, 0.02, 0.98, (low + v1) / 2, v1 - 0.01), mixed(glass, sky, 0.24), hull.inside, inner * 0.5))
    faces.append((patch(hull.front, 0.49, 0.51, low, v1), (24, 24, 26), hull.inside, 0.0))
    for side in (-1, 1):
        faces.append((patch(hull.corner(side, True), 0.0, 1.0, low, v1), scaled(glass, 0.85), hull.inside, inner * 0.5))
    if level == num_decks - 1 or num_decks == 1:
        faces.append((patch(hull.rear, 0.08, 0.92, v0 + 0.1 * (v1 - v0), v1), glass, hull.inside, inner * 0.6))
        faces.append((patch(hull.rear, 0.10, 0.90, (v0 + v1) / 2, v1 - 0.01), mixed(glass, sky, 0.22), hull.inside, inner * 0.6))
    return faces


def _bus_lights(hull: Hull, rng: np.random.Generator, color: Rgb, night: float, is_double: bool) -> list[Face]:
    """Destination board, head and tail lights, plates, the engine's grille."""
    tail, glow = _tail_color(rng, night)
    v = 0.50 if is_double else 0.94
    faces: list[Face] = []
    amber = (240, 170, 40) if rng.random() < 0.7 else (225, 225, 215)
    for quad, u0, u1 in ((hull.front, 0.15, 0.85), (hull.rear, 0.58, 0.85)):
        board = patch(quad, u0, u1, v - 0.035, v + 0.035)
        faces.append((board, (14, 14, 15), hull.inside, 0.0))
        faces.append((patch(board, 0.08, 0.30, 0.25, 0.75), amber, hull.inside, 0.8))
        faces.append((patch(board, 0.38, 0.92, 0.3, 0.7), amber, hull.inside, 0.7))
    faces += _lamps(hull.front, hull.inside, 0.08, 0.15, (228, 228, 226), 0.25 + 0.7 * night, 0.16)
    faces.append((patch(hull.front, 0.38, 0.62, 0.03, 0.07), (226, 226, 220), hull.inside, 0.1))
    faces.append((patch(hull.rear, 0.18, 0.82, 0.10, 0.24), scaled(color, 0.5), hull.inside, 0.0))
    faces.append((patch(hull.rear, 0.36, 0.64, 0.04, 0.085), (228, 196, 50), hull.inside, 0.1))
    faces += _lamps(hull.rear, hull.inside, 0.10, 0.26, tail, glow, 0.08)
    return faces


def draw_tram(stage: Stage, rng: np.random.Generator) -> None:
    """A tram (label 16) of one to four segments, on its rails (colour only)."""
    num = int(rng.integers(1, 5))
    segment, half, height = float(rng.uniform(6.5, 9.0)), float(rng.uniform(1.18, 1.32)), float(rng.uniform(3.2, 3.6))
    colors = _LIVERIES[int(rng.integers(len(_LIVERIES)))]
    color, accent = scaled(colors[0], float(rng.uniform(0.85, 1.05))), scaled(colors[1], float(rng.uniform(0.85, 1.05)))
    night = stage.light.night
    inner = night * 0.7
    glass: Rgb = mixed(scaled((34, 38, 44), float(rng.uniform(0.7, 1.2))), (225, 205, 150), inner)
    sky = mixed((205, 215, 228), (60, 60, 66), night)
    tail, glow = _tail_color(rng, night)
    while num > 1 and abs(stage.viewer[0]) < 4 and abs(stage.viewer[2]) < num * segment / 2 + 3:
        num -= 1  # the camera must not stand inside
    total = num * segment
    stage.shadow(half, -total / 2, total / 2, height)
    for x in (-0.72, 0.72):
        for z in range(-40, 40, 8):
            rail = np.array([(x - 0.04, 0, z), (x + 0.04, 0, z), (x + 0.04, 0, z + 8), (x - 0.04, 0, z + 8)], np.float64)
            stage.canvas.fill3d(stage.camera, stage.world(rail), stage.lit((112, 110, 108)))
    starts = [-total / 2 + i * segment for i in range(num)]
    starts.sort(key=lambda z: -abs(z + segment / 2 - stage.viewer[2]))
    faces: list[Face] = []
    for z0 in starts:
        is_nose, is_tail = z0 + segment > total / 2 - 0.1, z0 < -total / 2 + 0.1
        z1 = z0 + segment
        if not is_tail:
            faces += box(-half * 0.88, half * 0.88, 0.4, height - 0.25, z0 - 0.3, z0 + 0.3, (36, 36, 38))
        # The boxes on the roof come first: the eye is below the roof, whose edge hides their feet.
        faces += box(-half * 0.6, half * 0.6, height - 0.1, height + 0.22, z0 + 1.2, z1 - 1.2, (130, 132, 134))
        hull = Hull(half, 0.22, height, z0 + (0 if is_tail else 0.3), z1 - (0 if is_nose else 0.3), 0.22, 0.25, 0.45 if is_nose else 0.0)
        faces += hull.faces(color) + hull.band(0.0, 0.12, (50, 50, 52)) + hull.band(0.14, 0.26, accent) + hull.band(0.93, 1.0, accent)
        for side in _seen(stage):
            faces.append((patch(hull.side(side), 0.02, 0.98, 0.36, 0.86), scaled(glass, 0.6), hull.inside, inner * 0.5))
            faces += _windows(hull, side, 0.02, 0.98, 0.38, 0.84, 4, glass, sky, inner * 0.8)
            door = patch(hull.side(side), 0.42, 0.60, 0.05, 0.86)
            faces.append((door, scaled(accent, 0.7), hull.inside, 0.0))
            for a in (0.06, 0.53):
                faces.append((patch(door, a, a + 0.41, 0.25, 0.95), glass, hull.inside, inner * 0.8))
        for quad, is_front in ((hull.front, True), (hull.rear, False)):
            if not (is_nose if is_front else is_tail):
                continue
            faces.append((patch(quad, -0.05, 1.05, 0.36, 0.86), glass, hull.inside, inner * 0.4))
            faces.append((patch(quad, 0.0, 1.0, 0.6, 0.85), mixed(glass, sky, 0.25), hull.inside, inner * 0.4))
            faces.append((patch(quad, 0.2, 0.8, 0.87, 0.95), (16, 16, 17), hull.inside, 0.0))
            faces.append((patch(quad, 0.28, 0.72, 0.89, 0.93), (240, 170, 40), hull.inside, 0.8))
            lamp = (230, 230, 226) if is_front else tail
            faces += _lamps(quad, hull.inside, 0.16, 0.24, lamp, 0.4 + 0.5 * night if is_front else glow, 0.16)
    stage.paint(faces, TRAM)
    stage.roughen(rng, TRAM, 0.12)
    _pantograph(stage, height, starts[-1] + segment / 2)


def _pantograph(stage: Stage, height: float, z: float) -> None:
    joints = [
        (0.0, height + 0.2, z),
        (0.0, height + 0.75, z + 0.9),
        (0.0, height + 1.3, z),
        (-0.7, height + 1.3, z),
        (0.7, height + 1.3, z),
    ]
    pixels, depth = stage.pixels(joints)
    if depth.min() < 1.0:
        return
    width = 0.07 * stage.camera.focal_px / float(depth[0])
    for a, b in ((0, 1), (1, 2), (3, 4)):
        stage.canvas.line(pixels[a], pixels[b], width, (36, 36, 38))
