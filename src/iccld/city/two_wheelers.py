"""Bicycles and motorcycles, parked or under a rider."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from iccld.city.camera import FloatArray
from iccld.city.canvas import LIMIT_PX, SHIFT
from iccld.city.solid import Point, Rgb, Stage, disc_x, mixed, scaled

MOTORCYCLE, BICYCLE = 17, 18
_FRAMES: tuple[Rgb, ...] = (
    (24, 24, 26),
    (30, 30, 34),
    (150, 150, 154),
    (150, 26, 28),
    (34, 60, 130),
    (40, 96, 60),
    (200, 200, 198),
    (120, 80, 40),
)


@dataclass(frozen=True)
class CycleStyle:
    """Colours and fittings of one two-wheeler."""

    frame: Rgb
    has_basket: bool
    has_mudguards: bool
    lamp: bool
    size: float


def bicycle_style(rng: np.random.Generator) -> CycleStyle:
    """Draw the style of a bicycle."""
    frame = _FRAMES[int(rng.integers(len(_FRAMES)))]
    if rng.random() < 0.1:
        frame = (float(rng.uniform(20, 240)), float(rng.uniform(20, 240)), float(rng.uniform(20, 240)))
    return CycleStyle(frame, bool(rng.random() < 0.25), bool(rng.random() < 0.5), bool(rng.random() < 0.4), float(rng.uniform(0.94, 1.04)))


def motorcycle_style(rng: np.random.Generator) -> CycleStyle:
    """Draw the style of a motorcycle; has_basket is a top box, has_mudguards a fairing (scooter)."""
    frame = _FRAMES[int(rng.integers(len(_FRAMES)))]
    return CycleStyle(frame, bool(rng.random() < 0.35), bool(rng.random() < 0.5), True, float(rng.uniform(0.95, 1.05)))


def draw_bicycle(stage: Stage, rng: np.random.Generator) -> None:
    """A parked bicycle (label 18)."""
    stage.shadow(0.12, -0.8, 0.8, 0.8, is_round=True)
    paint_bicycle(stage, bicycle_style(rng), lean=float(rng.uniform(-0.12, 0.12)))


def draw_motorcycle(stage: Stage, rng: np.random.Generator) -> None:
    """A parked motorcycle or scooter (label 17)."""
    stage.shadow(0.3, -1.0, 1.0, 1.0, is_round=True)
    paint_motorcycle(stage, motorcycle_style(rng), lean=float(rng.uniform(-0.14, 0.14)))


class Drawing:
    """Bars, rings and sheets given in own axes, painted from far to near with one label."""

    def __init__(self, stage: Stage, train_id: int, lean: float = 0.0) -> None:
        self.stage, self.train_id, self.lean = stage, train_id, lean
        self.points: list[Point] = []
        self.items: list[
            tuple[str, int, int, float, Rgb, float]
        ] = []  # kind, first point, number of points, width m or alpha, colour, glow

    def add(self, kind: str, points: list[Point], width: float, color: Rgb, glow: float = 0.0) -> None:
        """kind: bar (2 points, metres wide), ring (outline, metres wide), sheet (polygon, width is its opacity)."""
        self.items.append((kind, len(self.points), len(points), width, color, glow))
        self.points += points

    def paint(self) -> None:
        """Project everything once and paint from far to near."""
        own = np.array(self.points, np.float64)
        own[:, 0] += self.lean * own[:, 1]
        pixels, depth = self.stage.pixels(own)
        if depth.min() < 0.4:
            return
        pixels = np.clip(pixels, -LIMIT_PX, LIMIT_PX)
        canvas, focal = self.stage.canvas, self.stage.camera.focal_px
        factor = self.stage.factor((0.3, 0.6, 0.4))
        add = np.add.reduce  # what mean() does, in half its time
        nearness = [float(add(depth[first : first + num])) / num for _, first, num, _, _, _ in self.items]
        order = sorted(range(len(self.items)), key=lambda i: -nearness[i])
        shapes: list[FloatArray] = []
        colors: list[Rgb] = []
        fars: list[float] = []

        def flush() -> None:
            if shapes:
                self.stage.fill(shapes, colors, fars, [True] * len(shapes), self.train_id)
                shapes.clear()
                colors.clear()
                fars.clear()

        for i in order:
            kind, first, num, width, color, glow = self.items[i]
            part, far = pixels[first : first + num], float(depth[first])
            lit = self.stage.lit(color, glow + (1 - glow) * factor)
            width_px = width * focal / far
            if (kind == "sheet" and width >= 1.0) or (kind == "bar" and width_px > 1.3):
                shapes.append(part if kind == "sheet" else bar_outline(part, width_px - 0.8))
                colors.append(lit)
                fars.append(far)
                continue
            flush()
            if kind == "sheet":
                canvas.fill(part, lit, self.train_id, far, alpha=width)
            elif kind == "bar":
                canvas.line(part[0], part[1], max(width_px, 0.5), lit, self.train_id, far)
            else:
                self._ring(part, width_px, lit, far)
        flush()

    def _ring(self, part: FloatArray, width_px: float, color: Rgb, far: float) -> None:
        canvas = self.stage.canvas
        fixed = [(part * (1 << SHIFT)).astype(np.int32)]
        thickness = max(1, round(width_px))
        cv2.polylines(canvas.color, fixed, True, color, thickness, cv2.LINE_AA, SHIFT)
        cv2.polylines(canvas.label, fixed, True, (self.train_id,), thickness, cv2.LINE_8, SHIFT)
        cv2.polylines(canvas.depth, fixed, True, (far,), thickness, cv2.LINE_8, SHIFT)


def bar_outline(ends: FloatArray, width: float) -> FloatArray:
    """Ends (2, 2) px of a bar -> its outline (4, 2)."""
    (x0, y0), (x1, y1) = ends.tolist()
    dx, dy = x1 - x0, y1 - y0
    share = width / 2 / (math.hypot(dx, dy) or 1.0)
    u, v = -dy * share, dx * share
    return np.array([(x0 + u, y0 + v), (x1 + u, y1 + v), (x1 - u, y1 - v), (x0 - u, y0 - v)])


def paint_bicycle(stage: Stage, style: CycleStyle, lean: float = 0.0, turn: float = 0.0) -> None:
    """Paint a bicycle: wheels' insides are labelled too, as people outline them.  turn: pedal angle in radians."""
    s, r = style.size, 0.345
    rear, front = (0.0, r, -0.53 * s), (0.0, r, 0.53 * s)
    crank, seat, head = (0.0, 0.29, -0.06 * s), (0.0, 0.88 * s, -0.22 * s), (0.0, 0.88 * s, 0.34 * s)
    drawing = Drawing(stage, BICYCLE, lean)
    far = stage.scale < 16
    black: Rgb = (22, 22, 24)
    for hub in (rear, front):
        circle = disc_x(0.0, r, hub[2], r * 0.97, 12 if far else 20)
        drawing.add("sheet", circle, 0.22, (80, 82, 84))
        drawing.add("ring", circle, 0.045, black)
        if not far:
            drawing.add("bar", [(0.0, r - 0.03, hub[2]), (0.0, r + 0.03, hub[2])], 0.07, (120, 120, 122))
            if abs(stage.viewer[0]) < 0.7 * abs(stage.viewer[2]):  # a tyre's breadth, all that is seen of it from front and rear
                drawing.add("bar", [(0.0, 0.02, hub[2]), (0.0, 2 * r, hub[2])], 0.05, black)
    if far:
        for a, b in ((rear, seat), (seat, head), (head, front)):
            drawing.add("bar", [a, b], 0.06, style.frame)
        drawing.add("bar", [(-0.28, 1.03 * s, 0.34 * s), (0.28, 1.03 * s, 0.34 * s)], 0.06, (40, 40, 42))
        drawing.paint()
        return
    tubes = [(rear, crank), (rear, seat), (crank, seat), (crank, head), (seat, head), (head, front)]
    for a, b in tubes:
        drawing.add("bar", [a, b], 0.04, style.frame)
    top = (0.0, 1.02 * s, 0.36 * s)
    drawing.add("bar", [head, top], 0.035, (90, 90, 92))
    drawing.add("bar", [(-0.28, 1.03 * s, 0.34 * s), (0.28, 1.03 * s, 0.34 * s)], 0.04, (40, 40, 42))
    drawing.add("bar", [seat, (0.0, 0.97 * s, -0.25 * s)], 0.035, (110, 110, 112))
    drawing.add(
        "sheet",
        [(-0.08, 0.98 * s, -0.37 * s), (0.08, 0.98 * s, -0.37 * s), (0.03, 0.97 * s, -0.10 * s), (-0.03, 0.97 * s, -0.10 * s)],
        1.0,
        black,
    )
    drawing.add("bar", [(-0.07, 0.97 * s, -0.34 * s), (0.07, 0.97 * s, -0.34 * s)], 0.07, black)
    for side in (-1, 1):
        foot = (side * 0.12, 0.29 + side * 0.17 * math.cos(turn), -0.06 * s + side * 0.17 * math.sin(turn))
        drawing.add("bar", [(side * 0.06, 0.29, -0.06 * s), foot], 0.03, (70, 70, 72))
    _fittings(stage, drawing, style)
    drawing.paint()


def _fittings(stage: Stage, drawing: Drawing, style: CycleStyle) -> None:
    """Mudguards, basket and lamps of a bicycle."""
    s, r = style.size, 0.345
    rear, front = (0.0, r, -0.53 * s), (0.0, r, 0.53 * s)
    if style.has_mudguards:
        for hub in (rear, front):
            arc = [p for p in disc_x(0.0, r, hub[2], r * 1.06, 16) if p[1] > r * 0.9]
            drawing.add("bar", [arc[0], arc[len(arc) // 3]], 0.05, style.frame)
            drawing.add("bar", [arc[len(arc) // 3], arc[-2]], 0.05, style.frame)
        drawing.add("bar", [(0.0, 0.2, -0.53 * s - 0.36), (0.0, 0.68, -0.53 * s - 0.2)], 0.055, style.frame)
    if style.has_basket:
        z = 0.55 * s
        drawing.add("sheet", [(-0.17, 0.78, z), (0.17, 0.78, z), (0.2, 1.0, z), (-0.2, 1.0, z)], 0.8, (96, 78, 54))
        drawing.add("sheet", [(0.0, 0.78, z - 0.12), (0.0, 0.78, z + 0.14), (0.0, 1.0, z + 0.17), (0.0, 1.0, z - 0.14)], 0.8, (96, 78, 54))
    if style.lamp and _sees_rear(stage):
        drawing.add("bar", [(-0.02, 0.72, -0.62 * s), (0.02, 0.72, -0.62 * s)], 0.05, (220, 24, 22), 0.6)
    elif style.lamp:
        drawing.add("bar", [(-0.02, 0.92, 0.45 * s), (0.02, 0.92, 0.45 * s)], 0.06, (230, 230, 225), 0.3 + 0.6 * stage.light.night)


def _sees_rear(stage: Stage) -> bool:
    """Whether the camera sees the rear lights; lamps are flat and shine one way."""
    return stage.viewer[2] < 0.4 * abs(stage.viewer[0])


def paint_motorcycle(stage: Stage, style: CycleStyle, lean: float = 0.0) -> None:
    """Paint a motorcycle, or a scooter when it has a fairing."""
    s, r = style.size, 0.31
    drawing = Drawing(stage, MOTORCYCLE, lean)
    rear, front = (0.0, r, -0.70 * s), (0.0, r, 0.70 * s)
    black: Rgb = (20, 20, 22)
    for hub in (rear, front):
        drawing.add("sheet", disc_x(0.0, r, hub[2], r, 14), 1.0, black)
        drawing.add("sheet", disc_x(0.0, r, hub[2], r * 0.62, 12), 0.8, (110, 112, 114))
        drawing.add("bar", [(0.0, 0.06, hub[2]), (0.0, 2 * r - 0.06, hub[2])], 0.15, black)
    dark = mixed(style.frame, (20, 20, 22), 0.5)
    is_far = stage.scale < 16
    drawing.add("sheet", [(0, 0.26, -0.32), (0, 0.26, 0.36), (0, 0.62, 0.42), (0, 0.66, -0.36)], 1.0, (52, 53, 56))
    drawing.add("sheet", [(0, 0.60, -0.2), (0, 0.66, 0.46), (0, 0.96, 0.36), (0, 0.82, -0.12)], 1.0, style.frame)
    drawing.add("sheet", [(0, 0.72, -0.86), (0, 0.62, -0.30), (0, 0.80, 0.0), (0, 0.86, -0.84)], 1.0, dark)
    # Breadth, seen from front and rear: tank, seat, engine.
    drawing.add("bar", [(-0.11, 0.80, 0.2), (0.11, 0.80, 0.2)], 0.26, style.frame)
    drawing.add("bar", [(-0.13, 0.80, -0.55), (0.13, 0.80, -0.55)], 0.14, black)
    drawing.add("bar", [(-0.18, 0.42, 0.0), (0.18, 0.42, 0.0)], 0.30, (46, 47, 50))
    if _sees_rear(stage):
        drawing.add("bar", [(-0.08, 0.76, -0.88), (0.08, 0.76, -0.88)], 0.09, (210, 24, 22), 0.5)
        drawing.add("bar", [(-0.09, 0.58, -0.90), (0.09, 0.58, -0.90)], 0.15, (226, 200, 70), 0.1)
    else:
        drawing.add("bar", [(-0.05, 0.90, 0.55), (0.05, 0.90, 0.55)], 0.19, (235, 235, 228), 0.4 + 0.6 * stage.light.night)
    if is_far:
        drawing.add("bar", [(0.0, r, 0.70 * s), (0.0, 0.98, 0.44)], 0.12, (130, 132, 134))
        drawing.paint()
        return
    for x in (-0.09, 0.09):
        drawing.add("bar", [(x, r, 0.70 * s), (x, 0.98, 0.44)], 0.06, (130, 132, 134))
    drawing.add("bar", [(-0.34, 1.03, 0.36), (0.34, 1.03, 0.36)], 0.05, (30, 30, 32))
    drawing.add("bar", [(0.15, 0.34, -0.1), (0.15, 0.42, -0.85)], 0.09, (140, 140, 142))
    for x in (-0.36, 0.36):
        drawing.add("bar", [(x, 1.18, 0.38), (x * 1.25, 1.18, 0.38)], 0.09, (28, 28, 30))
    if style.has_mudguards:
        drawing.add("sheet", [(-0.2, 0.30, 0.42), (0.2, 0.30, 0.42), (0.22, 0.98, 0.48), (-0.22, 0.98, 0.48)], 1.0, style.frame)
        drawing.add("sheet", [(0, 0.25, 0.40), (0, 0.35, 0.56), (0, 1.05, 0.50), (0, 1.0, 0.34)], 1.0, scaled(style.frame, 0.9))
        drawing.add("sheet", [(-0.17, 0.98, 0.48), (0.17, 0.98, 0.48), (0.12, 1.28, 0.38), (-0.12, 1.28, 0.38)], 0.6, (120, 128, 136))
    if style.has_basket:
        drawing.add("bar", [(-0.2, 1.0, -0.8), (0.2, 1.0, -0.8)], 0.34, dark)
        drawing.add("sheet", [(0, 0.86, -1.0), (0, 0.86, -0.62), (0, 1.18, -0.65), (0, 1.18, -0.98)], 1.0, dark)
    drawing.paint()
