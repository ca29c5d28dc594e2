"""Who is in the street: vehicles, riders, people, and the furniture of the pavement."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import numpy as np

from iccld.city.culling import Extent
from iccld.city.furniture import (
    draw_bin,
    draw_bollard,
    draw_bus_stop,
    draw_guard_rail,
    draw_pole,
    draw_pylon,
    draw_street_light,
    draw_traffic_light,
    draw_traffic_sign,
)
from iccld.city.layout import Side
from iccld.city.people import draw_person, draw_rider
from iccld.city.plan import Plan
from iccld.city.posters import draw_advertising_column, draw_banner, draw_billboard, draw_hanging_sign, draw_totem
from iccld.city.street_life import draw_animal, draw_cart, draw_trolley
from iccld.city.vehicles import draw_vehicle

Spot = tuple[float, float, float]
LENGTH = {"car": 2.4, "truck": 4.6, "bus": 6.0, "train": 14.0, "motorcycle": 1.2, "bicycle": 1.0, "rickshaw": 1.5}
"""Half the room each kind takes along the street, metres."""
REACH = {"car": 2.9, "truck": 6.5, "bus": 7.0, "train": 19.0, "motorcycle": 1.3, "bicycle": 1.1, "rickshaw": 1.8}
"""Radius around each kind's middle that it keeps to, metres."""
ROOM = {
    draw_bin: (0.8, 2.0), draw_bollard: (0.4, 1.4), draw_traffic_sign: (1.8, 5.2), draw_traffic_light: (6.0, 6.8),
    draw_street_light: (3.3, 11.8), draw_bus_stop: (3.2, 3.3), draw_billboard: (3.3, 6.2), draw_guard_rail: (6.2, 1.2),
    draw_pylon: (5.0, 30.5), draw_cart: (1.6, 2.3), draw_animal: (1.4, 1.8), draw_trolley: (0.7, 1.2),
    draw_totem: (1.3, 6.7), draw_banner: (1.6, 7.2), draw_advertising_column: (1.0, 4.0), draw_hanging_sign: (1.3, 6.8),
}  # fmt: skip
"""Radius and height that furniture keeps to, metres."""


MOVING = ("car", "truck", "bus", "motorcycle", "rickshaw", "bicycle")
MOVING_SHARES = {
    "": (0.78, 0.085, 0.095, 0.02, 0.0, 0.02), "car_park": (0.97, 0.02, 0.01, 0.0, 0.0, 0.0),
    "bazaar": (0.42, 0.08, 0.08, 0.18, 0.18, 0.06), "village": (0.5, 0.12, 0.06, 0.14, 0.12, 0.06),
}  # fmt: skip
"""What drives in the lanes of each kind of street."""
BUSY = {
    "highstreet": 7.0, "downtown": 6.0, "old_town": 4.5, "residential": 1.8, "avenue": 2.5, "arterial": 1.2, "car_park": 2.2, "bazaar": 9.0,
    "village": 2.0,
}  # fmt: skip
"""People on one pavement."""

STRAYING = {
    "highstreet": 1.5, "downtown": 1.0, "old_town": 2.0, "residential": 0.8, "avenue": 0.5, "arterial": 0.3, "car_park": 5.0, "bazaar": 5.0,
    "village": 1.2,
}  # fmt: skip
"""Groups of people on the carriageway, on their way to a car or across; without them a network takes whoever stands there for a rider."""


class Traffic:
    """Places everything that moves or stands in the street of `plan`; spots already taken are left free."""

    def __init__(self, plan: Plan, density: float) -> None:
        self.plan, self.rng, self.street, self.density = plan, plan.rng, plan.street, density
        self.taken: list[Spot] = [(0.0, 0.0, 4.2)]

    def place(self) -> None:
        """Place everything."""
        self._trams()
        self._lanes()
        self._parked()
        self._riders()
        for side in self.street.sides:
            self._verge_trees(side)
            self._street_lights(side)
            self._furniture(side)
            self._people(side)
        self._junction_signals()
        self._crossing_people()
        self._straying_people()
        self._oddities()
        self._wires()

    def free(self, at: tuple[float, float], radius: float) -> bool:
        """Whether a spot is free; takes it if so."""
        own_x, own_z = at
        for x, z, r in self.taken:
            if (own_x - x) ** 2 + (own_z - z) ** 2 < (radius + r) ** 2:
                return False
        self.taken.append((own_x, own_z, radius))
        return True

    def vehicle(self, kind: str, u: float, z: float, heading: float) -> None:
        """Queue a vehicle; heading relative to the street."""
        at = self.street.at(u, z)
        if z > 80 or not self.plan.camera.is_visible(at, 6.0) or not self.free(at, LENGTH[kind] * 0.75):
            return
        turn = heading + self.street.heading(z)
        plan = self.plan
        plan.add(
            math.hypot(*at),
            lambda: draw_vehicle(plan.canvas, plan.camera, self.rng, kind, at, turn, plan.light),
            Extent(at, REACH[kind], 4.4),
        )

    def _lanes(self) -> None:
        rng, street = self.rng, self.street
        for direction in (1, -1):  # 1: along with the camera
            if street.one_way and direction < 0:
                continue
            for lane in range(street.lanes):
                u = direction * street.traffic * ((lane + 0.5) * street.lane + street.shift)
                if street.one_way:
                    u = (lane + 0.5 - street.lanes / 2) * street.lane
                # Oncoming cars pass close by; those ahead keep their distance.
                z = float(rng.uniform(4.5, 12) if direction > 0 else rng.uniform(0, 10)) + float(rng.exponential(11 / self.density))
                while z < min(street.end, 130):
                    kind = str(rng.choice(MOVING, p=MOVING_SHARES.get(street.kind, MOVING_SHARES[""])))
                    heading = (0.0 if direction > 0 else math.pi) + float(rng.normal(0, 0.03))
                    sideways = float(rng.normal(0, 0.25))
                    if kind in ("motorcycle", "bicycle"):
                        self._rider(kind, u + sideways, z, heading)
                    else:
                        self.vehicle(kind, u + sideways, z + LENGTH[kind], heading)
                    z += 2 * LENGTH[kind] + 2.5 + float(rng.exponential(13 / self.density))
        for junction in street.junctions[:2]:  # crossing traffic
            if rng.random() < 0.4 * min(1.0, self.density):
                sign = int(rng.choice(junction.sides))
                u = sign * (street.half + float(rng.uniform(-1, 12)))
                kind = str(rng.choice(["car", "truck", "bus"], p=[0.84, 0.08, 0.08]))
                if junction.z0 > 5:
                    self.vehicle(
                        kind, u, (junction.z0 + junction.z1) / 2 + float(rng.uniform(-2, 2)), float(rng.choice([-1, 1])) * math.pi / 2
                    )

    def _parked(self) -> None:
        rng, street = self.rng, self.street
        for sign, bay in zip((-1, 1), street.parking, strict=True):
            if not bay:
                continue
            full = float(rng.uniform(0.35, 0.97))
            z = float(rng.uniform(-2, 4))
            while z < min(street.end, 75):
                if rng.random() < full and not street.in_junction(z, sign, 4.0):
                    kind = str(rng.choice(["car", "truck", "motorcycle"], p=[0.93, 0.04, 0.03]))
                    if street.is_square:
                        turn = float(rng.choice([-1, 1])) * math.pi / 2 + float(rng.normal(0, 0.03))
                        self.parked("car", sign * (street.half - 2.6 + float(rng.normal(0, 0.2))), z, turn)
                    else:
                        along = (sign == street.traffic) or street.one_way
                        turn = (0.0 if along else math.pi) + float(rng.normal(0, 0.03))
                        self.vehicle(kind, sign * (street.half - 1.0), z, turn)
                z += 2.55 if street.is_square else 5.3 + float(rng.exponential(0.5))

    def parked(self, kind: str, u: float, z: float, heading: float) -> None:
        """Queue a vehicle at right angles to the street: it needs its breadth of room, not its length."""
        at = self.street.at(u, z)
        if z > 42 or not self.plan.camera.is_visible(at, 4.0) or not self.free(at, 1.1):
            return
        self.plan.vehicle(kind, at, heading + self.street.heading(z))

    def _trams(self) -> None:
        rng, street = self.rng, self.street
        if not street.tram or rng.random() > 0.85:
            return
        direction = int(rng.choice([-1, 1]))
        self.vehicle("train", direction * street.traffic * 1.6, float(rng.uniform(22, 60)), 0.0 if direction > 0 else math.pi)

    def _rider(self, kind: str, u: float, z: float, heading: float) -> None:
        at = self.street.at(u, z)
        if not self.plan.camera.is_visible(at, 1.5) or not self.free(at, 0.9):
            return
        turn = heading + self.street.heading(z)
        plan = self.plan
        plan.add(
            math.hypot(*at),
            lambda: draw_rider(plan.canvas, plan.camera, self.rng, kind, at, turn, plan.light),
            Extent(at, 1.1, 2.1),
        )

    def _riders(self) -> None:
        rng, street = self.rng, self.street
        for _ in range(int(rng.poisson(1.2 * self.density + 0.6 * street.bike_lane))):
            direction = int(rng.choice([-1, 1]))
            sign = direction * street.traffic
            bay = street.parking[0] if sign < 0 else street.parking[1]
            u = sign * max(0.4, street.half - bay - float(rng.uniform(0.6, 1.6)))
            kind = "bicycle" if rng.random() < 0.75 else "motorcycle"
            z = 3.5 + float(rng.gamma(1.6, 7.0))
            self._rider(kind, u, z, (0.0 if direction > 0 else math.pi) + float(rng.normal(0, 0.1)))

    def _walk(self, side: Side) -> tuple[float, float]:
        """Range of u (unsigned) that people may walk."""
        start = self.street.half + side.verge + 0.4
        return start, max(start + 0.5, side.building_line - 0.3)

    def _people(self, side: Side) -> None:
        rng = self.rng
        low, high = self._walk(side)
        busy = BUSY[self.street.kind]
        for _ in range(int(rng.poisson(busy * self.density * 0.8))):
            z = 4 + float(rng.gamma(1.8, 11.0))
            u = side.sign * float(rng.uniform(low, high))
            if z > self.street.end:
                continue
            heading = float(rng.choice([0, math.pi])) if rng.random() < 0.8 else float(rng.uniform(0, 2 * math.pi))
            self._group(u, z, heading, (0.72, 0.22, 0.06))

    def _group(self, u: float, z: float, heading: float, shares: tuple[float, float, float]) -> None:
        """One to three people beside each other; shares: how often each number comes."""
        for k in range(int(self.rng.choice([1, 2, 3], p=shares))):
            self._person(u + 0.6 * k, z + float(self.rng.normal(0, 0.2)), heading)

    def _person(self, u: float, z: float, heading: float) -> None:
        at = self.street.at(u, z)
        if z > 75 or not self.plan.camera.is_visible(at, 0.6) or not self.free(at, 0.25):
            return
        plan = self.plan
        plan.add(
            math.hypot(*at),
            lambda: draw_person(plan.canvas, plan.camera, self.rng, at, heading, plan.light),
            Extent(at, 0.8, 2.3),
        )

    def _crossing_people(self) -> None:
        rng, street = self.rng, self.street
        for junction in street.junctions[:2]:
            if junction.z0 < 9:
                continue
            for _ in range(int(rng.poisson(0.7 * self.density))):
                z = junction.z0 - float(rng.uniform(0.8, 3.4))
                self._person(float(rng.uniform(-street.half, street.half)), z, float(rng.choice([-1, 1])) * math.pi / 2)
        if rng.random() < 0.2:
            self._person(float(rng.uniform(-street.half, street.half)), float(rng.uniform(8, 40)), math.pi / 2)

    def _straying_people(self) -> None:
        rng, street = self.rng, self.street
        for _ in range(int(rng.poisson(STRAYING[street.kind] * self.density))):
            u, z = float(rng.uniform(-street.half, street.half)), 3.5 + float(rng.gamma(1.8, 8.0))
            heading = float(rng.uniform(0, 2 * math.pi))
            if z > street.end:
                continue
            self._group(u, z, heading, (0.7, 0.24, 0.06))

    def _verge_trees(self, side: Side) -> None:
        rng = self.rng
        chance = {"avenue": 0.8, "residential": 0.5, "arterial": 0.45, "downtown": 0.4, "car_park": 0.5, "village": 0.45}.get(
            self.street.kind, 0.25
        )
        if rng.random() > chance:
            return
        gap, height = float(rng.uniform(7, 20)), float(rng.uniform(5, 15))
        u = self.street.half + (side.verge / 2 + 0.2 if side.verge > 0 else 0.6)
        z = float(rng.uniform(0, gap))
        while z < min(self.street.end, 110):
            if not self.street.in_junction(z, side.sign, 3) and rng.random() < 0.85:
                at = self.street.at(side.sign * u, z)
                if self.free(at, 0.5):
                    self.plan.tree(at, height * float(rng.uniform(0.75, 1.2)))
            z += gap

    def _street_lights(self, side: Side) -> None:
        rng = self.rng
        if rng.random() < 0.25:
            return
        gap = float(rng.uniform(16, 34))
        z = float(rng.uniform(2, gap))
        while z < min(self.street.end, 100):
            self.thing(draw_street_light if rng.random() < 0.9 else draw_pole, side, 0.5, z, -side.sign * math.pi / 2)
            z += gap

    def thing(self, draw, side: Side, out: float, z: float, heading: float, radius: float = 0.3) -> None:  # type: ignore[no-untyped-def]
        """Queue furniture `out` metres outside the kerb; out of junctions."""
        if self.street.in_junction(z, side.sign, 0.5):
            return
        at = self.street.at(side.sign * (self.street.half + out), z)
        if z < 2.0 or not self.plan.camera.is_visible(at, 3.0) or not self.free(at, radius):
            return
        turn = heading + self.street.heading(z)
        plan = self.plan
        plan.add(
            math.hypot(*at),
            lambda: draw(plan.canvas, plan.camera, self.rng, at, turn, plan.light),
            Extent(at, *ROOM.get(draw, (1.2, 9.5))),
        )

    def _furniture(self, side: Side) -> None:
        rng, end = self.rng, min(self.street.end, 80.0)
        facing = math.pi if rng.random() < 0.85 else 0.0

        def some(rate: float) -> int:
            return int(rng.poisson(rate * (0.6 + 0.4 * self.density)))

        def spot() -> float:
            return min(end, 5 + float(rng.gamma(1.7, 12.0)))

        for _ in range(some(2.4)):
            self.thing(draw_traffic_sign, side, float(rng.uniform(0.3, 0.9)), spot(), facing + float(rng.normal(0, 0.25)))
        for _ in range(some(0.9)):
            self.thing(draw_pole, side, float(rng.uniform(0.3, max(0.5, side.building_line - self.street.half - 0.3))), spot(), 0.0)
        for _ in range(some(0.6)):
            self.thing(draw_bin, side, float(rng.uniform(0.5, 1.5)), spot(), side.sign * math.pi / 2)
        if rng.random() < 0.28:  # a row of bollards
            start = spot()
            for k in range(int(rng.integers(3, 10))):
                self.thing(draw_bollard, side, 0.35, start + 1.7 * k, 0.0)
        if rng.random() < 0.14:
            self.thing(
                draw_bus_stop, side, max(1.3, side.building_line - self.street.half - 1.2), 6 + spot(), -side.sign * math.pi / 2, 1.5
            )
        back = max(1.2, side.building_line - self.street.half)
        for draw, rate in ((draw_billboard, 0.12), (draw_totem, 0.16), (draw_banner, 0.12), (draw_advertising_column, 0.05)):
            if rng.random() < rate:
                self.thing(draw, side, max(0.9, back * float(rng.uniform(0.4, 1.0))), 5 + spot(), facing + float(rng.normal(0, 0.3)), 0.8)
        for z0, z1, kind in side.plots:  # shops hang their names over the pavement
            if kind == "terrace" and rng.random() < 0.6:
                for z in np.arange(max(4.0, z0 + 2), min(z1, 60.0), float(rng.uniform(4, 14))).tolist():
                    self.thing(draw_hanging_sign, side, back - 0.1, z + float(rng.uniform(0, 2)), -side.sign * math.pi / 2, 0.05)
        if rng.random() < 0.26:
            start = spot() + 3
            for k in range(int(rng.integers(1, 4))):
                self.thing(draw_guard_rail, side, 0.3, start + 8.2 * k, 0.0, 0.1)
        for _ in range(some(0.9 if self.street.kind == "bazaar" else 0.45)):  # parked bicycles and motorcycles
            start, kind = spot(), "bicycle" if rng.random() < 0.7 else "motorcycle"
            across = max(0.8, side.building_line - self.street.half - 0.8) if rng.random() < 0.5 else 0.8
            for k in range(int(rng.integers(1, 7))):
                if not self.street.in_junction(start, side.sign, 1):
                    u = side.sign * (self.street.half + across)
                    self.vehicle(kind, u, start + 1.6 * k, math.pi / 2 * float(rng.choice([0, 1])) + float(rng.normal(0, 0.3)))

    def _oddities(self) -> None:
        """Carts and animals where streets are lively, trolleys where people shop, masts of power lines."""
        rng, street = self.rng, self.street
        lively = {"bazaar": 1.6, "village": 1.0, "old_town": 0.1, "highstreet": 0.1}.get(street.kind, 0.03)
        for draw, rate in (
            (draw_cart, 1.2 * lively), (draw_animal, 0.8 * lively), (draw_trolley, 0.9 if street.kind == "car_park" else 0.03),
        ):  # fmt: skip
            for _ in range(int(rng.poisson(rate))):
                side = street.sides[int(rng.integers(2))]
                out = float(rng.uniform(-1.2, max(0.5, side.building_line - street.half)))
                self.thing(draw, side, out, 4 + float(rng.gamma(1.8, 8.0)), float(rng.uniform(-math.pi, math.pi)), 0.8)
        if rng.random() < {"arterial": 0.2, "village": 0.25, "bazaar": 0.1}.get(street.kind, 0.03):
            side = street.sides[int(rng.integers(2))]
            self.thing(draw_pylon, side, side.building_line - street.half + float(rng.uniform(2, 30)), float(rng.uniform(25, 90)), 0.3, 2.0)

    def _wires(self) -> None:
        """Poles along one side with wires from one to the next; wires colour what lies behind, the label stays."""
        rng, street, plan = self.rng, self.street, self.plan
        if rng.random() > {"bazaar": 0.7, "village": 0.6, "residential": 0.25}.get(street.kind, 0.07):
            return
        side = street.sides[int(rng.integers(2))]
        gap, height, num = float(rng.uniform(18, 36)), float(rng.uniform(6.0, 9.0)), int(rng.integers(2, 6))
        out = float(rng.uniform(0.3, max(0.4, side.building_line - street.half)))
        places = [float(rng.uniform(-20, 4)) + gap * k for k in range(6)]
        for z in places:
            at = street.at(side.sign * (street.half + out), z)
            if z > 2.0 and plan.camera.is_visible(at, 3.0):
                draw = partial(draw_pole, plan.canvas, plan.camera, rng, at, 0.0, plan.light, height_m=height + 0.3)
                plan.add(math.hypot(*at), draw, Extent(at, 1.0, height + 1.0))
        for a, b in pairwise(places):
            (x0, z0), (x1, z1) = (street.at(side.sign * (street.half + out), z) for z in (max(a, -2.0), b))
            if b > 1.0:
                plan.add(math.hypot(x0, z0), partial(self._wire, (x0, z0), (x1, z1), height, num))

    def _wire(self, p: tuple[float, float], q: tuple[float, float], height: float, num: int) -> None:
        shares = [i / 5 for i in range(6)]
        color = tuple(45 * self.plan.light.ambient for _ in range(3))
        for k in range(num):
            y, across, sag = height - 0.35 * (k // 2), 0.35 * (k % 2), 0.5 + 0.12 * k
            points = [(p[0] + (q[0] - p[0]) * t + across, y - 4 * sag * t * (1 - t), p[1] + (q[1] - p[1]) * t) for t in shares]
            inside = self.plan.camera.to_camera(np.array(points))
            pixels = self.plan.camera.camera_to_pixel(inside).tolist()
            for i in range(5):
                if min(inside[i, 2], inside[i + 1, 2]) > 0.6:
                    width = 0.03 * self.plan.camera.pixels_per_metre(float(inside[i, 2]))
                    self.plan.canvas.line(pixels[i], pixels[i + 1], min(1.2, max(0.3, width)), (color[0], color[1], color[2]))

    def _junction_signals(self) -> None:
        rng, street = self.rng, self.street
        for junction in street.junctions[:3]:
            if rng.random() > (0.75 if len(junction.sides) == 2 else 0.4):
                continue
            z = junction.z0 - float(rng.uniform(0.6, 2.0))
            for side in street.sides:
                if rng.random() < 0.9:
                    self.thing(draw_traffic_light, side, 0.45, z, math.pi + float(rng.normal(0, 0.15)))
                if rng.random() < 0.6:
                    self.thing(draw_traffic_light, side, 0.45, junction.z1 + 1.0, float(rng.choice([math.pi, 0.0, math.pi / 2])))
        if rng.random() < 0.3:  # a crossing with lights
            z = float(rng.uniform(6, 40))
            for side in street.sides:
                self.thing(draw_traffic_light, side, 0.45, z, math.pi)
