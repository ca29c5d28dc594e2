"""What a scene will hold, collected before anything is painted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from iccld.city.barriers import draw_fence, draw_hoarding, draw_wall
from iccld.city.buildings import House, Point, draw_house
from iccld.city.camera import Camera
from iccld.city.canopies import column_places, draw_column, draw_roof
from iccld.city.canvas import Canvas
from iccld.city.culling import Extent, Room, Wall
from iccld.city.dice import Dice
from iccld.city.layout import Side, Street
from iccld.city.light import Light
from iccld.city.vegetation import Season, draw_hedge, draw_tree
from iccld.city.vehicles import draw_vehicle

Draw = Callable[[], None]
Rgb = tuple[float, float, float]
_OPAQUE = ("wall", "wood", "panels", "hoarding")
Patch = tuple[int, float, float, float, float, int]


@dataclass
class Plan:
    """Collects what a scene will hold before anything is painted.

    items: (distance in metres, draw, the room it takes: see culling); painted from the largest distance to the smallest.
    patches: ground of the plots.
    houses and trees ((x, z), height) cast shadows.
    """

    canvas: Canvas
    camera: Camera
    street: Street
    light: Light
    season: Season
    world: str
    rng: np.random.Generator
    items: list[tuple[float, Draw, Room]] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    houses: list[House] = field(default_factory=list)
    trees: list[tuple[Point, float]] = field(default_factory=list)

    def add(self, distance: float, draw: Draw, room: Room = None) -> None:
        """Queue something `distance` metres away; without a `room` it is drawn even when nobody can see it."""
        self.items.append((distance, draw, room))

    def house(self, house: House, behind: float = 0.0) -> None:
        """Queue a building, unless it is wholly behind the camera."""
        (x0, z0), (x1, z1) = house.front
        if max(z0, z1) < -3:
            return
        self.houses.append(house)
        far = max(math.hypot(x0, z0), math.hypot(x1, z1))
        self.add(far + behind, lambda: draw_house(self.canvas, self.camera, self.rng, house, self.light), house)

    def tree(self, position: Point, height: float, kind: str = "tree", behind: float = 0.0) -> None:
        """Queue a tree."""
        if position[1] < 0.8 or not self.camera.is_visible(position, height * 0.6):
            if position[1] > -6 and kind == "tree":
                self.trees.append((position, height))
            return
        if kind != "bush":
            self.trees.append((position, height))
        self.add(
            math.hypot(*position) + behind,
            lambda: draw_tree(self.canvas, self.camera, self.rng, self.season, position, height, self.light, kind),
            Extent(position, 0.6 * height, height, True),
        )

    def vehicle(self, kind: str, position: Point, heading: float) -> None:
        """Queue a vehicle that stands off the street."""
        draw = partial(draw_vehicle, self.canvas, self.camera, self.rng, kind, position, heading, self.light)
        self.add(math.hypot(*position), draw, Extent(position, 2.8, 2.2))

    def roof(self, front: tuple[Point, Point], out: float, high: float, gap: float, colors: tuple[Rgb, Rgb], thick: float = 0.35) -> None:
        """Queue a canopy `out` metres before `front`, `high` metres above the ground, on columns `gap` metres apart (0: none)."""
        p, q = front
        if max(p[1], q[1]) < 0.5:
            return
        near = min(math.hypot(*p), math.hypot(*q), math.hypot((p[0] + q[0]) / 2, (p[1] + q[1]) / 2))
        draw = partial(draw_roof, self.canvas, self.camera, p, q, out, high, thick, colors[0], colors[1], self.light)
        self.add(
            max(0.5, max(math.hypot(*p), math.hypot(*q)) - 0.2 if gap == 0 else near + 0.6 * (max(math.hypot(*p), math.hypot(*q)) - near)),
            draw,
        )
        radius = float(self.rng.uniform(0.1, 0.28))
        for place in column_places(p, q, out - radius - 0.05, gap) if gap else []:
            if place[1] > 0.8 and self.camera.is_visible(place, 1.0):
                draw = partial(draw_column, self.canvas, self.camera, self.rng, place, self.light, high, radius, colors[0])
                self.add(math.hypot(*place), draw, Extent(place, 2 * radius, high))

    def barrier(self, side: Side, u: float, z0: float, z1: float, kind: str, height: float) -> None:
        """Queue a wall, hedge or fence along the street at distance u from its middle, cut in pieces."""
        seed = int(self.rng.integers(1 << 31))
        edges = [z0]
        while edges[-1] < z1 - 3.5:  # farther pieces are longer: they need not be sorted among other things so finely
            edges.append(min(z1, edges[-1] + max(7.0, 0.35 * edges[-1])))
        for a, b in itertools.pairwise(edges):
            if b < 0.5:
                continue
            p, q = self.street.at(side.sign * u, a), self.street.at(side.sign * u, b)
            if side.sign > 0:
                p, q = q, p
            far = max(math.hypot(*p), math.hypot(*q))
            room = Wall(p, q, height if kind in _OPAQUE else 2.0 * height if kind == "hedged" else 1.12 * height, kind in _OPAQUE)
            self.add(far, partial(self._draw_barrier, p, q, kind, height, seed), room)

    def _draw_barrier(self, p: Point, q: Point, kind: str, height: float, seed: int) -> None:
        rng = Dice(seed)  # one seed, so that the pieces match
        if kind == "wall":
            draw_wall(self.canvas, self.camera, rng, p, q, height, self.light)
        elif kind == "railed":  # a low wall that carries a railing
            low = height * float(rng.uniform(0.3, 0.6))
            draw_wall(self.canvas, self.camera, rng, p, q, low, self.light)
            draw_fence(self.canvas, self.camera, rng, p, q, height - low, self.light, "railing", low)
        elif kind == "hedged":  # a low wall under a hedge
            draw_hedge(self.canvas, self.camera, rng, self.season, p, q, height * float(rng.uniform(1.1, 1.8)), self.light)
            draw_wall(self.canvas, self.camera, rng, p, q, height * float(rng.uniform(0.4, 0.7)), self.light)
        elif kind == "hoarding":
            draw_hoarding(self.canvas, self.camera, rng, p, q, height, self.light)
        elif kind == "hedge":
            draw_hedge(self.canvas, self.camera, rng, self.season, p, q, height, self.light)
        else:
            draw_fence(self.canvas, self.camera, rng, p, q, height, self.light, kind)
