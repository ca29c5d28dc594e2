"""Facades as flat textures: wall, windows, doors, shopfronts.  One metre is `ppm` pixels; the picture is later put in perspective."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from iccld.city.facade_style import FacadeStyle
from iccld.city.panel import Panel, board, toned
from iccld.city.shop_fronts import SHOP_FRONTS, draw_fascia
from iccld.city.texture import FloatMap, Image, hsv, noise_tile, sample_material, sample_tile, tinted

Rgb = tuple[float, float, float]


def draw_facade(rng: np.random.Generator, style: FacadeStyle, width: float, height: float, shown: float, ppm: float) -> Image:
    """A facade `width` x `height` metres as RGB (h, w, 3); only the lower `shown` metres are drawn.  Row 0 is the top of what is shown."""
    shown = min(height, shown)
    panel = Panel(width, shown, ppm)
    if style.material != "glass":
        tone = sample_material(style.material, panel.image.shape[:2], ppm, rng)
        panel.image[...] = tinted(tone, style.wall)
    ground_floor = style.floor_height * (1.12 if style.shop else 1.0)
    if style.material == "glass":
        _curtain_wall(rng, panel, style, width, shown)
    else:
        y, drawn = ground_floor, list[float]()
        while y + 0.8 < min(height, shown + style.floor_height):
            top_room = min(style.window_height, height - y - 0.7)
            if top_room > 0.6 and len(drawn) >= 2 and top_room == style.window_height and y + style.floor_height < shown:
                panel.copy_band(drawn[int(rng.integers(2))], y, style.floor_height)
            elif top_room > 0.6:
                drawn.append(y)
                _window_row(rng, panel, style, width, y + 0.75, top_room)
            if style.band:
                panel.rect(0, y - 0.1, width, y + 0.06, style.trim)
            y += style.floor_height
    if style.columns and ppm > 3:
        _pilasters(rng, panel, style, width, height, ground_floor)
    if style.shop:
        SHOP_FRONTS[style.front](rng, panel, style, width, ground_floor)
        draw_fascia(rng, panel, style, width, ground_floor)
    elif style.material != "glass":
        _ground_floor(rng, panel, style, width)
    if style.clutter and ppm > 5:
        _clutter(rng, panel, style, width, shown, ground_floor)
    if shown >= height - 0.5:  # the cornice, if it is in the picture
        panel.rect(0, height - 0.35, width, height, toned(style.trim if style.band else style.wall, 0.9))
        panel.rect(0, height - 0.45, width, height - 0.35, toned(style.wall, 0.55))
    panel.rect(0, 0, width, 0.25, toned(style.wall, 0.6))
    if ppm > 5:
        _weather(rng, panel, style)
    return panel.image


def _weather(rng: np.random.Generator, panel: Panel, style: FacadeStyle) -> None:
    """Stains, unevenness and dirt over everything: no surface is of one colour."""
    shape = (panel.rows, panel.columns)
    strength = 128 * (0.04 + 0.1 * style.grime)
    gain = cv2.convertScaleAbs(sample_tile(_stains(), shape, min(6.0, 11 / panel.ppm), rng), alpha=strength, beta=128)
    cv2.multiply(panel.image, cv2.cvtColor(gain, cv2.COLOR_GRAY2RGB), dst=panel.image, scale=1 / 128)


@lru_cache(maxsize=1)
def _stains() -> FloatMap:
    """Broad blotches, streaks that run down, and grain."""
    streaks = cv2.GaussianBlur(noise_tile(34, 0.3), (3, 41), 0)
    return np.asarray(0.6 * noise_tile(35, 1.4) + 2.5 * streaks + 0.45 * noise_tile(36, 0.1), np.float32)


def _pilasters(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, height: float, ground_floor: float) -> None:
    """Columns in front of the wall: over all floors, or above the shop."""
    color = style.trim if rng.random() < 0.6 else toned(style.wall, 1.15)
    wide, low = float(rng.uniform(0.25, 0.6)), ground_floor if style.shop else 0.25
    count = max(1, round(width / style.columns))
    for i in range(count + 1):
        panel.column(min(width - wide, i * width / count), wide, low, height - 0.4, color)


def _clutter(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, shown: float, ground_floor: float) -> None:
    """What people hang on their walls: boards, banners, posters, air conditioners, pipes, dishes."""
    u = rng.uniform
    for _ in range(style.clutter):
        draw, x = rng.random(), float(u(0.1, max(0.2, width - 0.8)))
        y = float(u(0.4, max(0.5, min(shown, 9.0))))
        if draw < 0.34:  # a board over or between the windows
            w, h = float(u(0.8, 3.2)), float(u(0.5, 1.3))
            board(rng, panel, x, max(y, ground_floor - 0.6), min(w, width - x), h)
        elif draw < 0.5:  # a banner
            board(rng, panel, x, max(y, 2.6), float(u(0.5, 0.9)), float(u(1.4, 3.4)))
        elif draw < 0.66:  # a poster at eye level
            board(rng, panel, x, float(u(0.7, 1.2)), float(u(0.5, 1.2)), float(u(0.7, 1.5)))
        elif draw < 0.84:  # a pipe
            panel.rect(x, 0, x + 0.1, shown, toned(style.wall, float(u(0.4, 0.9))))
        else:  # a box on the wall
            panel.rect(x, y + 2, x + 0.8, y + 2.55, (205, 205, 200))
            panel.rect(x + 0.15, y + 2.08, x + 0.55, y + 2.47, (90, 92, 94))
            panel.rect(x, y + 1.9, x + 0.8, y + 2, toned(style.wall, 0.6))


def _window_row(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, y: float, window_height: float) -> None:
    pitch = style.window_width + style.window_gap
    count = int((width - 0.4) / pitch)
    if count < 1:
        return
    start = (width - count * pitch + style.window_gap) / 2
    fine = panel.ppm > 8
    for i in range(count):
        x = start + i * pitch
        if i > 2:  # the fourth and further ones repeat
            panel.copy_part(start + int(rng.integers(3)) * pitch, x, style.window_width, y, window_height, style.window_gap)
            continue
        _window(rng, panel, style, x, y, x + style.window_width, y + window_height, fine)


def _window(rng: np.random.Generator, panel: Panel, style: FacadeStyle, x0: float, y0: float, x1: float, y1: float, fine: bool) -> None:
    if fine:
        if style.sill:
            panel.rect(x0 - 0.12, y0 - 0.16, x1 + 0.12, y0, toned(style.trim, 0.95))
            panel.rect(x0 - 0.06, y1, x1 + 0.06, y1 + 0.18, toned(style.wall, 1.12))
        if style.shutters is not None and not style.ribbon:
            panel.rect(x0 - 0.45, y0, x0 - 0.02, y1, style.shutters)
            panel.rect(x1 + 0.02, y0, x1 + 0.45, y1, style.shutters)
        panel.rect(x0, y0, x1, y1, style.trim)
    if rng.random() < style.lit:
        panel.rect(x0 + 0.07, y0 + 0.07, x1 - 0.07, y1 - 0.07, (250, 215, 150))
        return
    value = float(rng.uniform(0.55, 1.5))
    glass = toned(style.glass, value)
    sky = float(rng.random())
    if style.arched and panel.ppm > 3:
        panel.arch(x0, x1, y1 - 0.1, style.trim)
        panel.arch(x0 + 0.09, x1 - 0.09, y1 - 0.1, glass)
    panel.rect(x0 + 0.07, y0 + 0.07, x1 - 0.07, y1 - 0.07, glass)
    if panel.ppm > 9:  # the reveal's shadow
        panel.rect(x0, y1 - 0.16, x1, y1 - 0.06, toned(glass, 0.5))
        panel.rect(x0, y0, x0 + 0.08, y1, toned(style.trim, 0.6))
    if sky < 0.45:  # the upper part mirrors the sky
        panel.rect(
            x0 + 0.07,
            y0 + (y1 - y0) * (0.3 + sky),
            x1 - 0.07,
            y1 - 0.07,
            (glass[0] * 0.4 + 115, glass[1] * 0.4 + 122, glass[2] * 0.4 + 130),
        )
    elif sky < 0.6:  # curtain or blind
        panel.rect(x0 + 0.07, y0 + 0.07, x0 + (x1 - x0) * 0.4, y1 - 0.07, (200, 196, 185))
    if fine:
        across, up = style.panes
        for k in range(1, across):
            x = x0 + (x1 - x0) * k / across
            panel.rect(x - 0.04, y0, x + 0.04, y1, style.trim)
        for k in range(1, up):
            y = y0 + (y1 - y0) * k / up
            panel.rect(x0, y - 0.04, x1, y + 0.04, style.trim)
    if style.balcony and fine:
        panel.rect(x0 - 0.4, y0 - 0.75, x1 + 0.4, y0 - 0.6, toned(style.wall, 0.7))
        panel.rect(x0 - 0.4, y0 - 0.6, x1 + 0.4, y0 + 0.25, toned(style.glass, 1.3))


def _curtain_wall(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, shown: float) -> None:
    pane_w, pane_h = float(rng.uniform(1.0, 2.2)), style.floor_height
    columns, rows = max(1, int(width / pane_w)), max(1, int(np.ceil(shown / pane_h)))
    cells = np.clip(rng.normal(1, 0.16, (rows, columns, 1)) * np.asarray(style.wall), 0, 255).astype(np.uint8)
    panel.image[...] = cv2.resize(cells, (panel.columns, panel.rows), interpolation=cv2.INTER_NEAREST)
    cloud = sample_tile(noise_tile(33, 1.6), (panel.rows, panel.columns), 6 / panel.ppm, rng)
    panel.image[...] = np.clip(panel.image + cloud[..., None] * 22 + np.linspace(35, -25, panel.rows)[:, None, None], 0, 255).astype(
        np.uint8
    )
    if panel.ppm * pane_w > 5:
        for i in range(columns + 1):
            panel.rect(i * width / columns - 0.04, 0, i * width / columns + 0.04, shown, style.trim)
    for j in range(rows + 1):
        panel.rect(0, j * pane_h - 0.25, width, j * pane_h, toned(style.wall, 0.6))


def _ground_floor(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float) -> None:
    fine = panel.ppm > 6
    door_width = float(rng.uniform(0.9, 1.2))
    every = float(rng.uniform(4.5, 8.0))
    door_color = hsv(float(rng.uniform(0, 360)), float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.15, 0.6)))
    x = float(rng.uniform(0.4, 1.5))
    next_door = x
    while x < width - 1.3:
        if x >= next_door:
            panel.rect(x - 0.12, 0, x + door_width + 0.12, 2.45, style.trim)
            panel.rect(x, 0, x + door_width, 2.3, door_color)
            if fine:
                panel.rect(x + 0.15, 1.5, x + door_width - 0.15, 2.15, toned(style.glass, 1.2))
            next_door = x + every
            x += door_width + 0.8
        else:
            end = min(x + style.window_width, width - 0.3)
            _window(rng, panel, style, x, 0.9, end, 0.9 + min(style.window_height, 1.6), fine)
            x = end + style.window_gap
