"""The sky: clear, broken, overcast, blown out, dusk; and what stands on the horizon."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from iccld.city.camera import Camera
from iccld.city.canvas import FAR_M, Canvas
from iccld.city.layout import SKY
from iccld.city.texture import hsv, lookup, noise_tile

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Sky:
    """top, horizon: RGB.  cloud: RGB of clouds, cover 0..1, kind as drawn.  haze: RGB of the far distance."""

    kind: str
    top: Rgb
    horizon: Rgb
    cloud: Rgb
    cover: float


def make_sky(rng: np.random.Generator, kind: str) -> Sky:
    """Colours for kind: clear, broken, overcast, white, dusk, storm, night."""
    j = rng.uniform(-1, 1, 6)
    if kind == "clear":
        return Sky(
            kind,
            hsv(212 + 8 * j[0], 0.5 + 0.2 * j[1], 0.8 + 0.15 * j[2]),
            hsv(205 + 10 * j[3], 0.18 + 0.1 * j[4], 0.95),
            (245, 247, 250),
            0.15 + 0.15 * j[5],
        )
    if kind == "broken":
        return Sky(
            kind, hsv(212 + 8 * j[0], 0.42 + 0.2 * j[1], 0.78 + 0.15 * j[2]), hsv(210, 0.1, 0.93), (240 + 12 * j[3],) * 3, 0.5 + 0.25 * j[5]
        )
    if kind == "white":
        v = 250 + 5 * j[0]
        return Sky(kind, (v - 4, v - 2, v), (253, 254, 255), (255, 255, 255), 0.3)
    if kind == "dusk":
        return Sky(
            kind,
            hsv(215 + 10 * j[0], 0.35, 0.5 + 0.15 * j[1]),
            hsv(25 + 15 * j[2], 0.35 + 0.15 * j[3], 0.88),
            hsv(15, 0.2, 0.6),
            0.5 + 0.3 * j[5],
        )
    if kind == "storm":
        v = 0.5 + 0.12 * j[0]
        return Sky(kind, hsv(215, 0.1, v), hsv(205, 0.07, min(1, v + 0.3)), hsv(215, 0.1, v - 0.15), 0.8)
    if kind == "night":
        return Sky(kind, hsv(225, 0.5, 0.1 + 0.05 * j[0]), hsv(30, 0.25, 0.25 + 0.08 * j[1]), (45, 42, 48), 0.5)
    v = 0.82 + 0.13 * j[0]
    return Sky("overcast", hsv(212, 0.05, v), hsv(210, 0.03, min(1.0, v + 0.08)), hsv(212, 0.06, v - 0.1), 0.6 + 0.3 * j[5])


def draw_sky(canvas: Canvas, camera: Camera, rng: np.random.Generator, sky: Sky) -> None:
    """Paint the whole picture with sky; the ground comes after."""
    full, width = canvas.size
    # Below the horizon, wherever the roll may carry it, the sky is one colour.
    height = int(min(full, max(8.0, camera.horizon_y + abs(math.tan(camera.roll)) * width + 4)))
    step = 3  # clouds are soft: a third of the resolution costs a ninth
    # One column of rows and one row of columns: most of the sky depends on the height alone.
    rows = np.arange(0, height, step, dtype=np.float32)[:, None]
    columns = np.arange(0, width, step, dtype=np.float32)[None]
    up = (camera.horizon_y - rows) / camera.focal_px  # tangent of elevation
    share = np.clip(up / 0.75, 0, 1)[..., None] ** 0.7
    paint = np.asarray(sky.horizon, np.float32) * (1 - share) + np.asarray(sky.top, np.float32) * share
    if sky.cover > 0.05:
        # Clouds hang on a plane: the lower, the denser and flatter.
        distance = 1.0 / (np.maximum(up, 0.02) + 0.12)
        across = (columns - camera.cx) / camera.focal_px * distance
        ox, oy = (float(v) for v in rng.uniform(0, 256, 2))
        scale = float(rng.uniform(14, 34))
        ahead = np.asarray(np.repeat(distance, columns.size, axis=1), np.float32)
        shape = lookup(noise_tile(31, 1.5), across * scale + ox, ahead * scale * 1.3 + oy) + 0.35 * lookup(
            noise_tile(32, 1.0), across * scale * 3.1 + oy, ahead * scale * 4 + ox
        )
        edge = 0.9 if sky.kind in {"clear", "broken"} else 1.8
        amount = np.clip((shape - (1.1 - 2.2 * sky.cover)) / edge, 0, 1)[..., None] * (0.55 if sky.kind == "clear" else 0.9)
        under = np.clip(1 - 0.16 * (shape[..., None] - 0.5), 0.8, 1.05)
        paint = paint * (1 - amount) + np.asarray(sky.cloud, np.float32) * under * amount
    small = np.broadcast_to(np.clip(paint, 0, 255).astype(np.uint8), (rows.size, columns.size, 3))
    canvas.color[height:] = np.tile(np.asarray(sky.horizon, np.uint8), (width, 1))  # a row: in a tenth of the time of one pixel
    canvas.color[:height] = cv2.resize(np.ascontiguousarray(small), (width, height), interpolation=cv2.INTER_LINEAR)
    canvas.label[...] = SKY
    canvas.depth[...] = FAR_M
