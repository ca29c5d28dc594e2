"""Vehicles of a street: cars, trucks, buses, trams, and parked motorcycles and bicycles."""

from __future__ import annotations

import colorsys

import numpy as np

from iccld.city.camera import Camera
from iccld.city.canvas import Canvas
from iccld.city.car_bodies import SHAPES, Shape, Trim, car_faces, vary
from iccld.city.heavy_vehicles import draw_bus, draw_tram, draw_truck
from iccld.city.light import Light
from iccld.city.solid import Face, Rgb, Stage, box, mixed, patch, scaled
from iccld.city.street_life import draw_rickshaw
from iccld.city.two_wheelers import draw_bicycle, draw_motorcycle

KINDS = ("car", "truck", "bus", "train", "motorcycle", "bicycle", "rickshaw")
CAR = 13
_REACH_M = {"car": 4.0, "truck": 8.0, "bus": 8.0, "train": 21.0, "motorcycle": 2.0, "bicycle": 2.0, "rickshaw": 2.5}
"""Radius around a vehicle's middle that it and its shadow keep to."""

# Shares of car colours: registrations in Europe, where grey, black, white, blue, silver and red are nine cars in ten.
_PAINTS: tuple[tuple[float, Rgb], ...] = (
    (0.19, (176, 180, 184)), (0.15, (96, 100, 106)), (0.17, (22, 23, 26)), (0.15, (226, 227, 226)), (0.10, (32, 48, 98)),
    (0.04, (86, 128, 168)), (0.09, (150, 22, 28)), (0.03, (24, 62, 44)), (0.03, (150, 132, 96)), (0.02, (150, 92, 36)),
    (0.01, (214, 180, 40)), (0.02, (72, 22, 30)),
)  # fmt: skip
_SHARES = np.cumsum([share for share, _ in _PAINTS])
_SHAPE_NAMES = tuple(SHAPES)
_SHAPE_SHARES = np.cumsum([share for share, _ in SHAPES.values()])


def draw_vehicle(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, kind: str, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """Paint one vehicle standing on ground position (x, z) metres, centred there, heading as in Stage.

    kind: car, truck, bus, train, motorcycle, bicycle or rickshaw; the label is the train id of the kind, a rickshaw is a car.  ValueError
    for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown vehicle kind {kind!r}; known: {', '.join(KINDS)}")
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.is_behind or not camera.is_visible(position, _REACH_M[kind]):
        return
    DRAWINGS[kind](stage, rng)


def car_paint(rng: np.random.Generator) -> Rgb:
    """A car's colour; one in twenty is any colour at all."""
    if rng.random() < 0.05:
        r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.9))
        return (255 * r, 255 * g, 255 * b)
    color = _PAINTS[min(int(np.searchsorted(_SHARES, rng.random() * _SHARES[-1])), len(_PAINTS) - 1)][1]
    r, g, b = (np.asarray(color) + (rng.normal(0, 6, 3) + rng.normal(0, 10))).clip(8, 250).tolist()
    return (r, g, b)


def _trim(rng: np.random.Generator, name: str, light: Light) -> Trim:
    paint = car_paint(rng)
    is_taxi = rng.random() < 0.04
    if is_taxi:
        paint = ((18.0, 18.0, 20.0), (236.0, 200.0, 60.0), (238.0, 228.0, 190.0))[int(rng.integers(3))]
    if name == "van" and rng.random() < 0.6:
        paint = (228.0, 229.0, 228.0)
    night = light.night
    bumper = scaled(paint, 0.92) if rng.random() < 0.7 else (44.0, 45.0, 47.0)
    rim = float(rng.uniform(90, 190))
    return Trim(
        paint=paint,
        bumper=bumper,
        glass=scaled((38, 43, 50), float(rng.uniform(0.55, 1.15))),
        sky=mixed((205, 215, 228), (40, 44, 60), night),
        rim=(rim, rim, rim + 3),
        plate_rear=((232, 196, 40), (228, 228, 222))[int(rng.random() < 0.6)],
        strip=bool(rng.random() < 0.35),
        lamps=float(max(night, rng.random() < 0.12)),
        brakes=bool(rng.random() < 0.35),
        blind_rear=name == "van" and bool(rng.random() < 0.6),
        taxi_sign=is_taxi,
        roof_rails=name in ("estate", "suv", "mpv") and bool(rng.random() < 0.4),
        tall_lights=name in ("van", "mpv", "estate") or bool(rng.random() < 0.25),
    )


def draw_car(stage: Stage, rng: np.random.Generator) -> None:
    """One passenger car (label 13)."""
    name = _SHAPE_NAMES[min(int(np.searchsorted(_SHAPE_SHARES, rng.random() * _SHAPE_SHARES[-1])), len(_SHAPE_NAMES) - 1)]
    shape = vary(SHAPES[name][1], rng)
    trim = _trim(rng, name, stage.light)
    stage.shadow(shape.width / 2, -shape.length / 2, shape.length / 2, shape.height)
    size_px = shape.height * stage.scale
    if size_px < 20:
        stage.paint(_far_car(shape, trim, stage), CAR)
        return
    stage.paint(car_faces(shape, trim, stage.viewer, size_px > 36), CAR)
    stage.roughen(rng, CAR, 0.14)


def _far_car(shape: Shape, trim: Trim, stage: Stage) -> list[Face]:
    """A car of a few pixels: body, cabin, glass, lights."""
    half, length = shape.width / 2, shape.length
    faces = box(-half * 0.9, half * 0.9, 0.0, 0.3, -length / 2 + 0.4, length / 2 - 0.4, (16, 16, 17))
    faces += box(-half, half, shape.clear, shape.belt, -length / 2, length / 2, trim.paint)
    rear, front = -length / 2 + shape.rear_base + 0.1, length / 2 - shape.cowl - 0.3
    roof = shape.height - 0.12
    cabin = box(-half * 0.86, half * 0.86, shape.belt, roof, rear, front, trim.glass)
    faces += cabin + box(-half * 0.82, half * 0.82, roof, shape.height, rear + 0.15, front - 0.3, trim.paint)
    is_front = stage.viewer[2] > 0
    z = length / 2 if is_front else -length / 2
    panel = ((-half, 0.45, z), (half, 0.45, z), (half, shape.belt, z), (-half, shape.belt, z))
    lamp: Rgb = (235, 235, 230) if is_front else ((230, 30, 25) if trim.brakes else (150, 20, 20))
    glow = max(trim.lamps, 0.9 * trim.brakes, 0.2)
    for u in (0.0, 0.8):
        faces.append((patch(panel, u, u + 0.2, 0.4, 0.85), lamp, (0, 0.5, 0), glow))
    return faces


DRAWINGS = {
    "car": draw_car, "truck": draw_truck, "bus": draw_bus, "train": draw_tram, "motorcycle": draw_motorcycle, "bicycle": draw_bicycle,
    "rickshaw": draw_rickshaw,
}  # fmt: skip
