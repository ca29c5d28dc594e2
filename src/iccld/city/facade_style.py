"""How a house is built: materials, colours, measures, drawn at random for each kind of house."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iccld.city.texture import hsv

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class FacadeStyle:
    """How one house is built.  material: see texture.material_tile, or 'glass'.  Lengths in metres; shop: has a shopfront.

    columns: distance of pilasters, 0 none; they are part of the building, as are signs and posters on it.  clutter: number of boards,
    air conditioners and the like.  front: of a shop: glazed, panes, open, shuttered.  grime: 0 clean .. 1 stained.
    """

    material: str
    wall: Rgb
    trim: Rgb
    glass: Rgb
    floor_height: float
    window_width: float
    window_height: float
    window_gap: float
    panes: tuple[int, int]
    sill: bool
    band: bool
    shop: bool
    sign: Rgb
    shutters: Rgb | None
    balcony: bool
    lit: float
    ribbon: bool = False
    columns: float = 0.0
    clutter: int = 0
    front: str = "panes"
    arched: bool = False
    grime: float = 0.3


_HOUSE_SHARES = {True: (0.4, 0.24, 0.08, 0.08, 0.16, 0.04), False: (0.2, 0.2, 0.3, 0.15, 0.1, 0.05)}


_TERRACE_SHARES = {True: (0.42, 0.24, 0.18, 0.12, 0.04), False: (0.25, 0.2, 0.4, 0.1, 0.05)}


FRONTS = ("panes", "glazed", "open", "shuttered")


def make_style(rng: np.random.Generator, kind: str, world: str, night: float) -> FacadeStyle:
    """A random style for kind: terrace, houses, blocks, old.  The worlds differ in palette and in proportions."""
    u = rng.uniform
    sim = world == "sim"
    if kind == "blocks":
        material = str(rng.choice(["glass", "concrete", "plaster", "stone", "brick"], p=[0.24, 0.28, 0.18, 0.12, 0.18]))
    elif kind == "houses":
        material = str(rng.choice(["brick", "plaster", "stone", "wood", "render", "rubble"], p=_HOUSE_SHARES[sim]))
    else:
        material = str(rng.choice(["brick", "plaster", "stone", "render", "rubble"], p=_TERRACE_SHARES[sim]))
    trim = hsv(u(20, 60), u(0, 0.12), u(0.7, 0.97)) if rng.random() < 0.7 else hsv(u(0, 360), u(0.1, 0.5), u(0.12, 0.4))
    ribbon = bool(kind == "blocks" and rng.random() < 0.4)
    crowded = rng.random() < (0.22 if kind != "houses" else 0.06)
    return FacadeStyle(
        material=material,
        wall=_wall_color(rng, material, sim),
        trim=trim,
        glass=hsv(u(195, 225), u(0.05, 0.35), u(0.1, 0.42)),
        floor_height=float(u(2.6, 3.3) if kind == "houses" else u(2.8, 4.0)),
        window_width=float(u(0.8, 1.7) if not ribbon else u(2.5, 6)),
        window_height=float(u(1.2, 2.1)),
        window_gap=float(u(0.7, 2.0) if not ribbon else u(0.15, 0.5)),
        panes=(int(rng.choice([1, 2, 3], p=[0.3, 0.5, 0.2])), int(rng.choice([1, 2, 3], p=[0.35, 0.5, 0.15]))),
        sill=bool(rng.random() < 0.7),
        band=bool(rng.random() < 0.4),
        shop=bool(rng.random() < {"terrace": 0.72, "blocks": 0.45}.get(kind, 0.0)),
        sign=hsv(u(0, 360), u(0.2, 0.9), u(0.12, 0.85)) if rng.random() < 0.75 else hsv(0, 0, float(rng.choice([0.08, 0.92]))),
        shutters=hsv(u(0, 360), u(0.2, 0.6), u(0.2, 0.6)) if rng.random() < 0.12 else None,
        balcony=bool(kind == "blocks" and rng.random() < 0.4),
        lit=float(0.02 + 0.4 * night),
        ribbon=ribbon,
        columns=float(u(1.6, 5.0)) if rng.random() < {"terrace": 0.2, "blocks": 0.3}.get(kind, 0.05) else 0.0,
        clutter=int(u(3, 14)) if crowded else int(u(0, 3)),
        front=FRONTS[int(rng.choice(4, p=(0.25, 0.1, 0.4, 0.25) if crowded else (0.55, 0.3, 0.04, 0.11)))],
        arched=bool(not ribbon and rng.random() < 0.12),
        grime=float(u(0.0, 1.0)) ** 1.5,
    )


def _wall_color(rng: np.random.Generator, material: str, sim: bool) -> Rgb:
    u = rng.uniform
    if material == "brick":
        if rng.random() < (0.5 if sim else 0.75):
            return hsv(u(28, 44), u(0.18, 0.42), u(0.42, 0.74))  # buff
        return hsv(u(6, 20), u(0.3, 0.6), u(0.32, 0.6))
    if material == "stone":
        return hsv(u(28, 50), u(0.05, 0.28), u(0.45, 0.8))
    if material == "wood":
        return hsv(u(15, 45), u(0.1, 0.5), u(0.3, 0.8))
    if material == "concrete":
        return hsv(u(25, 220), u(0.0, 0.1), u(0.42, 0.75))
    if material == "glass":
        return hsv(u(185, 225), u(0.08, 0.4), u(0.25, 0.6))
    if material == "rubble":
        return hsv(u(24, 60), u(0.05, 0.3), u(0.35, 0.72))
    if rng.random() < 0.68:
        return hsv(u(28, 62), u(0.0, 0.2), u(0.6, 0.95))
    return hsv(u(0, 360) if sim else u(20, 60), u(0.08, 0.35), u(0.45, 0.9))
