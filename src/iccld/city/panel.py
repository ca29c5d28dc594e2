"""A flat texture under construction, in metres: rectangles, columns, arches, boards and writing."""

from __future__ import annotations

import cv2
import numpy as np

from iccld.city.texture import Image, hsv

Rgb = tuple[float, float, float]


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
        self.rect(x - 0.06, y0, x + width + 0.06, y1, toned(color, 0.6))
        self.rect(x, y0, x + width, y1, toned(color, 0.85))
        self.rect(x + 0.2 * width, y0, x + 0.62 * width, y1, toned(color, 1.12))
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


def board(rng: np.random.Generator, panel: Panel, x: float, y: float, w: float, h: float) -> None:
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
        letters(rng, panel, x + 0.08 * w, x + w * float(u(0.6, 0.95)), top - 0.14 * h, 0.24 * h, ink)


def letters(rng: np.random.Generator, panel: Panel, x: float, end: float, y: float, height: float, ink: Rgb) -> None:
    """A line of writing, as bars: x..end, standing on y, metres."""
    while x < end - 0.05:
        w = height * float(rng.uniform(0.35, 0.8))
        panel.rect(x, y, x + 0.32 * w, y + height, ink)
        if rng.random() < 0.75:
            bar = y + height * float(rng.choice([0.0, 0.4, 0.75]))
            panel.rect(x, bar, x + w, bar + 0.25 * height, ink)
        x += 1.35 * w + 0.02


def toned(color: Rgb, factor: float) -> Rgb:
    r, g, b = color[0] * factor, color[1] * factor, color[2] * factor
    return (r if r < 255.0 else 255.0, g if g < 255.0 else 255.0, b if b < 255.0 else 255.0)
