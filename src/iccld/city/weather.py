"""Air and camera: haze, wet roads, rain, glare, exposure, lens and sensor.  Colour alone changes; labels and depth stand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from iccld.city.camera import Camera
from iccld.city.canvas import Canvas, put
from iccld.city.layout import ROAD, SIDEWALK, SKY
from iccld.city.texture import FloatMap, Image, noise_tile

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """How air, lens and sensor change the picture.  Lengths in pixels are shares of the picture's height; strengths 0..1 unless said.

    haze: 1/m.  wet: of the ground.  exposure, gamma: factors around 1.  white_balance: RGB factors.  noise: grey levels.  quality: of
    the JPEG, 0 = not compressed.  flare: glare of a low sun.  The automatic exposure pulls the mean to `brightness` (0..255) with
    strength `adapts` (0 not at all .. 1 fully), before `exposure`.
    """

    haze: float = 0.0
    haze_color: Rgb = (225, 228, 232)
    wet: float = 0.0
    rain: float = 0.0
    exposure: float = 1.0
    brightness: float = 100.0
    adapts: float = 0.0
    gamma: float = 1.0
    contrast: float = 0.0
    saturation: float = 1.0
    white_balance: Rgb = (1.0, 1.0, 1.0)
    lift: float = 0.0
    vignette: float = 0.0
    blur: float = 0.0
    motion: float = 0.0
    fringe: float = 0.0
    flare: float = 0.0
    mirror: float = 0.0
    headlights: float = 0.0
    bloom: float = 0.0
    sharpen: float = 0.0
    noise: float = 0.0
    quality: int = 0


def make_look(rng: np.random.Generator, world: str, sky: str, haze_color: Rgb) -> Look:
    """A random look; `sim` is a clean renderer with widely varied exposure and colour, `camera` a cheap camera in hazy or wet air or
    against a low sun; night, rain and fog are that camera in these weathers."""
    u, chance = rng.uniform, rng.random
    if world == "sim":
        cast = rng.normal(0, 0.055)
        is_dark = sky in {"dusk", "storm", "night"}
        return Look(
            haze=float(u(0, 0.006)) if chance() < 0.88 else float(u(0.006, 0.016)),
            haze_color=haze_color,
            wet=_wetness(rng, sky),
            exposure=max(0.95 if is_dark else 0.78, math.exp(rng.normal(0.0, 0.22))),
            brightness=float(rng.normal(102, 12)),
            adapts=float(u(0.8 if is_dark else 0.6, 0.95)),
            gamma=min(1.05 if is_dark else 1.25, math.exp(rng.normal(0, 0.16))),
            contrast=float(u(-0.15, 0.75)),
            saturation=float(u(0.45, 1.25)),
            white_balance=(1 + cast, 1 + 0.2 * float(rng.normal(0, 0.04)), 1 - cast),
            lift=float(u(0, 18)) if chance() < 0.4 else 0.0,
            vignette=float(u(0, 0.3)),
            mirror=float(u(0.05, 0.5)) if chance() < 0.12 else 0.0,
            flare=float(u(0.1, 0.6)) if sky in {"clear", "broken", "white", "dusk"} and chance() < 0.1 else 0.0,
            blur=float(u(0, 0.0034)) if chance() < 0.65 else 0.0,
            bloom=float(u(0, 0.4)) if chance() < 0.35 else 0.0,
            sharpen=float(u(0.2, 0.9)) if chance() < 0.3 else 0.0,
            noise=float(rng.exponential(2.2)) if chance() < 0.7 else 0.0,
            quality=int(u(45, 95)) if chance() < 0.45 else 0,
        )
    if world == "night":
        return _night_look(rng, haze_color)
    if world == "rain":
        return _rain_look(rng, haze_color)
    return _hazy_look(rng, haze_color, sky, world == "fog")


def _wetness(rng: np.random.Generator, sky: str) -> float:
    """Of the ground in `sim`: often wet under dark clouds, sometimes still wet when the sun is out again."""
    chance = 0.3 if sky in {"overcast", "storm"} else 0.06
    return float(rng.uniform(0.15, 0.9)) if rng.random() < chance else 0.0


def _hazy_look(rng: np.random.Generator, haze_color: Rgb, sky: str, is_fog: bool) -> Look:
    """A cheap camera by day: haze, a low sun, drizzle or dusk, always bright enough to see; or fog."""
    u, chance = rng.uniform, rng.random
    cast = rng.normal(0.12 if sky == "dusk" else -0.13, 0.05)  # warm towards evening, blue and green otherwise
    rain = float(u(0.2, 0.7)) if sky in {"overcast", "storm"} and chance() < 0.5 and not is_fog else 0.0
    thick = float(u(0.02, 0.07)) if is_fog else float(u(0.006, 0.014) if chance() < 0.65 else u(0.014, 0.026))
    return Look(
        haze=thick,
        haze_color=haze_color,
        wet=max(rain, float(u(0.3, 0.8)) if chance() < 0.15 else 0.0),
        rain=rain,
        exposure=float(np.exp(rng.normal(0.0, 0.1))),
        brightness=float(rng.normal(112, 9)),
        adapts=float(u(0.85, 1.0)),
        gamma=float(np.exp(rng.normal(0.08, 0.12))),
        contrast=float(u(-0.5, 0.1)),
        saturation=float(u(0.25, 0.6)),
        white_balance=(1 + cast, 1.04 + float(rng.normal(0, 0.02)), 1 - cast),
        lift=float(u(12, 40)),
        vignette=float(u(0.15, 0.5)),
        blur=float(u(0.002, 0.005)),
        motion=float(u(0.004, 0.012)) if chance() < 0.15 else 0.0,
        fringe=float(u(0, 0.0025)),
        flare=float(u(0.35, 0.9)) if sky in {"clear", "broken", "white", "dusk"} and chance() < 0.4 else 0.0,
        mirror=float(u(0.1, 0.5)) if chance() < 0.15 else 0.0,
        bloom=float(u(0.1, 0.6)),
        noise=float(u(2, 6)),
        quality=int(u(30, 80)),
    )


def _night_look(rng: np.random.Generator, haze_color: Rgb) -> Look:
    """A street under lamps: near things lit by the own headlights, bloom around lamps, a noisy sensor."""
    u = rng.uniform
    cast = rng.normal(0.08, 0.08)
    return Look(
        haze=float(u(0.001, 0.008)), haze_color=haze_color, wet=float(u(0.2, 0.9)) if rng.random() < 0.3 else 0.0,
        exposure=float(np.exp(rng.normal(0.0, 0.15))), brightness=float(rng.normal(52, 8)), adapts=float(u(0.8, 0.95)),
        gamma=float(np.exp(rng.normal(0.0, 0.1))), contrast=float(u(-0.2, 0.4)), saturation=float(u(0.4, 0.9)),
        white_balance=(1 + cast, 1.0, 1 - cast), lift=float(u(2, 16)), vignette=float(u(0.1, 0.5)), blur=float(u(0.001, 0.004)),
        motion=float(u(0.004, 0.012)) if rng.random() < 0.3 else 0.0, bloom=float(u(0.6, 1.6)), headlights=float(u(0.5, 1.3)),
        noise=float(u(3, 8)), quality=int(u(35, 85)),
    )  # fmt: skip


def _rain_look(rng: np.random.Generator, haze_color: Rgb) -> Look:
    """Steady rain: streaks and drops, a mirroring road, grey air."""
    u = rng.uniform
    rain, cast = float(u(0.5, 1.0)), rng.normal(-0.06, 0.04)
    return Look(
        haze=float(u(0.006, 0.018)), haze_color=haze_color, wet=float(u(0.6, 1.0)), rain=rain,
        exposure=float(np.exp(rng.normal(0.0, 0.12))), brightness=float(rng.normal(92, 10)), adapts=float(u(0.8, 0.95)),
        gamma=float(np.exp(rng.normal(0.05, 0.1))), contrast=float(u(-0.4, 0.2)), saturation=float(u(0.3, 0.7)),
        white_balance=(1 + cast, 1.02, 1 - cast), lift=float(u(6, 28)), vignette=float(u(0.1, 0.45)), blur=float(u(0.0015, 0.0045)),
        bloom=float(u(0.1, 0.7)), noise=float(u(1.5, 5)), quality=int(u(35, 85)),
    )  # fmt: skip


def add_air(canvas: Canvas, camera: Camera, look: Look, rng: np.random.Generator) -> None:
    """Wet reflections and headlights, then haze by depth.  Happens in the scene, before lens and sensor."""
    if look.wet > 0.05:
        _reflect(canvas, camera, look, rng)
    if look.headlights > 0.05:
        near = cv2.exp(np.minimum(canvas.depth, 200) * np.float32(-1 / 14))
        gain = np.where(canvas.label == SKY, np.float32(1.0), 1 + np.float32(2.2 * look.headlights) * near)
        cv2.multiply(canvas.color, cv2.cvtColor(np.asarray(gain, np.float32), cv2.COLOR_GRAY2RGB), dst=canvas.color, dtype=cv2.CV_8U)
    if look.haze > 0.0005:
        clear = cv2.exp(np.minimum(canvas.depth, 260) * np.float32(-look.haze))
        put(clear, max(0.0, 0.75 - 12 * look.haze), (canvas.label == SKY) & (clear < 0.75 - 12 * look.haze))
        share = cv2.convertScaleAbs(clear, alpha=255)
        veil = cv2.applyColorMap(cv2.bitwise_not(share), _ramp(look.haze_color))  # in half the time of three channels in a LUT
        weight = cv2.cvtColor(share, cv2.COLOR_GRAY2RGB)
        cv2.add(cv2.multiply(canvas.color, weight, scale=1 / 255), veil, dst=canvas.color)


def _ramp(color: Rgb) -> Image:
    """(256, 1, 3) table: share x 255 -> share of the colour."""
    return np.asarray((np.arange(256)[:, None, None] * np.asarray(color) / 255).clip(0, 255), np.uint8)


def _reflect(canvas: Canvas, camera: Camera, look: Look, rng: np.random.Generator) -> None:
    height, width = canvas.size
    horizon = int(np.clip(camera.horizon_y + 2, 2, height - 2))
    rows = np.arange(horizon, height)
    mirrored = np.clip(2 * horizon - rows, 0, horizon)
    image = cv2.blur(canvas.color, (3, max(3, height // 18)))[mirrored]
    ground = (canvas.label[horizon:] == ROAD) | (canvas.label[horizon:] == SIDEWALK)
    puddle = noise_tile(61, 1.2)[(np.arange(height - horizon) * 3 % 256)][:, (np.arange(width) // 2 + int(rng.integers(256))) % 256]
    near = np.linspace(1.0, 0.35, height - horizon, dtype=np.float32)[:, None]  # grazing rays mirror more
    share = (np.clip(0.32 + 0.2 * puddle, 0.03, 0.85) * near * np.float32(look.wet) * ground)[..., None].astype(np.float32)
    view = canvas.color[horizon:]
    view[...] = np.clip(view + (image.astype(np.float32) - view) * share, 0, 255).astype(np.uint8)


def photograph(color: Image, camera: Camera, look: Look, rng: np.random.Generator, sun: tuple[float, float, float]) -> Image:
    """What lens and sensor make of the scene: RGB (H, W, 3) uint8 -> the same."""
    height, width = color.shape[:2]
    image = np.asarray(color)
    if look.rain > 0.05:
        image = _streaks(image, look.rain, rng)
    if look.bloom > 0.02:
        small = cv2.resize(image, (max(2, width // 8), max(2, height // 8)), interpolation=cv2.INTER_AREA)
        bright = cv2.GaussianBlur(np.clip(small.astype(np.float32) - 205, 0, None), (0, 0), 2.5)
        glow = cv2.resize((bright * (1.6 * look.bloom)).clip(0, 255).astype(np.uint8), (width, height))
        image = np.asarray(cv2.add(image, glow), np.uint8)
    if look.flare > 0.02:
        image = _glare(image, camera, look.flare, sun)
    if look.mirror > 0.02:
        image = _windscreen(image, look.mirror, rng)
    if look.fringe > 0:
        image = _fringe(image, look.fringe)
    sigma = look.blur * height
    if sigma > 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    if look.motion > 0:
        length = max(2, int(look.motion * height))
        image = np.asarray(cv2.blur(image, (length, 1)), np.uint8)
    if look.sharpen > 0:
        image = np.asarray(cv2.addWeighted(image, 1 + look.sharpen, cv2.GaussianBlur(image, (0, 0), 1.2), -look.sharpen, 0), np.uint8)
    image = _develop(image, look, float(image[::4, ::4].mean()))
    if look.vignette > 0.02 or look.noise > 0.3:
        image = _sensor(image, look, rng)
    if look.quality:
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, look.quality])[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(image)


def _develop(image: Image, look: Look, mean: float) -> Image:
    """Saturation as one matrix, then exposure, gamma, contrast, white balance and lift as one table a channel."""
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    matrix = look.saturation * np.eye(3, dtype=np.float32) + (1 - look.saturation) * np.ones((3, 1), np.float32) * luma
    image = np.asarray(cv2.transform(image, matrix))
    value = np.arange(256, dtype=np.float64) / 255
    exposure = look.exposure * min(3.5, look.brightness / max(mean, 1.0)) ** look.adapts
    table = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        v = np.clip(value * exposure * look.white_balance[channel], 0, 1.25)
        v = np.clip(v, 0, None) ** look.gamma
        v = np.clip(v, 0, 1)
        v = v + look.contrast * (v - 0.5) * (1 - np.abs(2 * v - 1)) * 1.2
        table[0, :, channel] = np.clip(look.lift + v * (255 - look.lift), 0, 255)
    return np.asarray(cv2.LUT(image, table))


def _sensor(image: Image, look: Look, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    if look.vignette > 0.02:
        fall = 1 - _corners(height, width) * np.float32(look.vignette * 0.45)
        image = np.asarray(cv2.multiply(image, cv2.cvtColor(fall, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U), np.uint8)
    if look.noise > 0.3:
        sheet = _grain(height, width)
        places = [(int(rng.integers(_GRAIN)), int(rng.integers(_GRAIN))) for _ in range(3)]
        channels = [sheet[y : y + height, x : x + width] for y, x in places]
        # Grey noise is stronger than coloured noise.
        grain = [cv2.addWeighted(channel, 0.55 * look.noise, channels[0], 0.8 * look.noise, 0) for channel in channels]
        image = np.asarray(cv2.add(image, cv2.merge(grain), dtype=cv2.CV_8U), np.uint8)
    return image


_GRAIN = 512


@lru_cache(maxsize=8)
def _grain(height: int, width: int) -> FloatMap:
    """Grain from which any (height, width) piece that starts within the first tile can be cut."""
    tile = noise_tile(62, 0.12, _GRAIN)
    rows, columns = -(-(height + _GRAIN) // _GRAIN), -(-(width + _GRAIN) // _GRAIN)
    return np.tile(tile, (rows, columns))


@lru_cache(maxsize=8)
def _corners(height: int, width: int) -> FloatMap:
    """Squared distance from the middle (height, width): 2 in the corners."""
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    return np.asarray(x * x + y * y, np.float32)


def _fringe(image: Image, amount: float) -> Image:
    """Red a little larger, blue a little smaller: lateral chromatic aberration."""
    height, width = image.shape[:2]
    channels = list(cv2.split(image))
    for index, scale in ((0, 1 + amount), (2, 1 - amount)):
        matrix = np.array([[scale, 0, (1 - scale) * width / 2], [0, scale, (1 - scale) * height / 2]], np.float32)
        channels[index] = cv2.warpAffine(channels[index], matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.merge(channels))


def _streaks(image: Image, rain: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    slant = float(rng.normal(0, 0.15))
    for _ in range(int(260 * rain)):
        x, y, length = float(rng.uniform(0, width)), float(rng.uniform(-10, height)), float(rng.uniform(0.02, 0.09)) * height
        cv2.line(layer, (int(x), int(y)), (int(x + slant * length), int(y + length)), int(rng.uniform(14, 48)), 1, cv2.LINE_AA)
    image = np.asarray(cv2.add(image, cv2.merge([layer, layer, layer])), np.uint8)
    for _ in range(int(10 * rain)):  # drops on the windscreen
        x, y, r = int(rng.uniform(0, width)), int(rng.uniform(0, height)), max(2, int(rng.uniform(0.006, 0.02) * height))
        box = (slice(max(0, y - r), y + r), slice(max(0, x - r), x + r))
        if image[box].size:
            image[box] = cv2.blur(image[box][::-1], (5, 5))
    return image


def _windscreen(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """The dashboard, mirrored in the windscreen: soft pale shapes, stronger below."""
    height, width = image.shape[:2]
    rows, columns = 24, 32
    tile = noise_tile(63, 1.3)
    y, x = int(rng.integers(200)), int(rng.integers(200))
    shape = np.clip(tile[y : y + rows, x : x + columns] + 0.4, 0, 2.2) * np.linspace(0.25, 1.1, rows, dtype=np.float32)[:, None]
    edge = int(rng.integers(6, 18))  # a straight edge: the dashboard's rim
    shape[edge:] *= float(rng.uniform(1.1, 1.7))
    veil = np.clip(shape * (42 * strength), 0, 120).astype(np.uint8)
    veil = np.asarray(cv2.resize(veil, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    return np.asarray(cv2.add(image, cv2.merge([veil, veil, veil])))


def _glare(image: Image, camera: Camera, strength: float, sun: tuple[float, float, float]) -> Image:
    height, width = image.shape[:2]
    in_camera = camera.rotation @ np.asarray(sun)
    ahead = max(0.15, float(in_camera[2]))
    x = float(np.clip(camera.cx + camera.focal_px * in_camera[0] / ahead, -0.3 * width, 1.3 * width))
    y = float(np.clip(camera.cy - camera.focal_px * in_camera[1] / ahead, -0.5 * height, 0.6 * height))
    step = 4
    rows, columns = np.mgrid[0:height:step, 0:width:step].astype(np.float32)
    distance = np.hypot(columns - x, rows - y) / height
    veil = np.clip(230 * np.exp(-4.5 * distance) + 60 * np.exp(-1.4 * distance), 0, 255) * strength
    veil = np.asarray(cv2.resize(veil.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    warm = cv2.merge([veil, (veil * 0.95).astype(np.uint8), (veil * 0.84).astype(np.uint8)])
    return np.asarray(cv2.add(image, warm))
