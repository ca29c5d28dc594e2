"""One street scene from a seed: plan it, paint it back to front, photograph it."""

from __future__ import annotations

import itertools
import math
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iccld.city.buildings import draw_skyline
from iccld.city.camera import Camera
from iccld.city.canvas import VOID, Canvas
from iccld.city.culling import Cover
from iccld.city.dice import Dice
from iccld.city.ground import Ground, make_palette
from iccld.city.layout import Street, make_street
from iccld.city.light import Light, sun
from iccld.city.markings import draw_markings
from iccld.city.plan import Plan
from iccld.city.plots import plan_plots
from iccld.city.sky import Sky, draw_sky, make_sky
from iccld.city.traffic import Traffic
from iccld.city.vegetation import draw_tree_line, make_season
from iccld.city.weather import Look, add_air, make_look, photograph
from iccld.errors import ConfigError

WORLDS = ("sim", "camera", "night", "rain", "fog")
"""`sim` is the labelled source; `camera` a target that everybody can make out: day haze, a low sun, drizzle, dusk; night, rain and fog are
the same streets in these weathers."""
SKIES = ("clear", "broken", "overcast", "white", "dusk", "storm", "night")
SKY_SHARES = {
    "sim": (0.25, 0.22, 0.18, 0.26, 0.05, 0.036, 0.004),
    "camera": (0.16, 0.18, 0.22, 0.18, 0.22, 0.04, 0.0),
    "night": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "rain": (0.0, 0.0, 0.55, 0.1, 0.05, 0.3, 0.0),
    "fog": (0.0, 0.05, 0.5, 0.4, 0.05, 0.0, 0.0),
}


class Scene(NamedTuple):
    """image (H, W, 3) uint8 RGB, label (H, W) uint8 train ids of the 19 classes or 255, depth (H, W) float32 metres (sky: 655.35)."""

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]


def render_scene(world: str, seed: int, size: tuple[int, int]) -> Scene:
    """A street of `world` (one of WORLDS); size (H, W).  A pure function of its arguments.  ConfigError for an unknown world."""
    if world not in WORLDS:
        raise ConfigError(f"unknown world {world!r}; known: {', '.join(WORLDS)}")
    if min(size) < 32:
        raise ConfigError(f"a scene of {size[0]}x{size[1]} pixels is too small; use at least 32x32")
    rng = Dice([seed, zlib.crc32(world.encode())])
    camera = _make_camera(rng, world, size)
    sky_kind = SKIES[int(rng.choice(len(SKIES), p=SKY_SHARES[world]))]
    sky, light = make_sky(rng, sky_kind), _make_light(rng, sky_kind)
    street = make_street(rng, _streets_of(world))
    haze = tuple(0.75 * h + 0.25 * c for h, c in zip(sky.horizon, sky.cloud, strict=True))
    look = make_look(rng, world, sky_kind, (haze[0], haze[1], haze[2]))
    canvas = Canvas(size)
    _paint(canvas, camera, street, sky, light, look, _streets_of(world), rng)
    add_air(canvas, camera, look, rng)
    _bonnet(canvas, rng, 0.15 if world == "sim" else 0.3)
    image = photograph(canvas.color, camera, look, rng, light.direction)
    return Scene(image, canvas.label, canvas.depth)


def _streets_of(world: str) -> str:
    """The world whose streets a world shows: the weathers are those of `camera`."""
    return "sim" if world == "sim" else "camera"


def _make_camera(rng: np.random.Generator, world: str, size: tuple[int, int]) -> Camera:
    height, width = size
    view = math.radians(float(rng.uniform(48, 84) if world == "sim" else rng.uniform(45, 68)))
    # The field of view is meant for a 3:2 picture of this area, so that wide pictures see wider instead of flatter.
    reference = 0.5 * (width + 1.5 * height)
    turned = rng.random() < 0.12
    horizon = rng.normal(0.475, 0.05) if world == "sim" else rng.normal(0.40, 0.04)
    return Camera(
        focal_px=reference / 2 / math.tan(view / 2),
        cx=width * (0.5 + float(rng.normal(0, 0.015))),
        horizon_y=height * float(np.clip(horizon, 0.33, 0.62)),
        height_m=float(rng.uniform(1.1, 2.2) if world == "sim" else rng.uniform(1.2, 1.6)),
        size=size,
        yaw=float(rng.normal(0, 0.3 if turned else 0.06)),
        pitch=float(rng.normal(0, 0.015)),
        roll=float(rng.normal(0, 0.008)),
    )


def _make_light(rng: np.random.Generator, sky: str) -> Light:
    u = rng.uniform
    azimuth = float(u(-math.pi, math.pi))
    if sky in {"clear", "broken"}:
        elevation = float(u(0.25, 1.1))
        ambient = float(u(0.42, 0.66))
        return Light(sun(azimuth, elevation), ambient, float(u(0.42, 0.68)), (1.03, 1.0, float(u(0.9, 0.98))), 0.0, float(u(0.4, 0.62)))
    if sky == "dusk":
        warm = float(u(0.72, 0.9))
        return Light(
            sun(azimuth, float(u(0.1, 0.3))),
            float(u(0.36, 0.52)),
            float(u(0.2, 0.4)),
            (1.08, 0.95, warm),
            float(u(0.1, 0.5)),
            float(u(0.1, 0.4)),
        )
    if sky == "night":
        return Light(sun(azimuth, 0.8), float(u(0.2, 0.32)), 0.06, (1.1, 0.95, 0.75), 1.0, 0.0)
    if sky == "white":  # exposed for the street: a hazy sun, soft shadows
        return Light(sun(azimuth, float(u(0.3, 1.0))), float(u(0.55, 0.8)), float(u(0.15, 0.4)), (1.0, 1.0, 1.0), 0.0, float(u(0.0, 0.45)))
    return Light(sun(azimuth, float(u(0.5, 1.2))), float(u(0.6, 0.85)), float(u(0.04, 0.16)), (0.98, 1.0, 1.03), 0.0, float(u(0.0, 0.08)))


def _paint(
    canvas: Canvas, camera: Camera, street: Street, sky: Sky, light: Light, look: Look, world: str, rng: np.random.Generator
) -> None:
    draw_sky(canvas, camera, rng, sky)
    season = make_season(rng, world)
    if rng.random() < 0.5:
        draw_skyline(canvas, camera, rng, light, look.haze_color, float(rng.uniform(220, 420)))
    if rng.random() < 0.8:
        draw_tree_line(canvas, camera, rng, season, light, look.haze_color, float(rng.uniform(150, 350)))
    plan = Plan(canvas, camera, street, light, season, world, rng)
    plan_plots(plan, light.night)
    density = float(np.clip(rng.gamma(4.0, 0.25), 0.25, 2.2))
    Traffic(plan, density).place()
    ground = Ground(canvas, camera, street, make_palette(rng, world), light, rng)
    ground.base(plan.patches)
    draw_markings(ground, rng, world)
    _cast_shadows(ground, plan)
    ground.finish(look.wet)
    cover = Cover(camera)
    items = sorted(plan.items, key=lambda item: item[0])
    seen = [draw for _, draw, room in items if cover.admit(room)]
    for draw in reversed(seen):
        draw()


def _cast_shadows(ground: Ground, plan: Plan) -> None:
    if ground.light.shadow < 0.03:
        return
    for house in plan.houses:
        (x0, z0), (x1, z1) = house.front
        if min(z0, z1) > 70:
            continue
        ground.cast([(x0, 0.0, z0), (x1, 0.0, z1), (x0, house.height, z0), (x1, house.height, z1)])
    bare = plan.season.bare > 0.5
    turn = [2 * math.pi * i / 7 for i in range(7)]
    for (x, z), height in plan.trees:
        if z > 32 or not plan.camera.is_visible((x, z), 2.5 * height):
            continue
        ground.cast([(x - 0.15, 0.0, z), (x + 0.15, 0.0, z), (x + 0.1, height * 0.5, z), (x - 0.1, height * 0.5, z)])
        if bare:  # branches, not a crown
            for angle in turn[::2] if z < 20 else ():
                dx, dz = 0.35 * height * math.cos(angle), 0.35 * height * math.sin(angle)
                ground.cast([(x, height * 0.35, z), (x + 0.1, height * 0.4, z), (x + dx, height * 0.85, z + dz)])
            continue
        for dy, size in ((0.5, 0.3), (0.7, 0.26)):
            points = [(x + size * height * math.cos(a), height * dy, z + size * height * math.sin(a)) for a in turn]
            ground.cast(points)


def _bonnet(canvas: Canvas, rng: np.random.Generator, chance: float) -> None:
    """The own car's bonnet at the lower edge, void."""
    if rng.random() > chance:
        return
    height, width = canvas.size
    rise, middle = height * float(rng.uniform(0.02, 0.1)), width * float(rng.uniform(0.4, 0.6))
    x = np.linspace(-5, width + 5, 25)
    y = height - rise * np.clip(1 - ((x - middle) / (0.62 * width)) ** 2, -0.2, 1)
    outline = np.concatenate([np.stack([x, y], axis=1), [[width + 5, height + 5], [-5, height + 5]]])
    tone = rng.uniform(8, 70) * rng.uniform(0.85, 1.15, 3)
    canvas.fill(outline, (tone[0], tone[1], tone[2]), VOID, 1.5, color2=(tone[0] * 0.6, tone[1] * 0.6, tone[2] * 0.6))
    glow = [(float(a), float(b)) for a, b in np.stack([x, y + rise * 0.25], axis=1)]
    bright = np.minimum(255, tone * 1.8)
    for p, q in itertools.pairwise(glow):
        canvas.line(p, q, max(0.5, rise * 0.08), bright, None)
