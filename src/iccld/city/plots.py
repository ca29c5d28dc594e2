"""What stands behind the pavement: terraces, houses with gardens, blocks, parks, walls, car parks, building sites."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from iccld.city.buildings import House, Point
from iccld.city.camera import bounded
from iccld.city.canvas import VOID
from iccld.city.culling import Extent
from iccld.city.facade_style import FacadeStyle, make_style
from iccld.city.ground import GRASS, LOT, PAVING, SOIL
from iccld.city.layout import Side
from iccld.city.plan import Plan, Rgb
from iccld.city.solid import Stage, box
from iccld.city.texture import hsv


def plan_plots(plan: Plan, night: float) -> None:
    """Fill both sides of the street and its end."""
    for side in plan.street.sides:
        for z0, z1, kind in side.plots:
            if z1 < -8:
                continue
            PLOTS[kind](plan, side, z0, z1, night)
    _close_street(plan, night)


def _front(plan: Plan, side: Side, u: float, z0: float, z1: float) -> tuple[Point, Point]:
    p, q = plan.street.at(side.sign * u, z0), plan.street.at(side.sign * u, z1)
    return (p, q) if side.sign < 0 else (q, p)


def _make_house(
    plan: Plan, front: tuple[Point, Point], style: FacadeStyle, floors: int, roof: str, back: float, roof_color: tuple[float, float, float]
) -> House:
    rng = plan.rng
    awning = None
    if style.shop and rng.random() < 0.34:
        awning = hsv(float(rng.uniform(0, 360)), float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.25, 0.85)))
    height = style.floor_height * floors + (0.5 if roof != "flat" else 0.9)
    return House(
        front, back, height, style, roof, float(rng.uniform(1.8, 4.2)), roof_color,
        bool(roof != "flat" and rng.random() < 0.6), awning,
    )  # fmt: skip


def _roof_color(rng: np.random.Generator) -> tuple[float, float, float]:
    if rng.random() < 0.55:
        return hsv(float(rng.uniform(200, 250)), float(rng.uniform(0, 0.12)), float(rng.uniform(0.22, 0.45)))
    return hsv(float(rng.uniform(6, 24)), float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.32, 0.6)))


def _terrace(plan: Plan, side: Side, z0: float, z1: float, night: float) -> None:
    rng = plan.rng
    setback = float(rng.choice([0.0, rng.uniform(0.6, 3.0)], p=[0.75, 0.25]))
    line = side.building_line + setback
    plan.patches.append((side.sign, side.building_line - 0.05, line + 16, z0, z1, PAVING if setback < 1.5 or rng.random() < 0.5 else GRASS))
    if setback > 1.0 and rng.random() < 0.7:
        kind = str(rng.choice(["railing", "wall", "hedge", "railed", "hedged"], p=[0.2, 0.38, 0.12, 0.2, 0.1]))
        plan.barrier(side, side.building_line + 0.1, z0, z1, kind, float(rng.uniform(0.6, 1.5)))
    style = make_style(rng, "terrace", plan.world, night)
    floors, roof, color = int(rng.choice([2, 3, 4, 5], p=[0.3, 0.4, 0.2, 0.1])), "pitched", _roof_color(rng)
    arcade = 0.0
    if setback == 0 and rng.random() < {"bazaar": 0.35, "highstreet": 0.14, "old_town": 0.16}.get(plan.street.kind, 0.05):
        arcade = min(float(rng.uniform(1.2, 2.8)), max(1.0, side.sidewalk - 0.3))
    z, party, last_out = z0, 0.0, line
    while z < z1 - 2:
        # Far houses shrink to slivers: fewer and wider ones look the same.
        width = min(float(rng.uniform(4.5, 10)) * (1.0 + max(0.0, z - 45.0) / 40.0), z1 - z)
        if z1 - z - width < 3:
            width = z1 - z
        if rng.random() < 0.65:
            style = make_style(rng, "terrace", plan.world, night)
            floors = int(bounded(floors + int(rng.integers(-1, 2)), 2, 6))
            roof = str(rng.choice(["pitched", "gable", "flat"], p=[0.6, 0.14, 0.26]))
            color = _roof_color(rng)
        out = line + (float(rng.uniform(0, 0.6)) if rng.random() < 0.2 else 0.0)
        house = _make_house(plan, _front(plan, side, out, z, z + width), style, floors, roof, 10.0, color)
        # A neighbour hides the end wall only where both fronts are in line.
        plan.house(replace(house, party=party if abs(out - last_out) < 0.05 else 0.0))
        if arcade and z < 50:
            pale = _pale(rng)
            plan.roof(house.front, arcade, style.floor_height * 0.95, float(rng.uniform(2.5, 5.0)), (pale, pale))
        party, last_out = house.height, out
        z += width


def _houses(plan: Plan, side: Side, z0: float, z1: float, night: float) -> None:
    rng = plan.rng
    setback = float(rng.uniform(2.5, 8.0))
    line = side.building_line
    plan.patches.append((side.sign, line - 0.05, line + 30, z0, z1, GRASS if rng.random() < 0.65 else PAVING))
    kinds = ["wall", "hedge", "picket", "railing", "wood", "panels", "railed", "hedged", "none"]
    kind = str(rng.choice(kinds, p=[0.28, 0.16, 0.06, 0.07, 0.05, 0.05, 0.08, 0.08, 0.17]))
    style, color = make_style(rng, "houses", plan.world, night), _roof_color(rng)
    z, floors = z0, int(rng.choice([1, 2, 3], p=[0.12, 0.68, 0.2]))
    while z < z1 - 4:
        width = min(float(rng.uniform(6, 11)) * (1.0 + max(0.0, z - 50.0) / 60.0), z1 - z)
        if rng.random() < 0.4:
            style, color = make_style(rng, "houses", plan.world, night), _roof_color(rng)
        roof = str(rng.choice(["pitched", "gable"], p=[0.6, 0.4]))
        plan.house(_make_house(plan, _front(plan, side, line + setback, z, z + width), style, floors, roof, 8.0, color))
        drive = z + float(rng.uniform(0, max(0.1, width - 3)))
        if setback > 4.5 and rng.random() < 0.5:
            plan.patches.append((side.sign, line - 0.05, line + setback, drive, drive + 3, PAVING))
            if rng.random() < 0.6:
                at = plan.street.at(side.sign * (line + setback - 2.4), drive + 1.5)
                plan.vehicle("car", at, side.sign * np.pi / 2)
            if kind != "none":
                plan.barrier(side, line + 0.15, z, max(z + 0.3, drive), kind, float(rng.uniform(0.7, 1.6)))
                plan.barrier(side, line + 0.15, drive + 3, max(drive + 3.3, z + width), kind, float(rng.uniform(0.7, 1.6)))
        elif kind != "none":
            plan.barrier(side, line + 0.15, z, z + width, kind, float(rng.uniform(0.7, 1.6)))
        for _ in range(int(rng.integers(0, 3))):
            at = plan.street.at(side.sign * (line + float(rng.uniform(0.6, setback))), z + float(rng.uniform(0, width)))
            is_tree = rng.random() < 0.35
            plan.tree(at, float(rng.uniform(3.5, 8) if is_tree else rng.uniform(0.8, 2.2)), "tree" if is_tree else "bush")
        gap = float(rng.choice([0.0, rng.uniform(1.0, 4.0)]))
        if gap and rng.random() < 0.5:
            plan.tree(plan.street.at(side.sign * (line + setback + 9), z + width), float(rng.uniform(6, 13)), behind=300)
        z += width + gap


def _blocks(plan: Plan, side: Side, z0: float, z1: float, night: float) -> None:
    rng = plan.rng
    setback = float(rng.choice([0.0, rng.uniform(1, 10)], p=[0.5, 0.5]))
    line = side.building_line + setback
    ground = PAVING if rng.random() < 0.55 or setback < 2 else GRASS
    plan.patches.append((side.sign, side.building_line - 0.05, line + 25, z0, z1, ground))
    z = z0
    while z < z1 - 4:
        width = min(float(rng.uniform(14, 42)), z1 - z)
        style = make_style(rng, "blocks", plan.world, night)
        floors = int(bounded(rng.gamma(3.0, 1.9), 2, 16))
        plan.house(_make_house(plan, _front(plan, side, line, z, z + width), style, floors, "flat", 18.0, _roof_color(rng)))
        z += width + float(rng.choice([0.0, rng.uniform(2, 9)]))
    if setback > 2.5:
        for z in np.arange(z0 + 2, z1, float(rng.uniform(6, 14))).tolist():
            if rng.random() < 0.6:
                plan.tree(plan.street.at(side.sign * (side.building_line + setback * 0.5), z), float(rng.uniform(4, 10)))
        if rng.random() < 0.35:
            plan.barrier(
                side, side.building_line + 0.2, z0, z1, str(rng.choice(["hedge", "railing", "wall"])), float(rng.uniform(0.6, 1.4))
            )


def _woods(plan: Plan, side: Side, u0: float, u1: float, z0: float, z1: float, density: float) -> None:
    rng = plan.rng
    count = int(bounded((z1 - max(z0, 0)) * density, 0, 20))
    kind = "conifer" if rng.random() < 0.15 else "tree"
    low = float(rng.uniform(6, 11))
    for _ in range(count):
        at = plan.street.at(side.sign * float(rng.uniform(u0, u1)), float(rng.uniform(max(z0, 0), z1)))
        plan.tree(at, low * float(rng.uniform(0.8, 1.8)), kind)


def _park(plan: Plan, side: Side, z0: float, z1: float, night: float) -> None:
    rng = plan.rng
    line = side.building_line
    plan.patches.append((side.sign, line - 0.05, line + 120, z0, z1, GRASS if rng.random() < 0.8 else SOIL))
    kind = str(rng.choice(["railing", "wall", "hedge", "mesh", "railed", "panels", "none"], p=[0.2, 0.18, 0.12, 0.06, 0.08, 0.04, 0.32]))
    if kind != "none":
        plan.barrier(side, line + 0.2, z0, z1, kind, float(rng.uniform(0.7, 1.9)))
    _woods(plan, side, line + 1.5, line + 22, z0, z1, float(rng.choice([0.15, 0.4, 0.9])))
    if rng.random() < 0.6:  # a thicket closes the view
        _woods(plan, side, line + 20, line + 48, z0, z1, 0.3)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(2, 7))):
            at = plan.street.at(side.sign * (line + float(rng.uniform(0.8, 8))), float(rng.uniform(max(1, z0), max(2, z1))))
            plan.tree(at, float(rng.uniform(0.8, 2.6)), "bush")
    if rng.random() < 0.6:  # houses look over the trees
        style = make_style(rng, str(rng.choice(["houses", "blocks"])), plan.world, night)
        front = _front(plan, side, line + float(rng.uniform(26, 50)), z0, z1)
        plan.house(_make_house(plan, front, style, int(rng.integers(2, 6)), "pitched", 10.0, _roof_color(rng)), behind=120)


def _wall(plan: Plan, side: Side, z0: float, z1: float, night: float) -> None:
    rng = plan.rng
    line = side.building_line
    plan.patches.append((side.sign, line - 0.05, line + 80, z0, z1, GRASS))
    plan.barrier(side, line + 0.1, z0, z1, "wall", float(rng.uniform(0.9, 3.6)))
    _woods(plan, side, line + 2, line + 12, z0, z1, 0.25)
    if rng.random() < 0.5:
        style = make_style(rng, "houses", plan.world, night)
        front = _front(plan, side, line + float(rng.uniform(10, 24)), z0, z1)
        plan.house(_make_house(plan, front, style, int(rng.integers(2, 5)), "pitched", 10.0, _roof_color(rng)), behind=60)


def _lot(plan: Plan, side: Side, z0: float, z1: float, night: float) -> None:
    rng = plan.rng
    line, deep = side.building_line, float(rng.uniform(16, 32))
    plan.patches.append((side.sign, line - 0.05, line + deep + 10, z0, z1, LOT))
    if rng.random() < 0.5:
        plan.patches.append((side.sign, line - 0.05, line + 2.0, z0, z1, GRASS))
    if rng.random() < 0.6:
        kind = str(rng.choice(["mesh", "railing", "hedge", "panels", "wall"]))
        plan.barrier(side, line + 0.2, z0, z1, kind, float(rng.uniform(0.8, 2.0)))
    _rows_of_cars(plan, side, line + 4.5, line + 14, z0, z1)
    style = make_style(rng, "blocks", plan.world, night)
    plan.house(
        _make_house(plan, _front(plan, side, line + deep, z0, z1), style, int(rng.integers(1, 4)), "flat", 18.0, _roof_color(rng)),
        behind=40,
    )
    if rng.random() < 0.6:
        _woods(plan, side, line + deep, line + deep + 20, z0, z1, 0.5)


def _pale(rng: np.random.Generator) -> Rgb:
    """White, grey or a pale colour: of columns and canopies."""
    return hsv(float(rng.uniform(0, 360)), float(rng.uniform(0, 0.15)), float(rng.uniform(0.5, 0.97)))


def _rows_of_cars(plan: Plan, side: Side, first: float, last: float, z0: float, z1: float) -> None:
    """Cars side by side in rows along the street, between first and last metres from its middle."""
    rng, row = plan.rng, first
    while row < last:
        z, full = max(1.0, z0 + 1.5), float(rng.uniform(0.25, 0.85))
        while z < min(z1 - 1, 36):
            at = plan.street.at(side.sign * row, z)
            if rng.random() < full and plan.camera.is_visible(at, 3):
                plan.vehicle("car", at, side.sign * np.pi / 2 * float(rng.choice([-1, 1])))
            z += 2.6
        row += 8.0 + 0.25 * row  # rows behind rows are hardly seen


def _market(plan: Plan, side: Side, z0: float, z1: float, night: float) -> None:
    """A supermarket: low, wide, glass behind columns under a canopy; cars in front."""
    rng, line = plan.rng, side.building_line
    setback = float(rng.choice([rng.uniform(2.5, 5), rng.uniform(9, 26)]))
    plan.patches.append((side.sign, line - 0.05, line + setback + 25, z0, z1, LOT))
    plan.patches.append((side.sign, line + setback - 3.0, line + setback + 2, z0, z1, PAVING))
    if setback > 8:
        _rows_of_cars(plan, side, line + 3, line + setback - 5, z0, z1)
        if rng.random() < 0.4:
            plan.barrier(side, line + 0.2, z0, z1, str(rng.choice(["hedge", "railing", "wall"])), float(rng.uniform(0.5, 1.1)))
    style = make_style(rng, "blocks", plan.world, night)
    style = replace(
        style, shop=True, front="glazed", floor_height=float(rng.uniform(3.8, 6.0)), material=str(rng.choice(_SHEDS)), clutter=2
    )
    front = _front(plan, side, line + setback, z0, z1)
    house = _make_house(plan, front, style, 1, "flat" if rng.random() < 0.75 else "pitched", 22.0, _roof_color(rng))
    plan.house(house, behind=3)
    if rng.random() < 0.8:
        gap = float(rng.choice([0.0, rng.uniform(3.0, 7.0)], p=[0.2, 0.8]))
        colors = (_pale(rng), _pale(rng) if rng.random() < 0.5 else hsv(float(rng.uniform(0, 360)), 0.7, 0.7))
        plan.roof(
            front,
            float(rng.uniform(1.5, 3.2)),
            min(house.height - 0.6, float(rng.uniform(2.9, 4.5))),
            gap,
            colors,
            float(rng.uniform(0.2, 0.9)),
        )


_SHEDS = ("concrete", "metal", "brick", "render")


def _station(plan: Plan, side: Side, z0: float, z1: float, night: float) -> None:
    """A filling station: a roof on columns over pumps and cars, a shop behind."""
    rng, line = plan.rng, side.building_line
    plan.patches.append((side.sign, line - 0.05, line + 34, z0, z1, LOT))
    if rng.random() < 0.5:
        plan.patches.append((side.sign, line - 0.05, line + 1.5, z0, z1, GRASS if rng.random() < 0.5 else PAVING))
    style = replace(make_style(rng, "blocks", plan.world, night), shop=True, front="glazed", floor_height=3.4, material="render")
    plan.house(_make_house(plan, _front(plan, side, line + 24, z0, z1), style, 1, "flat", 10.0, _roof_color(rng)), behind=20)
    start = z0 + float(rng.uniform(1, max(1.1, z1 - z0 - 16)))
    stop, back = min(z1, start + float(rng.uniform(10, 22))), line + float(rng.uniform(13, 18))
    color = hsv(float(rng.uniform(0, 360)), float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.5, 0.95)))
    plan.roof(
        _front(plan, side, back, start, stop), 9.0, float(rng.uniform(4.2, 5.2)), 6.0, (_pale(rng), color), float(rng.uniform(0.7, 1.2))
    )
    for z in np.arange(start + 2, stop, 4.5).tolist():
        at = plan.street.at(side.sign * (back - 5), z)
        if at[1] > 1.5:
            plan.add(math.hypot(*at), partial(_pump, plan, at, color), Extent(at, 0.8, 2.0))
        if rng.random() < 0.5:
            plan.vehicle("car", plan.street.at(side.sign * (back - 5 + float(rng.choice([-2.2, 2.2]))), z), float(rng.normal(0, 0.1)))


def _pump(plan: Plan, at: Point, color: Rgb) -> None:
    """A fuel pump: void, no class holds it."""
    stage = Stage(plan.canvas, plan.camera, at, plan.street.heading(at[1]), plan.light)
    if stage.depth > 1.0:
        faces = box(-0.25, 0.25, 0.1, 1.5, -0.4, 0.4, color) + box(-0.27, 0.27, 1.5, 1.9, -0.42, 0.42, (232, 232, 228), 0.1)
        stage.paint([*faces, *box(-0.26, 0.26, 0.9, 1.3, -0.3, 0.3, (40, 42, 46))], VOID)


def _works(plan: Plan, side: Side, z0: float, z1: float, night: float) -> None:
    rng = plan.rng
    line = side.building_line
    plan.patches.append((side.sign, line - 0.05, line + 30, z0, z1, SOIL))
    plan.barrier(side, line + 0.1, z0, z1, str(rng.choice(["hoarding", "mesh", "wood"], p=[0.6, 0.25, 0.15])), float(rng.uniform(1.8, 2.6)))
    style = make_style(rng, "blocks", plan.world, night)
    plan.house(_make_house(plan, _front(plan, side, line + 4, z0, z1), style, int(rng.integers(2, 7)), "flat", 15.0, _roof_color(rng)))


def _close_street(plan: Plan, night: float) -> None:
    """Where the street ends: a cross street with houses, or trees, or nothing but the horizon."""
    rng, street = plan.rng, plan.street
    if street.end > 170 and rng.random() < 0.7:
        return
    z = street.end + float(rng.uniform(6, 16))
    if rng.random() < (0.75 if street.kind in {"arterial", "car_park", "village"} else 0.35):
        for _ in range(14):
            plan.tree(street.at(float(rng.uniform(-45, 45)), z + float(rng.uniform(0, 12))), float(rng.uniform(7, 17)))
        return
    u = -60.0
    style = make_style(rng, "terrace", plan.world, night)
    while u < 60:
        width = float(rng.uniform(7, 18))
        if rng.random() < 0.6:
            style = make_style(rng, str(rng.choice(["terrace", "blocks"])), plan.world, night)
        front = (street.at(u, z), street.at(u + width, z))
        roof = str(rng.choice(["pitched", "flat", "gable"]))
        plan.house(_make_house(plan, front, style, int(rng.integers(2, 6)), roof, 10.0, _roof_color(rng)), behind=20)
        u += width


PLOTS: dict[str, Callable[[Plan, Side, float, float, float], None]] = {
    "terrace": _terrace,
    "houses": _houses,
    "blocks": _blocks,
    "park": _park,
    "wall": _wall,
    "lot": _lot,
    "works": _works,
    "market": _market,
    "station": _station,
}
