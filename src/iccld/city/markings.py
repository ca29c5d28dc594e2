"""Paint and wear on the road: lines, arrows, zebras, hatching, tram rails, patches, cracks, manholes."""

from __future__ import annotations

import numpy as np

from iccld.city.camera import bounded
from iccld.city.ground import Ground

Rgb = tuple[float, float, float]

_TURN = np.linspace(0, 2 * np.pi, 12, endpoint=False)
_ROUND = list(zip(np.cos(_TURN).tolist(), np.sin(_TURN).tolist(), strict=True))


def draw_markings(ground: Ground, rng: np.random.Generator, world: str) -> None:
    """Draw everything painted or worn onto the road of `ground`, in the order of time: repairs, then paint, then rails."""
    _wear(ground, rng)
    street = ground.street
    paint = _worn(ground.palette.paint, ground.palette.asphalt, float(rng.uniform(0.0, 0.55)))
    yellow = _worn(ground.palette.yellow, ground.palette.asphalt, float(rng.uniform(0.0, 0.4)))
    bare = rng.random() < {"residential": 0.5, "old_town": 0.45, "bazaar": 0.6, "village": 0.75}.get(street.kind, 0.06)
    if street.is_square:
        _bays(ground, rng, paint)
    if street.bike_lane and not bare:
        _bike_lane(ground, rng, paint)
    if not bare:
        _lane_lines(ground, rng, paint, yellow, world)
    if rng.random() < 0.45:
        _kerb_lines(ground, rng, paint, yellow)
    for junction in street.junctions:
        _junction(ground, rng, junction.z0, junction.z1, junction.zebra, paint, yellow)
    if rng.random() < 0.3 and not bare:
        _zebra(ground, float(rng.uniform(6, 40)), paint, rng)
    if not bare:
        for _ in range(int(rng.integers(0, 4))):
            _arrow(ground, rng, paint)
    if rng.random() < 0.18:
        _hatching(ground, rng, paint)
    if street.tram:
        _rails(ground, rng)


def _bays(ground: Ground, rng: np.random.Generator, paint: Rgb) -> None:
    """Lines between cars parked at right angles."""
    street, gap = ground.street, float(rng.uniform(2.3, 2.7))
    for sign, bay in zip((-1, 1), street.parking, strict=True):
        for k in range(24 if bay else 0):
            z = -2.0 + k * gap
            inner, outer = sign * (street.half - bay), sign * street.half
            ground.mark([(inner, z), (inner, z + 0.11), (outer, z + 0.11), (outer, z)], paint)


def _worn(paint: Rgb, road: Rgb, wear: float) -> Rgb:
    r, g, b = (p * (1 - wear) + a * wear for p, a in zip(paint, road, strict=True))
    return r, g, b


def _clear(ground: Ground, z0: float, z1: float) -> bool:
    """Whether a marking between z0 and z1 stays out of the junctions that open to both sides."""
    return not any(j.z0 < z1 and z0 < j.z1 and len(j.sides) == 2 for j in ground.street.junctions)


def _dashes(ground: Ground, u: float, width: float, dash: float, gap: float, paint: Rgb, rng: np.random.Generator, far: float = 70) -> None:
    z = -3.0 - float(rng.uniform(0, dash + gap))
    far = min(far, ground.street.end)
    while z < far:
        if z + dash > 0.5 and _clear(ground, z, z + dash):
            ground.mark(ground.strip(u - width / 2, u + width / 2, z, z + dash), paint)
        z += dash + gap
        if z > 35:  # beyond, dashes melt into one pale line
            ground.mark(ground.strip(u - width / 2, u + width / 2, z, far), paint, dash / (dash + gap))
            return


def _solid(ground: Ground, u: float, width: float, paint: Rgb, alpha: float = 1.0) -> None:
    edges = [-3.0]
    for j in ground.street.junctions:
        if (np.sign(u) in j.sides and abs(u) > 1.5) or len(j.sides) == 2:
            edges += [j.z0 - 1, j.z1 + 1]
    edges.append(min(150.0, ground.street.end))
    for z0, z1 in zip(edges[::2], edges[1::2], strict=True):
        if z1 > z0 and z1 > 0.5:
            ground.mark(ground.strip(u - width / 2, u + width / 2, z0, z1), paint, alpha)


def _lane_lines(ground: Ground, rng: np.random.Generator, paint: Rgb, yellow: Rgb, world: str) -> None:
    street = ground.street
    width = float(rng.uniform(0.09, 0.17))
    dash = float(rng.choice([1.5, 2, 3, 4]))
    gap = dash * float(rng.choice([1, 1.5, 2, 2.5]))
    shift = (street.parking[0] - street.parking[1]) / 2
    middle = 0.0 if not street.one_way else None
    if middle is not None and not street.tram and not street.median:
        style = rng.choice(4, p=(0.62, 0.14, 0.12, 0.12))
        line = yellow if rng.random() < (0.2 if world == "sim" else 0.05) else paint
        if style == 0:
            _dashes(ground, shift, width, dash, gap, line, rng)
        elif style == 1:
            _solid(ground, shift, width, line)
        elif style == 2:
            _solid(ground, shift - 0.13, width, line)
            _solid(ground, shift + 0.13, width, line)
    for i in range(1, street.lanes):
        for sign in (-1, 1):
            _dashes(ground, shift + sign * (i * street.lane + street.shift), width, dash, gap, paint, rng)
    for sign, bay in zip((-1, 1), street.parking, strict=True):
        if bay and rng.random() < 0.5:
            _dashes(ground, sign * (street.half - bay), width * 0.8, 1.0, 1.0, paint, rng, 40)


def _kerb_lines(ground: Ground, rng: np.random.Generator, paint: Rgb, yellow: Rgb) -> None:
    double = rng.random() < 0.5
    color = yellow if rng.random() < 0.65 else paint
    for sign in (-1, 1):
        if rng.random() < 0.8:
            u = sign * (ground.street.half - 0.35)
            _solid(ground, u, 0.08 if double else 0.11, color, 0.9)
            if double:
                _solid(ground, u - sign * 0.22, 0.08, color, 0.9)


def _bike_lane(ground: Ground, rng: np.random.Generator, paint: Rgb) -> None:
    for sign, bay in zip((-1, 1), ground.street.parking, strict=True):
        outer = sign * (ground.street.half - bay - 0.15)
        inner = outer - sign * float(rng.uniform(1.2, 1.9))
        if ground.palette.bike is not None:
            _solid(ground, (inner + outer) / 2, abs(outer - inner), ground.palette.bike, 0.75)
        if rng.random() < 0.5:
            _dashes(ground, inner, 0.12, 1.0, 1.0, paint, rng)
        else:
            _solid(ground, inner, 0.12, paint)


def _junction(ground: Ground, rng: np.random.Generator, z0: float, z1: float, zebra: bool, paint: Rgb, yellow: Rgb) -> None:
    half = ground.street.half
    if z0 > 70:
        return
    if zebra:
        _zebra(ground, z0 - 3.6, paint, rng)
    elif rng.random() < 0.5:
        low, high = (-half + 0.2, 0.0) if ground.street.traffic < 0 else (0.0, half - 0.2)
        ground.mark([(low, z0 - 1.2), (high, z0 - 1.2), (high, z0 - 0.8), (low, z0 - 0.8)], paint)
    if rng.random() < 0.2:  # yellow box: no stopping
        step = float(rng.uniform(1.2, 2.0))
        for a in np.arange(-half - (z1 - z0), half, step).tolist():
            for direction in (-1, 1):
                u0, u1 = bounded(a, -half, half), bounded(a + (z1 - z0), -half, half)
                if u1 - u0 > 0.5:
                    p, q = (direction * u0, z0 + u0 - a), (direction * u1, z0 + u1 - a)
                    ground.mark([(p[0] - 0.07, p[1]), (p[0] + 0.07, p[1]), (q[0] + 0.07, q[1]), (q[0] - 0.07, q[1])], yellow, 0.8)


def _zebra(ground: Ground, z: float, paint: Rgb, rng: np.random.Generator) -> None:
    half, depth = ground.street.half, float(rng.uniform(2.4, 4.0))
    if rng.random() < 0.25:  # studs or two lines instead of stripes
        for edge in (z, z + depth):
            ground.mark([(-half, edge), (half, edge), (half, edge + 0.2), (-half, edge + 0.2)], paint)
        return
    width = float(rng.choice([0.4, 0.5, 0.6]))
    for u in np.arange(-half + 0.3, half - 0.3, 2 * width).tolist():
        ground.mark([(u, z), (u, z + depth), (u + width, z + depth), (u + width, z)], paint)


def _arrow(ground: Ground, rng: np.random.Generator, paint: Rgb) -> None:
    street = ground.street
    lane = (rng.integers(street.lanes) + 0.5) * street.lane + street.shift
    u = street.traffic * lane if rng.random() < 0.75 else -street.traffic * lane
    z, length = float(rng.uniform(3, 32)), float(rng.uniform(2.5, 4.5))
    if not _clear(ground, z, z + length):
        return
    if rng.random() < 0.3:  # writing: bars and bows
        for k in range(int(rng.integers(3, 6))):
            at = u - 1.0 + 0.45 * k
            ground.mark([(at, z), (at, z + 1.6), (at + 0.12, z + 1.6), (at + 0.12, z)], paint)
            if rng.random() < 0.7:
                bar = z + float(rng.choice([0, 0.7, 1.4]))
                ground.mark([(at, bar), (at, bar + 0.2), (at + 0.38, bar + 0.2), (at + 0.38, bar)], paint)
        return
    ground.mark([(u - 0.08, z), (u + 0.08, z), (u + 0.08, z + length), (u - 0.08, z + length)], paint)
    tip = z + length + 1.0
    turn = float(rng.choice([0.0, 0.0, -0.8, 0.8]))
    ground.mark([(u - 0.4 + turn, z + length - 0.3), (u + turn * 1.3, tip), (u + 0.4 + turn, z + length - 0.3)], paint)
    if turn:
        ground.mark(
            [(u - 0.08, z + length - 0.5), (u + 0.08, z + length - 0.5), (u + turn, z + length), (u + turn, z + length + 0.3)], paint
        )


def _hatching(ground: Ground, rng: np.random.Generator, paint: Rgb) -> None:
    z, length, wide = float(rng.uniform(5, 30)), float(rng.uniform(8, 20)), float(rng.uniform(0.8, 1.8))
    ground.mark([(0.0, z), (0.12, z), (wide / 2, z + length), (wide / 2 - 0.12, z + length)], paint)
    ground.mark([(0.0, z), (-0.12, z), (-wide / 2, z + length), (-wide / 2 + 0.12, z + length)], paint)
    for k in np.arange(z + 2, z + length, 1.6).tolist():
        w = wide / 2 * (k - z) / length
        ground.mark([(-w, k), (-w, k + 0.35), (w, k + 0.9), (w, k + 0.55)], paint)


def _rails(ground: Ground, rng: np.random.Generator) -> None:
    far = min(160.0, ground.street.end)
    bed = ground.palette.cobble
    for track in (-1.6, 1.6):
        if rng.random() < 0.5:
            ground.mark(ground.strip(track - 1.1, track + 1.1, -3, far), bed, 0.7)
        for rail in (-0.72, 0.72):
            ground.mark(ground.strip(track + rail - 0.07, track + rail + 0.07, -3, far), (70, 68, 66))
            ground.mark(ground.strip(track + rail - 0.02, track + rail + 0.03, -3, far), (165, 165, 168), 0.8)


def _wear(ground: Ground, rng: np.random.Generator) -> None:
    street, asphalt = ground.street, ground.palette.asphalt
    half = street.half
    for sign in (-1, 1):
        for lane in range(street.lanes):
            middle = sign * (lane + 0.5) * street.lane
            for wheel in (-0.75, 0.75):
                tone = 0.86 if rng.random() < 0.7 else 1.12
                ground.mark(ground.strip(middle + wheel - 0.3, middle + wheel + 0.3, -3, 120), _scaled(asphalt, tone), 0.35)
    for _ in range(int(rng.integers(0, 6))):  # repairs
        u, z = float(rng.uniform(-half, half - 1)), float(rng.uniform(2, 40))
        w, d = float(rng.uniform(0.5, 2.2)), float(rng.uniform(0.8, 9))
        ground.mark(ground.strip(u, min(half, u + w), z, z + d), _scaled(asphalt, float(rng.choice([0.72, 0.82, 1.15]))), 0.75)
    for _ in range(int(rng.integers(0, 5))):  # cracks and seams
        u, z = float(rng.uniform(-half, half)), float(rng.uniform(2, 22))
        for _ in range(4):
            du, dz = float(rng.normal(0, 0.35)), float(rng.uniform(0.3, 1.6))
            ground.mark([(u, z), (u + 0.04, z), (u + du + 0.04, z + dz), (u + du, z + dz)], _scaled(asphalt, 0.55), 0.6)
            u, z = bounded(u + du, -half, half), z + dz
    for _ in range(int(rng.integers(0, 4))):  # manholes
        u, z, r = float(rng.uniform(-half + 0.5, half - 0.5)), float(rng.uniform(3, 25)), 0.33
        ground.mark([(u + r * cos, z + r * sin) for cos, sin in _ROUND], _scaled(asphalt, float(rng.uniform(0.5, 1.2))))
        ground.mark([(u + 0.27 * cos, z + 0.27 * sin) for cos, sin in _ROUND], _scaled(asphalt, 0.75))


def _scaled(color: Rgb, factor: float) -> Rgb:
    r, g, b = (c * factor if c * factor < 255.0 else 255.0 for c in color)
    return r, g, b
