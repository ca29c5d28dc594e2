"""Facades as flat textures: wall, windows, doors, shopfronts.  One metre is `ppm` pixels; the picture is later put in perspective."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from iccld.city.texture import Image, hsv, noise_tile, sample_material, sample_tile, tinted

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class FacadeStyle:
    """How one house is built.  material: see texture.material_tile, or 'glass'.  Lengths in metres; shop: has a shopfront."""

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


def make_style(rng: np.random.Generator, kind: str, world: str, night: float) -> FacadeStyle:
    """A random style for kind: terrace, houses, blocks, old.  The worlds differ in palette and in proportions."""
    u = rng.uniform
    sim = world == "sim"
    if kind == "blocks":
        material = str(rng.choice(["glass", "concrete", "plaster", "stone", "brick"], p=[0.24, 0.28, 0.18, 0.12, 0.18]))
    elif kind == "houses":
        material = str(rng.choice(["brick", "plaster", "stone", "wood"], p=[0.42, 0.38, 0.1, 0.1] if sim else [0.2, 0.3, 0.35, 0.15]))
    else:
        material = str(rng.choice(["brick", "plaster", "stone"], p=[0.45, 0.35, 0.2] if sim else [0.25, 0.25, 0.5]))
    trim = hsv(u(20, 60), u(0, 0.12), u(0.7, 0.97)) if rng.random() < 0.7 else hsv(u(0, 360), u(0.1, 0.5), u(0.12, 0.4))
    ribbon = bool(kind == "blocks" and rng.random() < 0.4)
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
    if rng.random() < 0.6:
        return hsv(u(30, 60), u(0.0, 0.16), u(0.68, 0.95))
    return hsv(u(0, 360) if sim else u(20, 60), u(0.1, 0.4), u(0.5, 0.9))


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
    if style.shop:
        _shopfront(rng, panel, style, width, ground_floor)
    elif style.material != "glass":
        _ground_floor(rng, panel, style, width)
    if shown >= height - 0.5:  # the cornice, if it is in the picture
        panel.rect(0, height - 0.35, width, height, _tone(style.trim if style.band else style.wall, 0.9))
        panel.rect(0, height - 0.45, width, height - 0.35, _tone(style.wall, 0.55))
    panel.rect(0, 0, width, 0.25, _tone(style.wall, 0.6))
    return panel.image


def _tone(color: Rgb, factor: float) -> Rgb:
    r, g, b = (min(255.0, c * factor) for c in color)
    return r, g, b


def _window_row(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, y: float, window_height: float) -> None:
    pitch = style.window_width + style.window_gap
    count = int((width - 0.4) / pitch)
    if count < 1:
        return
    start = (width - count * pitch + style.window_gap) / 2
    fine = panel.ppm > 7
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
    panel.rect(x0 + 0.07, y0 + 0.07, x1 - 0.07, y1 - 0.07, glass)
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


def _shopfront(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, top: float) -> None:
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
    panel.rect(0, top - 0.9, width, top - 0.15, style.sign)
    panel.rect(0, top - 0.15, width, top - 0.05, _tone(style.sign, 0.5))
    if panel.ppm > 6:
        letters = (245, 240, 225) if sum(style.sign) < 380 else (30, 28, 35)
        at = width * float(rng.uniform(0.1, 0.35))
        for _ in range(int(rng.integers(4, 11))):
            if at > width * 0.9:
                break
            w = float(rng.uniform(0.14, 0.3))
            panel.rect(at, top - 0.72, at + w * 0.35, top - 0.34, letters)
            if rng.random() < 0.7:
                bar = float(rng.choice([0.72, 0.55, 0.42]))
                panel.rect(at, top - bar, at + w, top - bar + 0.09, letters)
            at += w + 0.1


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
