"""Shop fronts: windows in frames, glass walls, open stalls, roller shutters, and the name above."""

from __future__ import annotations

import cv2
import numpy as np

from iccld.city.facade_style import FacadeStyle
from iccld.city.panel import Panel, Rgb, board, letters, toned
from iccld.city.texture import hsv, noise_tile, sample_tile


def _panes(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, top: float) -> None:
    """Windows of some width each, a door, goods on display."""
    front = style.sign if rng.random() < 0.5 else toned(style.trim, 0.9)
    panel.rect(0, 0, width, top - 0.1, front)
    panel.rect(0, 0, width, 0.45, toned(front, 0.7))
    door = float(rng.uniform(0.3, max(0.31, width - 1.4)))
    inside = hsv(float(rng.uniform(20, 50)), float(rng.uniform(0, 0.4)), float(rng.uniform(0.08, 0.3)))
    lit = rng.random() < 0.25 + 2 * style.lit
    x = 0.25
    while x < width - 0.4:
        end = min(x + float(rng.uniform(1.2, 2.8)), width - 0.2)
        if abs(x - door) < 0.9:
            end = min(x + 1.0, width - 0.2)
            panel.rect(x, 0.02, end, 2.3, toned(inside, 0.7))
            panel.rect(x + 0.1, 0.9, end - 0.1, 2.2, toned(style.glass, 1.2))
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
        panel.rect(x, y, x + w, y + h, toned(color, float(u(0.5, 1.0))))
    for _ in range(int(u(0, 1 + width * 0.3))):
        board(rng, panel, float(u(0, width)), float(u(0.5, 1.6)), float(u(0.4, 1.4)), float(u(0.4, 1.2)))
    frame = style.trim if rng.random() < 0.6 else (40, 42, 46)
    pitch = float(u(0.9, 2.4))
    for i in range(int(width / pitch) + 2):
        panel.rect(i * pitch - 0.04, 0, i * pitch + 0.05, top - 0.1, frame)
    for y in (0.0, float(u(2.0, 2.4))):
        panel.rect(0, y, width, y + 0.1, frame)
    if rng.random() < 0.35:  # columns carry what is above
        every, color, wide = float(u(2.5, 5.5)), toned(style.trim, float(u(0.7, 1.1))), float(u(0.25, 0.5))
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
            panel.rect(x0, y, x1, y + 0.08, toned(color, 0.75))
    if rng.random() < 0.4:
        p = panel.ppm
        x = (x0 + (x1 - x0) * rng.uniform(0.1, 0.5) + np.cumsum(rng.uniform(0.02, 0.25, 12))) * p
        points = np.stack([x, panel.rows - rng.uniform(0.4, 1.7, 12) * p], axis=1).astype(np.int32)
        cv2.polylines(panel.image, [points], False, hsv(u(0, 360), u(0.3, 0.9), u(0.2, 0.9)), max(1, int(0.09 * p)), cv2.LINE_AA)


def draw_fascia(rng: np.random.Generator, panel: Panel, style: FacadeStyle, width: float, top: float) -> None:
    """The name over the shop."""
    panel.rect(0, top - 0.9, width, top - 0.15, style.sign)
    panel.rect(0, top - 0.15, width, top - 0.05, toned(style.sign, 0.5))
    if panel.ppm > 6:
        ink: Rgb = (245, 240, 225) if sum(style.sign) < 380 else (30, 28, 35)
        start = width * float(rng.uniform(0.08, 0.35))
        end = min(0.92 * width, start + float(rng.uniform(1.2, 4.5)))
        letters(rng, panel, start, end, top - 0.72, float(rng.uniform(0.28, 0.42)), ink)
        if rng.random() < 0.3:
            panel.rect(0.1, top - 0.8, 0.7, top - 0.25, hsv(float(rng.uniform(0, 360)), 0.7, 0.8))


SHOP_FRONTS = {"panes": _panes, "glazed": _glazed, "open": _open, "shuttered": _shuttered}
