"""The plan of a street seen from above: where road, pavement, plots and junctions lie.  Metres; u is the distance from the middle."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from iccld.city.camera import FloatArray

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY = range(11)
PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(11, 19)

KINDS = ("highstreet", "residential", "avenue", "downtown", "arterial", "old_town", "car_park", "bazaar", "village")


@dataclass(frozen=True)
class Junction:
    """A street that crosses, or leaves to one side, between z0 and z1; `sides` holds -1 (left), 1 (right) or both."""

    z0: float
    z1: float
    sides: tuple[int, ...]
    zebra: bool = False


@dataclass(frozen=True)
class Side:
    """One side of the street (sign -1 left, +1 right), outwards from the kerb.  surface of the pavement: paving, asphalt, soil (which is
    terrain)."""

    sign: int
    verge: float
    sidewalk: float
    building_line: float
    plots: tuple[tuple[float, float, str], ...]
    """(z0, z1, kind) along the street; kind: terrace, houses, blocks, park, wall, lot, works, market (a supermarket), station (filling)."""
    surface: str = "paving"


@dataclass(frozen=True)
class Street:
    """offset: x of the street's middle at the camera.  curve: 1/m, sideways x = offset + slope z + curve z^2 / 2.  traffic: +1 drives on
    the right, -1 on the left.  half: half width between kerbs, parking lanes (`parking` left, right) included.  end: z of its end.
    median: width of the strip between the directions.  is_square: parked cars stand at right angles to the street."""

    kind: str
    offset: float
    slope: float
    curve: float
    traffic: int
    half: float
    lane: float
    lanes: int
    parking: tuple[float, float]
    sides: tuple[Side, Side]
    junctions: tuple[Junction, ...]
    end: float
    tram: bool = False
    bike_lane: int = 0
    one_way: bool = False
    median: float = 0.0
    is_square: bool = False
    style: dict[str, float] = field(default_factory=dict)

    @property
    def shift(self) -> float:
        """How far the lanes of one direction start from the street's middle."""
        return 1.5 if self.tram else self.median / 2

    def x(self, u: float | FloatArray, z: float | FloatArray) -> FloatArray:
        """World x of lateral coordinate u at z."""
        zz = np.asarray(z, np.float64)
        return np.asarray(u) + self.offset + self.slope * zz + 0.5 * self.curve * np.maximum(zz, 0) ** 2

    def at(self, u: float, z: float) -> tuple[float, float]:
        """World ground position (x, z) of lateral coordinate u at z."""
        return u + self.offset + self.slope * z + (0.5 * self.curve * z * z if z > 0 else 0.0), z

    def heading(self, z: float) -> float:
        """Heading of the street at z: radians, 0 = straight ahead, positive = to the right."""
        return math.atan(self.slope + self.curve * max(z, 0.0))

    def side(self, sign: int) -> Side:
        """The left (-1) or right (+1) side."""
        return self.sides[0] if sign < 0 else self.sides[1]

    def kerb(self, sign: int) -> float:
        """u of the kerb, signed."""
        return sign * self.half

    def in_junction(self, z: float, sign: int, margin: float = 0.0) -> bool:
        """Whether z lies within a junction that opens to this side."""
        return any(j.z0 - margin < z < j.z1 + margin and sign in j.sides for j in self.junctions)


def make_street(rng: np.random.Generator, world: str) -> Street:
    """A random street.  `camera` prefers older, narrower streets with more plots of trees; `sim` covers everything."""
    weights = {
        "sim": (0.17, 0.18, 0.12, 0.07, 0.17, 0.1, 0.08, 0.07, 0.04),
        "camera": (0.14, 0.16, 0.22, 0.08, 0.16, 0.22, 0.02, 0.0, 0.0),
    }[world]
    kind = KINDS[int(rng.choice(len(KINDS), p=weights))]
    lane = float(rng.uniform(*LANE_WIDTHS.get(kind, (2.6, 3.6))))
    lanes = int(rng.choice([1, 2, 3], p=LANE_SHARES.get(kind, (0.9, 0.1, 0.0))))
    is_square = kind == "car_park"
    parking = tuple(
        float(rng.uniform(4.6, 5.4) if is_square else rng.uniform(1.9, 2.4)) if rng.random() < PARKING_SHARES[kind] else 0.0
        for _ in range(2)
    )
    tram = bool(rng.random() < TRAM_SHARES.get(kind, 0.0))
    median = float(rng.uniform(0.6, 5.0)) if not tram and rng.random() < MEDIAN_SHARES.get(kind, 0.0) else 0.0
    one_way = bool(rng.random() < {"old_town": 0.3, "residential": 0.15}.get(kind, 0.05)) and not tram and not median
    traffic = int(rng.choice([-1, 1])) if world == "sim" else (1 if rng.random() < 0.4 else -1)
    half = lanes * lane * (0.75 if one_way else 1.0) + sum(parking) / 2 + (1.6 if tram else median / 2) + float(rng.uniform(0, 0.5))
    end = float(rng.choice([rng.uniform(45, 90), rng.uniform(90, 240)]))
    junctions = _junctions(rng, kind, end)
    sides = tuple(_side(rng, sign, kind, half, world, end, junctions) for sign in (-1, 1))
    own_lane = 0.0 if one_way else (rng.integers(lanes) + 0.5) * lane + (1.4 if tram else median / 2)
    offset = -traffic * own_lane + float(rng.normal(0, 0.25))
    curve = float(rng.choice([0.0, rng.normal(0, 0.0022), rng.normal(0, 0.006)], p=[0.45, 0.4, 0.15]))
    return Street(
        kind=kind, offset=float(offset), slope=float(rng.normal(0, 0.015)), curve=curve, traffic=traffic, half=float(half), lane=lane,
        lanes=lanes, parking=(parking[0], parking[1]), sides=(sides[0], sides[1]), junctions=junctions, end=end, tram=tram,
        bike_lane=int(rng.random() < 0.22), one_way=one_way, median=median, is_square=is_square,
    )  # fmt: skip


LANE_WIDTHS = {"bazaar": (2.2, 3.2), "village": (2.2, 3.2), "old_town": (2.2, 3.0), "car_park": (2.4, 3.4), "arterial": (3.0, 3.7)}
LANE_SHARES = {"downtown": (0.3, 0.5, 0.2), "arterial": (0.45, 0.42, 0.13), "avenue": (0.55, 0.38, 0.07), "car_park": (1.0, 0.0, 0.0)}
PARKING_SHARES = {
    "residential": 0.75, "old_town": 0.4, "highstreet": 0.4, "avenue": 0.5, "arterial": 0.12, "downtown": 0.3, "car_park": 0.92,
    "bazaar": 0.3, "village": 0.1,
}  # fmt: skip
"""Chance of a lane of parked cars on one side."""
TRAM_SHARES = {"downtown": 0.28, "avenue": 0.25, "highstreet": 0.18, "arterial": 0.12, "old_town": 0.12}
MEDIAN_SHARES = {"avenue": 0.3, "arterial": 0.35, "downtown": 0.2, "bazaar": 0.3}


def _junctions(rng: np.random.Generator, kind: str, end: float) -> tuple[Junction, ...]:
    found: list[Junction] = []
    if kind == "car_park":
        return ()
    z = float(rng.uniform(-4, 45))
    while z < end - 12:
        width = float(rng.uniform(5.5, 14))
        sides = ((-1, 1), (-1,), (1,))[int(rng.choice(3, p=(0.5, 0.25, 0.25)))]
        if rng.random() < 0.8:
            found.append(Junction(z, z + width, sides, bool(rng.random() < 0.55)))
        z += width + float(rng.uniform(22, 80))
    return tuple(found)


PLOT_WEIGHTS: dict[str, dict[str, float]] = {
    "highstreet": {"terrace": 0.76, "blocks": 0.08, "park": 0.1, "wall": 0.03, "works": 0.03},
    "old_town": {"terrace": 0.66, "wall": 0.12, "park": 0.14, "houses": 0.05, "works": 0.03},
    "residential": {"houses": 0.5, "terrace": 0.16, "park": 0.23, "wall": 0.06, "lot": 0.05},
    "avenue": {"houses": 0.2, "blocks": 0.24, "park": 0.36, "terrace": 0.15, "wall": 0.05},
    "downtown": {"blocks": 0.62, "terrace": 0.2, "lot": 0.04, "park": 0.11, "works": 0.03},
    "arterial": {"park": 0.56, "lot": 0.08, "wall": 0.1, "blocks": 0.08, "houses": 0.06, "market": 0.07, "station": 0.07},
    "car_park": {"market": 0.4, "lot": 0.16, "park": 0.36, "blocks": 0.04, "station": 0.04},
    "bazaar": {"terrace": 0.62, "wall": 0.12, "works": 0.06, "lot": 0.04, "park": 0.1, "station": 0.04},
    "village": {"houses": 0.36, "wall": 0.2, "park": 0.34, "terrace": 0.1, "lot": 0.04},
}
for _kind, _share in (("highstreet", 0.03), ("residential", 0.02), ("avenue", 0.03)):
    PLOT_WEIGHTS[_kind] |= {"market": _share, "station": _share}


def _side(rng: np.random.Generator, sign: int, kind: str, half: float, world: str, end: float, junctions: tuple[Junction, ...]) -> Side:
    verge_chance = {"avenue": 0.6, "arterial": 0.6, "residential": 0.35, "village": 0.5, "car_park": 0.1}.get(kind, 0.06)
    verge = float(rng.uniform(0.8, 3.5)) if rng.random() < verge_chance else 0.0
    sidewalk = float(rng.uniform(*WALK_WIDTHS.get(kind, (1.4, 3.0))))
    if rng.random() < {"arterial": 0.25, "village": 0.5, "car_park": 0.35, "bazaar": 0.1}.get(kind, 0.0):
        sidewalk = 0.0
    surface = str(rng.choice(("paving", "asphalt", "soil"), p=SURFACE_SHARES.get(kind, (0.6, 0.38, 0.02))))
    line = half + 0.15 + verge + sidewalk
    weights = dict(PLOT_WEIGHTS[kind])
    if world == "camera":
        weights["park"] = weights.get("park", 0.0) + 0.12
    names = list(weights)
    share = np.array([weights[n] for n in names])
    plots: list[tuple[float, float, str]] = []
    z = -14.0
    while z < end:
        length = float(rng.uniform(18, 75))
        stop = min(z + length, end)
        for j in junctions:
            if sign in j.sides and z < j.z0 < stop:
                stop = j.z0
        if stop - z > 1.0:
            plots.append((z, stop, names[int(rng.choice(len(names), p=share / share.sum()))]))
        z = stop
        for j in junctions:
            if sign in j.sides and j.z0 - 0.01 <= z < j.z1:
                z = j.z1
    return Side(sign, verge, sidewalk, line, tuple(plots), surface)


WALK_WIDTHS = {
    "downtown": (2.4, 6.5), "highstreet": (1.5, 4.8), "avenue": (2.0, 5.0), "old_town": (0.8, 3.0), "arterial": (1.4, 3.6),
    "bazaar": (0.8, 3.5), "village": (0.8, 2.0), "car_park": (1.2, 4.0),
}  # fmt: skip
"""Of the pavement, metres."""
SURFACE_SHARES = {"bazaar": (0.4, 0.1, 0.5), "village": (0.2, 0.3, 0.5), "downtown": (0.85, 0.15, 0.0), "car_park": (0.6, 0.4, 0.0)}
