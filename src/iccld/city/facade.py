"""Facades as flat textures: wall, windows, doors, shopfronts.  One metre is `ppm` pixels; the picture is later put in perspective."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from iccld.city.texture import FloatMap, Image, hsv, noise_tile, sample_material, sample_tile, tinted

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


class Panel:
    """A texture under construction: rectangles in metres, x from the left, y up from the pavement."""

    def __init__(self, width: float, height: float, ppm: float) -> None:
        self.ppm = ppm
        self.rows, self.columns = max(4, round(height * ppm)), max(4, round(width * ppm))
        self.image: Image = np.empty((self.rows, self.columns, 3), np.uint8)

    def rect(self, x0: float, y0: float, x1: float, y1: float, color: Rgb) -> None:
        """Fill a rectangle given in metres."""
        p, rows = self.ppm, self.rows
        left, right = int(x0 * p + 0.5), int(x1 * p + 0.5) - 1
        top, bottom = rows - int(y1 * p + 0.5), rows - int(y0 * p + 0.5) - 1
        if right >= left and bottom >= top:
            cv2.rectangle(self.image, (left, top), (right, bottom), color, -1)

    def column(self, x: float, width: float, y0: float, y1: float, color: Rgb) -> None:
        """A round or square column with base and capital: dark edges, a light middle."""
        self.rect(x - 0.06, y0, x + width + 0.06, y1, _tone(color, 0.6))
        self.rect(x, y0, x + width, y1, _tone(color, 0.85))
        self.rect(x + 0.2 * width, y0, x + 0.62 * width, y1, _tone(color, 1.12))
        for y in (y0, y1 - 0.22):
            self.rect(x - 0.1, y, x + width + 0.1, y + 0.22, color)

    def arch(self, x0: float, x1: float, y: float, color: Rgb) -> None:
        """A half round, as wide as x0..x1, standing on y."""
        p = self.ppm
        center, axes = (int((x0 + x1) / 2 * p), self.rows - int(y * p)), (max(1, int((x1 - x0) / 2 * p)), max(1, int((x1 - x0) / 2.4 * p)))
        cv2.ellipse(self.image, center, axes, 0, 180, 360, color, -1)

    def copy_part(self, from_x: float, to_x: float, width: float, y: float, height: float, gap: float) -> None:
        """Repeat the window drawn at from_x at to_x, with half the `gap` around; metres."""
        p, margin = self.ppm, min(0.5 * gap, 0.5)
        source, target, count = int((from_x - margin) * p + 0.5), int((to_x - margin) * p + 0.5), int((width + 2 * margin) * p + 0.5)
        top, bottom = max(0, self.rows - int((y + height + 0.2) * p + 0.5)), self.rows - int((y - 0.75) * p + 0.5)
        count = min(count, self.columns - target)
        if count > 0 and bottom > top and source >= 0 and source + count <= target:
            self.image[top:bottom, target : target + count] = self.image[top:bottom, source : source + count]

    def copy_band(self, from_y: float, to_y: float, height: float) -> None:
        """Repeat what is drawn between from_y and from_y + height at to_y; metres above the pavement."""
        source, target = self.rows - round(from_y * self.ppm), self.rows - round(to_y * self.ppm)
        count = min(round(height * self.ppm), target, source)
        if count > 0:
            self.image[target - count : target] = self.image[source - count : source]


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
        _SHOPS[style.front](rng, panel, style, width, ground_floor)
        _fascia(rng, panel, style, width, ground_floor)
    elif style.material != "glass":
        _ground_floor(rng, panel, style, width)
    if style.clutter and ppm > 5:
        _clutter(rng, panel, style, width, shown, ground_floor)
    if shown >= height - 0.5:  # the cornice, if it is in the picture
        panel.rect(0, height - 0.35, width, height, _tone(style.trim if style.band else style.wall, 0.9))
        panel.rect(0, height - 0.45, width, height - 0.35, _tone(style.wall, 0.55))
    panel.rect(0, 0, width, 0.25, _tone(style.wall, 0.6))
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
    color = style.trim if rng.random() < 0.6 else _tone(style.wall, 1.15)
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
            _board(rng, panel, x, max(y, ground_floor - 0.6), min(w, width - x), h)
        elif draw < 0.5:  # a banner
            _board(rng, panel, x, max(y, 2.6), float(u(0.5, 0.9)), float(u(1.4, 3.4)))
        elif draw < 0.66:  # a poster at eye level
            _board(rng, panel, x, float(u(0.7, 1.2)), float(u(0.5, 1.2)), float(u(0.7, 1.5)))
        elif draw < 0.84:  # a pipe
            panel.rect(x, 0, x + 0.1, shown, _tone(style.wall, float(u(0.4, 0.9))))
        else:  # a box on the wall
            panel.rect(x, y + 2, x + 0.8, y + 2.55, (205, 205, 200))
            panel.rect(x + 0.15, y + 2.08, x + 0.55, y + 2.47, (90, 92, 94))
            panel.rect(x, y + 1.9, x + 0.8, y + 2, _tone(style.wall, 0.6))


def _board(rng: np.random.Generator, panel: Panel, x: float, y: float, w: float, h: float) -> None:
    """A sign or poster on the building, w x h metres, its lower left corner at (x, y)."""
    u = rng.uniform
    ground = hsv(u(0, 360), 0.9 * float(rng.random()) ** 1.5, u(0.25, 1.0))
    panel.rect(x, y, x + w, y + h, ground)
    ink = (245, 243, 236) if sum(ground) < 400 else hsv(u(0, 360), u(0, 0.9), u(0.05, 0.4))
    if rng.random() < 0.5:
        left, low = x + float(u(0.05, 0.5)) * w, y + float(u(0.1, 0.5)) * h
        panel.rect(left, low, left + 0.4 * w, low + 0.45 * h, hsv(u(0, 360), u(0, 0.8), u(0.2, 0.95)))
    for row in range(1 + (h > 0.8)) if panel.ppm * h > 7 else ():
        top = y + h * (0.75 - 0.4 * row)
        _letters(rng, panel, x + 0.08 * w, x + w * float(u(0.6, 0.95)), top - 0.14 * h, 0.24 * h, ink)


def _letters(rng: np.random.Generator, panel: Panel, x: float, end: float, y: float, height: float, ink: Rgb) -> None:
    """A line of writing, as bars: x..end, standing on y, metres."""
    while x < end - 0.05:
        w = height * float(rng.uniform(0.35, 0.8))
        panel.rect(x, y, x + 0.32 * w, y + height, ink)
        if rng.random() < 0.75:
            bar = y + height * float(rng.choice([0.0, 0.4, 0.75]))
            panel.rect(x, bar, x + w, bar + 0.25 * height, ink)
        x += 1.35 * w + 0.02


def _tone(color: Rgb, factor: float) -> Rgb:
    r, g, b = color[0] * factor, color[1] * factor, color[2] * factor
    return (r if r < 255.0 else 255.0, g if g < 255.0 else 255.0, b if b < 255.0 else 255.0)


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
            panel.rect(x0 - 0.12, y0 - 0.16, x1 + 0.12, y0, _tone(style.trim, 0.95))
            panel.rect(x0 - 0.06, y1, x1 + 0.06, y1 + 0.18, _tone(style.wall, 1.12))
        if style.shutters is not None and not style.ribbon:
            panel.rect(x0 - 0.45, y0, x0 - 0.02, y1, style.shutters)
            panel.rect(x1 + 0.02, y0, x1 + 0.45, y1, style.shutters)
        panel.rect(x0, y0, x1, y1, style.trim)
    if rng.random() < style.lit:
        panel.rect(x0 + 0.07, y0 + 0.07, x1 - 0.07, y1 - 0.07, (250, 215, 150))
        return
    value = float(rng.uniform(0.55, 1.5))
    glass = _tone(style.glass, value)
    sky = float(rng.random())
    if style.arched and panel.ppm > 3:
        panel.arch(x0, x1, y1 - 0.1, style.trim)
        panel.arch(x0 + 0.09, x1 - 0.09, y1 - 0.1, glass)
    panel.rect(x0 + 0.07, y0 + 0.07, x1 - 0.07, y1 - 0.07, glass)
    if panel.ppm > 9:  # the reveal's shadow
        panel.rect(x0, y1 - 0.16, x1, y1 - 0.06, _tone(glass, 0.5))
        panel.rect(x0, y0, x0 + 0.08, y1, _tone(style.trim, 0.6))
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
        panel.rect(x0 - 0.4, y0 - 0.75, x1 + 0.4, y0 - 0.6, _tone(style.wall, 0.7))
        panel.rect(x0 - 0.4, y0 - 0.6, x1 + 0.4, y0 + 0.25, _tone(style.glass, 1.3))


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
        panel.rect(0, j * pane_h - 0.25, width, j * pane_h, _tone(style.wall, 0.6))


def _panes(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, top: float) -> None:
    """Windows of some width each, a door, goods on display."""
    front = style.sign if rng.random() < 0.5 else _tone(style.trim, 0.9)
    panel.rect(0, 0, width, top - 0.1, front)
    panel.rect(0, 0, width, 0.45, _tone(front, 0.7))
    door = float(rng.uniform(0.3, max(0.31, width - 1.4)))
    inside = hsv(float(rng.uniform(20, 50)), float(rng.uniform(0, 0.4)), float(rng.uniform(0.08, 0.3)))
    lit = rng.random() < 0.25 + 2 * style.lit
    x = 0.25
    while x < width - 0.4:
        end = min(x + float(rng.uniform(1.2, 2.8)), width - 0.2)
        if abs(x - door) < 0.9:
            end = min(x + 1.0, width - 0.2)
            panel.rect(x, 0.02, end, 2.3, _tone(inside, 0.7))
            panel.rect(x + 0.1, 0.9, end - 0.1, 2.2, _tone(style.glass, 1.2))
        else:
            panel.rect(x, 0.5, end, top - 0.95, (235, 215, 175) if lit else inside)
            if panel.ppm > 6:
                for _ in range(int(rng.integers(2, 6))):  # the display
                    at, w, h = float(rng.uniform(x, end)), float(rng.uniform(0.15, 0.7)), float(rng.uniform(0.2, 1.0))
                    panel.rect(
                        at,
                        0.5,
                        min(end, at + w),
                        0.5 + h,
                        hsv(float(rng.uniform(0, 360)), float(rng.uniform(0, 0.7)), float(rng.uniform(0.2, 0.9))),
                    )
                panel.rect(x + 0.1, top - 1.4, end - 0.2, top - 1.0, (150, 158, 165))
        x = end + 0.12


def _glazed(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, top: float) -> None:
    """Glass from the ground up with thin bars; behind it a dim room with lights and goods, on it posters and what it mirrors."""
    u = rng.uniform
    dark = hsv(u(190, 260), u(0.0, 0.25), u(0.08, 0.3))
    panel.rect(0, 0, width, top - 0.1, dark)
    low, high = panel.rows - int((top - 0.1) * panel.ppm), panel.rows
    if low < 0 or high - low < 4:
        return
    room = panel.image[low:high]
    mirror = (
        sample_tile(noise_tile(33, 1.6), room.shape[:2], 5 / panel.ppm, rng) * np.linspace(1.3, 0.5, len(room), dtype=np.float32)[:, None]
    )
    veil = cv2.convertScaleAbs(np.maximum(mirror, -0.8), alpha=22, beta=18)
    cv2.add(room, cv2.cvtColor(veil, cv2.COLOR_GRAY2RGB), dst=room)
    for _ in range(int(width * u(1.0, 3.0))):  # goods and lights
        x, y, w, h = float(u(0, width)), float(u(0.2, top - 0.8)), float(u(0.08, 0.7)), float(u(0.08, 0.6))
        color = (250, 240, 215) if rng.random() < 0.3 else hsv(u(0, 360), u(0, 0.6), u(0.15, 0.8))
        panel.rect(x, y, x + w, y + h, _tone(color, float(u(0.5, 1.0))))
    for _ in range(int(u(0, 1 + width * 0.3))):
        _board(rng, panel, float(u(0, width)), float(u(0.5, 1.6)), float(u(0.4, 1.4)), float(u(0.4, 1.2)))
    frame = style.trim if rng.random() < 0.6 else (40, 42, 46)
    pitch = float(u(0.9, 2.4))
    for i in range(int(width / pitch) + 2):
        panel.rect(i * pitch - 0.04, 0, i * pitch + 0.05, top - 0.1, frame)
    for y in (0.0, float(u(2.0, 2.4))):
        panel.rect(0, y, width, y + 0.1, frame)
    if rng.random() < 0.35:  # columns carry what is above
        every, color, wide = float(u(2.5, 5.5)), _tone(style.trim, float(u(0.7, 1.1))), float(u(0.25, 0.5))
        for i in range(int(width / every) + 1):
            panel.column(i * every + 0.1, wide, 0.0, top - 0.1, color)


def _open(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, top: float) -> None:
    """Stalls that are open to the street: dark rooms full of goods, between pillars."""
    u = rng.uniform
    panel.rect(0, 0, width, top - 0.1, style.wall)
    bay = float(u(2.2, 4.0))
    for i in range(max(1, int(width / bay))):
        x0, x1 = i * bay + 0.2, min((i + 1) * bay - 0.15, width - 0.1)
        if rng.random() < 0.25:
            _shutter(rng, panel, x0, x1, top - 0.9)
            continue
        panel.rect(x0, 0.1, x1, top - 0.9, hsv(u(15, 45), u(0.1, 0.5), u(0.06, 0.2)))
        for _ in range(int(u(6, 16))):
            x, y = float(u(x0, x1)), float(u(0.1, top - 1.3))
            w, h = float(u(0.1, 0.6)), float(u(0.08, 0.5))
            panel.rect(x, y, min(x1, x + w), y + h, hsv(u(0, 360), u(0.1, 0.9), u(0.2, 0.9)))
        if rng.random() < 0.5:
            panel.rect(x0, 0.1, x1, float(u(0.5, 1.0)), hsv(u(0, 60), u(0.1, 0.5), u(0.3, 0.7)))


def _shuttered(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, top: float) -> None:
    """Roller shutters, closed."""
    panel.rect(0, 0, width, top - 0.1, style.wall)
    bay = float(rng.uniform(2.4, 4.6))
    for i in range(max(1, int(width / bay))):
        _shutter(rng, panel, i * bay + 0.2, min((i + 1) * bay - 0.15, width - 0.1), top - 0.9)


def _shutter(rng: np.random.Generator, panel: Panel, x0: float, x1: float, top: float) -> None:
    u = rng.uniform
    color = hsv(u(30, 220), u(0, 0.12), u(0.4, 0.8)) if rng.random() < 0.65 else hsv(u(0, 360), u(0.2, 0.7), u(0.25, 0.7))
    panel.rect(x0, 0.05, x1, top, color)
    if panel.ppm > 5:
        for y in np.arange(0.1, top, 0.2).tolist():
            panel.rect(x0, y, x1, y + 0.08, _tone(color, 0.75))
    if rng.random() < 0.4:
        p = panel.ppm
        x = (x0 + (x1 - x0) * rng.uniform(0.1, 0.5) + np.cumsum(rng.uniform(0.02, 0.25, 12))) * p
        points = np.stack([x, panel.rows - rng.uniform(0.4, 1.7, 12) * p], axis=1).astype(np.int32)
        cv2.polylines(panel.image, [points], False, hsv(u(0, 360), u(0.3, 0.9), u(0.2, 0.9)), max(1, int(0.09 * p)), cv2.LINE_AA)


def _fascia(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, top: float) -> None:
    """The name over the shop."""
    panel.rect(0, top - 0.9, width, top - 0.15, style.sign)
    panel.rect(0, top - 0.15, width, top - 0.05, _tone(style.sign, 0.5))
    if panel.ppm > 6:
        letters: Rgb = (245, 240, 225) if sum(style.sign) < 380 else (30, 28, 35)
        start = width * float(rng.uniform(0.08, 0.35))
        end = min(0.92 * width, start + float(rng.uniform(1.2, 4.5)))
        _letters(rng, panel, start, end, top - 0.72, float(rng.uniform(0.28, 0.42)), letters)
        if rng.random() < 0.3:
            panel.rect(0.1, top - 0.8, 0.7, top - 0.25, hsv(float(rng.uniform(0, 360)), 0.7, 0.8))


_SHOPS = {"panes": _panes, "glazed": _glazed, "open": _open, "shuttered": _shuttered}


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
                panel.rect(x + 0.15, 1.5, x + door_width - 0.15, 2.15, _tone(style.glass, 1.2))
            next_door = x + every
            x += door_width + 0.8
        else:
            end = min(x + style.window_width, width - 0.3)
            _window(rng, panel, style, x, 0.9, end, 0.9 + min(style.window_height, 1.6), fine)
            x = end + style.window_gap
