"""Buildings in perspective: facade, end walls, roofs with gables and chimneys, awnings; and the far skyline."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from iccld.city.camera import NEAR_M, Camera, FloatArray, bounded
from iccld.city.canvas import Canvas
from iccld.city.facade import FacadeStyle, draw_facade
from iccld.city.layout import BUILDING
from iccld.city.light import Light, shade
from iccld.city.texture import Image, hsv, sample_material, tinted

Point = tuple[float, float]
Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class House:
    """A building on the plan.  front: its facade's ends (x, z), left to right as seen from the street.  back: depth away from the street,
    metres.  roof: flat, pitched (ridge along the front) or gable (towards the street); rise: height of the roof above the eaves."""

    front: tuple[Point, Point]
    back: float
    height: float
    style: FacadeStyle
    roof: str
    rise: float
    roof_color: Rgb
    chimney: bool
    awning: Rgb | None
    party: float = 0.0
    """Height up to which a neighbour hides the end walls."""


def clip_to_view(camera: Camera, p: Point, q: Point) -> tuple[float, float] | None:
    """The part (from, to), shares of p..q, of a ground segment that can be seen, with some margin; None when nothing."""
    (ax, ay, az, ao), _, (cx, cy, cz, co) = camera.rows
    px, pz = ax * p[0] + ay + az * p[1] + ao, cx * p[0] + cy + cz * p[1] + co
    qx, qz = ax * q[0] + ay + az * q[1] + ao, cx * q[0] + cy + cz * q[1] + co
    width = camera.size[1]
    slope_left = (camera.cx + 0.25 * width) / camera.focal_px
    slope_right = (width - camera.cx + 0.25 * width) / camera.focal_px
    low, high = 0.0, 1.0
    for a, b in (
        (pz - 0.5, qz - 0.5),
        (px + slope_left * pz, qx + slope_left * qz),
        (slope_right * pz - px, slope_right * qz - qx),
    ):
        if a < 0 and b < 0:
            return None
        if a < 0:
            low = max(low, a / (a - b))
        elif b < 0:
            high = min(high, a / (a - b))
    return (low, high) if high - low > 1e-4 else None


def between(p: Point, q: Point, share: float) -> Point:
    """The point at `share` of the way from p to q."""
    return p[0] + (q[0] - p[0]) * share, p[1] + (q[1] - p[1]) * share


def wall_quad(camera: Camera, p: Point, q: Point, low: float, high: float) -> tuple[FloatArray, FloatArray]:
    """Corners (4, 2) px (upper left, upper right, lower right, lower left) and depths (4,) m of an upright rectangle over p..q."""
    (px, pz), (qx, qz) = p, q
    (ax, ay, az, ao), (bx, by, bz, bo), (cx, cy, cz, co) = camera.rows
    focal, left, top = camera.focal_px, camera.cx, camera.cy
    pixels, depths = [], []
    for x, y, z in ((px, high, pz), (qx, high, qz), (qx, low, qz), (px, low, pz)):  # plain floats: a third of the time of arrays
        depth = cx * x + cy * y + cz * z + co
        scale = focal / max(depth, NEAR_M)
        pixels.append((left + scale * (ax * x + ay * y + az * z + ao), top - scale * (bx * x + by * y + bz * z + bo)))
        depths.append(depth)
    return np.array(pixels), np.array(depths)


def lit(texture: Image, normal: tuple[float, float, float], light: Light) -> Image:
    """A texture under `light`, darker towards the ground."""
    factor = light.factor(normal)
    gains = np.array([[factor * light.color[0], 0, 0], [0, factor * light.color[1], 0], [0, 0, factor * light.color[2]]], np.float32)
    return np.asarray(cv2.transform(texture, gains))


def outward(p: Point, q: Point) -> tuple[float, float, float]:
    """Normal of the wall p..q, on the side from which p is left of q."""
    dx, dz = q[0] - p[0], q[1] - p[1]
    length = math.hypot(dx, dz) or 1.0
    return dz / length, 0.0, -dx / length


def draw_house(canvas: Canvas, camera: Camera, rng: np.random.Generator, house: House, light: Light) -> None:
    """Draw one building: far walls first, then the facade, then the roof's near parts."""
    (p, q), _style = house.front, house.style
    nx, _, nz = outward(p, q)
    back_p, back_q = (p[0] - nx * house.back, p[1] - nz * house.back), (q[0] - nx * house.back, q[1] - nz * house.back)
    depths = [camera.depth_at(p), camera.depth_at(q)]
    if max(depths) < 0.5:
        return
    if house.roof != "flat":
        _roof(canvas, camera, rng, house, light, (p, q, back_q, back_p))
    for a, b in ((back_p, p), (q, back_q)):
        if house.height > house.party + 0.3 and _faces(a, b):
            _plain_wall(canvas, camera, rng, a, b, house, light)
    if _faces(p, q):
        _facade(canvas, camera, rng, house, light)
    if house.awning is not None and max(depths) < 50:
        _awning(canvas, camera, rng, house, light, (nx, nz))


def _faces(p: Point, q: Point) -> bool:
    nx, _, nz = outward(p, q)
    return -(p[0] * nx + p[1] * nz) > 0.05


def resolution(camera: Camera, depth: float) -> float:
    """Texture pixels a metre that a wall at `depth` metres deserves."""
    return bounded(1.1 * camera.pixels_per_metre(depth), 1.5, 18)


def _visible_height(camera: Camera, depth: float) -> float:
    """Height above ground, metres, of the picture's upper edge at `depth`; with a margin for roll."""
    return camera.height_m + (camera.cy + 0.04 * camera.size[1] + 6) / camera.focal_px * depth + 0.5


def _facade(canvas: Canvas, camera: Camera, rng: np.random.Generator, house: House, light: Light) -> None:
    p, q = house.front
    part = clip_to_view(camera, p, q)
    if part is None:
        return
    a, b = between(p, q, part[0]), between(p, q, part[1])
    depths = [camera.depth_at(a), camera.depth_at(b)]
    near, far = max(0.5, min(depths)), max(0.5, max(depths))
    quad, depth = wall_quad(camera, a, b, 0.0, house.height)
    if abs(quad[1, 0] - quad[0, 0]) < 7:  # a sliver: wall and windows in one colour
        blend = [0.72 * w + 0.28 * g for w, g in zip(house.style.wall, house.style.glass, strict=True)]
        canvas.fill(quad, shade((blend[0], blend[1], blend[2]), outward(p, q), light), BUILDING, float(depth.mean()))
        return
    length = math.hypot(q[0] - p[0], q[1] - p[1])
    shown = min(house.height, max(3.0, _visible_height(camera, far)))
    texture = draw_facade(rng, house.style, length, house.height, shown, resolution(camera, near * 0.6 + far * 0.4))
    columns = texture.shape[1]
    first, last = int(part[0] * columns), max(int(part[0] * columns) + 2, int(np.ceil(part[1] * columns)))
    texture = lit(texture[:, first:last], outward(p, q), light)
    quad, depth = wall_quad(camera, a, b, 0.0, shown)
    canvas.textured_quad(quad, texture, BUILDING, depth)


def _plain_wall(canvas: Canvas, camera: Camera, rng: np.random.Generator, a: Point, b: Point, house: House, light: Light) -> None:
    part = clip_to_view(camera, a, b)
    if part is None:
        return
    a, b = between(a, b, part[0]), between(a, b, part[1])
    quad, depth = wall_quad(camera, a, b, max(0.0, house.party - 0.5), house.height)
    middle = float(depth.mean())
    if abs(quad[1, 0] - quad[0, 0]) < 20 or middle > 55:  # too small for its texture to be seen
        canvas.fill(quad, shade(house.style.wall, outward(a, b), light), BUILDING, middle)
        return
    ppm = min(8.0, resolution(camera, middle))
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    shape = (int(bounded(house.height * ppm, 3, 200)), int(bounded(length * ppm, 3, 200)))
    kind = "concrete" if house.style.material == "glass" else house.style.material
    texture = tinted(sample_material(kind, shape, ppm, rng), house.style.wall)
    for _ in range(int(rng.integers(0, 4))):  # a few small windows
        y, x = int(rng.uniform(0.1, 0.7) * shape[0]), int(rng.uniform(0.1, 0.8) * shape[1])
        cv2.rectangle(texture, (x, y), (x + int(ppm), y + int(1.4 * ppm)), house.style.glass, -1)
    canvas.textured_quad(quad, lit(texture, outward(a, b), light), BUILDING, depth)


def _roof(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, house: House, light: Light, corners: tuple[Point, Point, Point, Point]
) -> None:
    p, q, back_q, back_p = corners
    h, top = house.height, house.height + house.rise
    nx, _, nz = outward(p, q)

    def at(point: Point, y: float) -> tuple[float, float, float]:
        return point[0], y, point[1]

    side = shade(house.style.wall, (0.0, 0.0, -1.0), light)
    eave = 0.3
    p_out, q_out = (p[0] + nx * eave, p[1] + nz * eave), (q[0] + nx * eave, q[1] + nz * eave)
    if house.roof == "gable":  # the gable looks at the street
        mid, mid_back = between(p, q, 0.5), between(back_p, back_q, 0.5)
        slopes = [(p_out, mid, mid_back, back_p, -1.0), (q_out, mid, mid_back, back_q, 1.0)]
        slopes.sort(key=lambda s: -math.hypot(*s[0]))
        for low, ridge, ridge_back, low_back, _ in slopes:
            quad = [at(low, h - 0.1), at(ridge, top), at(ridge_back, top), at(low_back, h - 0.1)]
            canvas.fill3d(camera, quad, shade(house.roof_color, (0, 0.8, -0.3), light), BUILDING)
        front = shade(house.style.wall, (nx, 0.0, nz), light)
        canvas.fill3d(camera, [at(p, h - 0.2), at(mid, top), at(q, h - 0.2)], front, BUILDING)
    else:
        ridge_p, ridge_q = between(p, back_p, 0.5), between(q, back_q, 0.5)
        for a, ridge, b in ((p, ridge_p, back_p), (q, ridge_q, back_q)):
            canvas.fill3d(camera, [at(a, h - 0.2), at(ridge, top), at(b, h - 0.2)], side, BUILDING)
        quad = [at(p_out, h - 0.15), at(q_out, h - 0.15), at(ridge_q, top), at(ridge_p, top)]
        color = shade(house.roof_color, (nx * 0.6, 0.8, nz * 0.6), light)
        canvas.fill3d(camera, quad, color, BUILDING)
        far = camera.pixels_per_metre(max(0.5, float(camera.depth_of(np.array([at(p, h)]))[0])))
        for k in (0.25, 0.5, 0.75) if far > 17 else ():  # courses of tiles
            low, high = between(p_out, ridge_p, k), between(q_out, ridge_q, k)
            y = h - 0.15 + (house.rise + 0.15) * k
            stripe = [at(low, y), at(high, y), at(high, y + 0.07), at(low, y + 0.07)]
            canvas.fill3d(camera, stripe, tuple(0.85 * c for c in color), None, alpha=0.6)  # type: ignore[arg-type]
    if house.chimney:
        share = float(rng.choice([0.08, 0.92, 0.5]))
        foot = between(between(p, q, share), between(back_p, back_q, share), 0.5)
        for a, b in (((-0.4, -0.35), (0.4, -0.35)), ((-0.4, 0.35), (-0.4, -0.35)), ((0.4, -0.35), (0.4, 0.35))):
            u, v = (foot[0] + a[0], foot[1] + a[1]), (foot[0] + b[0], foot[1] + b[1])
            if _faces(u, v):
                stack = [at(u, h + 0.4), at(u, top + 1.1), at(v, top + 1.1), at(v, h + 0.4)]
                canvas.fill3d(camera, stack, shade(tuple(0.85 * c for c in house.style.wall), outward(u, v), light), BUILDING)  # type: ignore[arg-type]


def _awning(canvas: Canvas, camera: Camera, rng: np.random.Generator, house: House, light: Light, normal: tuple[float, float]) -> None:
    p, q = house.front
    out = float(rng.uniform(0.7, 1.5))
    high = house.style.floor_height * 0.86
    a, b = between(p, q, 0.06), between(p, q, 0.94)
    a_out, b_out = (a[0] + normal[0] * out, a[1] + normal[1] * out), (b[0] + normal[0] * out, b[1] + normal[1] * out)
    assert house.awning is not None
    stripes = 1 if rng.random() < 0.5 else 8
    for k in range(stripes):
        color: Rgb = house.awning if k % 2 == 0 else (232, 228, 220)
        s, t = k / stripes, (k + 1) / stripes
        top = [(*between(a, b, s), high), (*between(a, b, t), high)]
        low = [(*between(a_out, b_out, t), high - 0.7), (*between(a_out, b_out, s), high - 0.7)]
        canvas.fill3d(camera, [(x, y, z) for x, z, y in top + low], shade(color, (normal[0], 0.8, normal[1]), light), BUILDING)
        hem = [(x, y - 0.22, z) for x, z, y in low]
        edge = [(x, y, z) for x, z, y in low]
        canvas.fill3d(camera, [*edge, *hem[::-1]], shade(color, (normal[0], 0.0, normal[1]), light), BUILDING)


def draw_skyline(canvas: Canvas, camera: Camera, rng: np.random.Generator, light: Light, haze: Rgb, distance: float) -> None:
    """Far buildings along the horizon, pale with distance."""
    x = -camera.size[1] / camera.focal_px * distance
    while x < camera.size[1] / camera.focal_px * distance:
        width = float(rng.uniform(12, 50))
        height = float(rng.gamma(3.0, 4.0)) + 4
        color = hsv(float(rng.uniform(0, 60)), float(rng.uniform(0, 0.3)), float(rng.uniform(0.35, 0.8)))
        tint = tuple(c * 0.55 * light.factor((0, 0, -1)) + h * 0.45 for c, h in zip(color, haze, strict=True))
        z = distance + float(rng.uniform(-20, 20))
        quad = [(x, 0.0, z), (x, height, z), (x + width, height, z), (x + width, 0.0, z)]
        canvas.fill3d(camera, quad, (tint[0], tint[1], tint[2]), BUILDING)
        if rng.random() < 0.4:
            peak = [(x, height, z), (x + width / 2, height + 4, z), (x + width, height, z)]
            canvas.fill3d(camera, peak, (tint[0] * 0.8, tint[1] * 0.7, tint[2] * 0.7), BUILDING)
        for _ in range(min(3, int(height / 4))):
            wy = float(rng.uniform(1, height))
            canvas.fill3d(
                camera,
                [(x + 1, wy, z), (x + 1, wy + 1.3, z), (x + width - 1, wy + 1.3, z), (x + width - 1, wy, z)],
                (70, 75, 85),
                alpha=0.25,
            )
        x += width * float(rng.uniform(0.8, 1.8))
