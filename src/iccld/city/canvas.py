"""The canvas: colour, label and depth, painted back to front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from iccld.city.camera import Camera, FloatArray, bounded
from iccld.city.light import Light
from iccld.city.light import shade as shade_color

Color = tuple[float, float, float] | FloatArray
FAR_M = 655.35
"""Depth of the sky: the largest distance that 16-bit centimetres can hold."""
SHIFT = 4
LIMIT_PX = 30000.0
VOID = 255
_SMALL = 4000
"""Pixels up to which numpy's own masks are the quicker ones."""


def fixed_point(corners: Sequence[Sequence[float]]) -> npt.NDArray[np.int32]:
    """Pixels (N, 2) -> OpenCV's fixed point; int() rounds towards 0: off by 1/16 px left of the canvas, unseen."""
    s = 1 << SHIFT
    if len(corners) == 4:  # most have four: written out, flat, that takes two thirds of the time of the loop
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
        flat = (
            int(x0 * s + 0.5), int(y0 * s + 0.5), int(x1 * s + 0.5), int(y1 * s + 0.5),
            int(x2 * s + 0.5), int(y2 * s + 0.5), int(x3 * s + 0.5), int(y3 * s + 0.5),
        )  # fmt: skip
        return np.array(flat, np.int32).reshape(4, 2)
    if len(corners) > 7:
        return (np.array(corners) * s + 0.5).astype(np.int32)
    return np.array([(int(x * s + 0.5), int(y * s + 0.5)) for x, y in corners], np.int32)


def _scalar(color: Color) -> tuple[float, float, float]:
    return float(color[0]), float(color[1]), float(color[2])


def put(view: npt.NDArray[Any], values: npt.NDArray[Any] | float, inside: npt.NDArray[Any]) -> None:
    """Write a number, or values like `view`, where `inside` (bool or uint8) is not 0.  A tenth of the time of numpy's copyto."""
    if view.size < _SMALL and inside.dtype == np.bool_ and not isinstance(values, np.ndarray):
        view[inside] = values  # half the time of a sheet of numbers and its copy
        return
    source = values if isinstance(values, np.ndarray) else np.full(view.shape, values, view.dtype)
    cv2.copyTo(source, inside.view(np.uint8), view)


class Canvas:
    """color (H, W, 3) uint8 RGB, label (H, W) uint8 train ids (255 = void), depth (H, W) float32 metres.

    Everything is painted over what is there, so draw back to front.  `train_id` None changes the colour alone: details on top of
    something whose label stands.  Pixels are x right, y down, the centre of the first pixel is (0, 0).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        height, width = size
        self.size = size
        self.color: npt.NDArray[np.uint8] = np.zeros((height, width, 3), np.uint8)
        self.label: npt.NDArray[np.uint8] = np.full((height, width), VOID, np.uint8)
        self.depth: npt.NDArray[np.float32] = np.full((height, width), FAR_M, np.float32)

    def roi(self, points: FloatArray, margin: int = 2) -> tuple[int, int, int, int] | None:
        """Bounding box x0, y0, x1, y1 (exclusive end) of points (N, 2) clipped to the canvas, or None when outside."""
        height, width = self.size
        xs, ys = points.T.tolist()
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
        left, top = max(0, int(x0) - margin), max(0, int(y0) - margin)
        right, bottom = min(width, int(x1) + margin + 1), min(height, int(y1) + margin + 1)
        if x1 < -margin or y1 < -margin or right <= left or bottom <= top:
            return None
        return left, top, right, bottom

    def fill(
        self,
        points: FloatArray | list[tuple[float, float]],
        color: Color,
        train_id: int | None = None,
        depth: float | None = None,
        *,
        color2: Color | None = None,
        alpha: float = 1.0,
    ) -> None:
        """Fill a polygon (N, 2) px with RGB `color`; `color2` at its lower edge makes a vertical gradient; `alpha` blends the colour."""
        corners = points.tolist() if isinstance(points, np.ndarray) else points
        if len(corners) < 3:
            return
        xs, ys = zip(*corners, strict=True)  # plain floats: arrays cost more than they save on a few corners
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
        if x1 < -1 or y1 < -1 or x0 > self.size[1] or y0 > self.size[0]:
            return
        if x0 < -LIMIT_PX or y0 < -LIMIT_PX or x1 > LIMIT_PX or y1 > LIMIT_PX:
            corners = [(bounded(x, -LIMIT_PX, LIMIT_PX), bounded(y, -LIMIT_PX, LIMIT_PX)) for x, y in zip(xs, ys, strict=True)]
        fixed = fixed_point(corners)
        if color2 is None and alpha >= 1.0:
            cv2.fillPoly(self.color, [fixed], _scalar(color), cv2.LINE_AA, SHIFT)
        else:
            self._blend(fixed, (x0, y0, x1, y1), color, color2, alpha)
        if train_id is not None:
            cv2.fillPoly(self.label, [fixed], int(train_id), cv2.LINE_8, SHIFT)
            if depth is not None:
                cv2.fillPoly(self.depth, [fixed], float(depth), cv2.LINE_8, SHIFT)

    def _blend(
        self, fixed: npt.NDArray[np.int32], bounds: tuple[float, float, float, float], color: Color, color2: Color | None, alpha: float
    ) -> None:
        """Blend a polygon in fixed-point pixels with `bounds` x0, y0, x1, y1 over the colour."""
        height, width = self.size
        x0, y0, x1, y1 = bounds
        left, top = max(0, int(x0) - 1), max(0, int(y0) - 1)
        right, bottom = min(width, int(x1) + 3), min(height, int(y1) + 3)
        target = self.color[top:bottom, left:right]
        offset = (-left * (1 << SHIFT), -top * (1 << SHIFT))
        if color2 is None:
            patch = target.copy()
            cv2.fillPoly(patch, [fixed], _scalar(color), cv2.LINE_AA, SHIFT, offset)
            cv2.addWeighted(patch, alpha, target, 1 - alpha, 0, dst=target)
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SHIFT, offset)
        share = np.clip((np.arange(top, bottom) - y0) / max(1.0, y1 - y0), 0, 1)[:, None, None].astype(np.float32)
        paint = np.asarray(color, np.float32) * (1 - share) + np.asarray(color2, np.float32) * share
        weight = mask[:, :, None] * np.float32(alpha / 255)
        target[...] = target + (paint - target) * weight + np.float32(0.5)

    def line(
        self,
        p: tuple[float, float] | FloatArray,
        q: tuple[float, float] | FloatArray,
        width_px: float,
        color: Color,
        train_id: int | None = None,
        depth: float | None = None,
        *,
        width2_px: float | None = None,
    ) -> None:
        """A straight bar from p to q px, `width_px` wide (`width2_px` at q).  Thinner than one pixel it fades, and its label stays one
        pixel wide down to 0.4 px; below that only the colour is touched."""
        x0, y0, x1, y1 = float(p[0]), float(p[1]), float(q[0]), float(q[1])
        end_width = width_px if width2_px is None else width2_px
        thickest = max(width_px, end_width)
        if thickest <= 1.3:
            self._thin_line((x0, y0), (x1, y1), thickest, color, train_id if thickest >= 0.4 else None, depth)
            return
        length = max(1e-6, math.hypot(x1 - x0, y1 - y0))
        nx, ny = -(y1 - y0) / length / 2, (x1 - x0) / length / 2
        # fillPoly paints half a pixel beyond the outline: take it back so that width is width.
        a, b = max(0.1, width_px - 1.0), max(0.1, end_width - 1.0)
        quad = [(x0 + nx * a, y0 + ny * a), (x1 + nx * b, y1 + ny * b), (x1 - nx * b, y1 - ny * b), (x0 - nx * a, y0 - ny * a)]
        self.fill(quad, color, train_id, depth)

    def _thin_line(
        self, p: tuple[float, float], q: tuple[float, float], width: float, color: Color, train_id: int | None, depth: float | None
    ) -> None:
        limit = LIMIT_PX
        ends = [(bounded(x, -limit, limit), bounded(y, -limit, limit)) for x, y in (p, q)]
        height, canvas_width = self.size
        (x0, y0), (x1, y1) = ends
        left, top = max(0, int(min(x0, x1)) - 2), max(0, int(min(y0, y1)) - 2)
        right, bottom = min(canvas_width, int(max(x0, x1)) + 3), min(height, int(max(y0, y1)) + 3)
        if right <= left or bottom <= top:
            return
        scale = 1 << SHIFT
        a, b = (round(x0 * scale), round(y0 * scale)), (round(x1 * scale), round(y1 * scale))
        if width >= 0.95:
            cv2.line(self.color, a, b, _scalar(color), 1, cv2.LINE_AA, SHIFT)
        else:
            view = self.color[top:bottom, left:right]
            patch = view.copy()
            local_a, local_b = (a[0] - left * scale, a[1] - top * scale), (b[0] - left * scale, b[1] - top * scale)
            cv2.line(patch, local_a, local_b, _scalar(color), 1, cv2.LINE_AA, SHIFT)
            cv2.addWeighted(patch, width, view, 1 - width, 0, dst=view)
        if train_id is not None:
            cv2.line(self.label, a, b, int(train_id), 1, cv2.LINE_8, SHIFT)
            if depth is not None:
                cv2.line(self.depth, a, b, float(depth), 1, cv2.LINE_8, SHIFT)

    def ellipse(
        self,
        center: tuple[float, float] | FloatArray,
        axes: tuple[float, float],
        angle: float,
        color: Color,
        train_id: int | None = None,
        depth: float | None = None,
        *,
        alpha: float = 1.0,
    ) -> None:
        """A filled ellipse: centre px, half axes px, `angle` degrees clockwise."""
        steps = int(bounded(2 * max(axes), 8, 40))
        turn = np.linspace(0, 2 * np.pi, steps, endpoint=False)
        x, y = np.cos(turn) * axes[0], np.sin(turn) * axes[1]
        radians = np.radians(angle)
        cos, sin = np.cos(radians), np.sin(radians)
        points = np.stack([center[0] + x * cos - y * sin, center[1] + x * sin + y * cos], axis=1)
        self.fill(points, color, train_id, depth, alpha=alpha)

    def sprite(
        self,
        rgb: npt.NDArray[np.uint8],
        alpha: FloatArray,
        x0: float,
        y0: float,
        train_id: int | None = None,
        depth: float | FloatArray | None = None,
    ) -> None:
        """Blend rgb (h, w, 3) uint8 with alpha (h, w) 0..1, its top left pixel at (x0, y0); labelled where alpha > 0.5."""
        height, width = self.size
        x, y = round(x0), round(y0)
        left, top = max(0, x), max(0, y)
        right, bottom = min(width, x + rgb.shape[1]), min(height, y + rgb.shape[0])
        if right <= left or bottom <= top:
            return
        inner = (slice(top - y, bottom - y), slice(left - x, right - x))
        view = self.color[top:bottom, left:right]
        weight = np.asarray(alpha[inner], np.float32)[:, :, None]
        view[...] = view + (rgb[inner].astype(np.float32) - view) * weight + 0.5
        if train_id is not None:
            inside = weight[:, :, 0] > 0.5
            put(self.label[top:bottom, left:right], train_id, inside)
            if depth is not None:
                far = depth if isinstance(depth, (int, float)) else np.asarray(depth[inner], np.float32)
                put(self.depth[top:bottom, left:right], far, inside)

    def textured_quad(
        self,
        corners_px: FloatArray | list[tuple[float, float]],
        texture: npt.NDArray[np.uint8],
        train_id: int | None = None,
        depth_corners: FloatArray | list[float] | float | None = None,
        *,
        alpha: FloatArray | None = None,
        is_filled: bool = False,
    ) -> None:
        """Warp `texture` (h, w, 3) onto the corners (4, 2) px: upper left, upper right, lower right, lower left of the texture.

        depth_corners: (4,) metres at the corners (interpolated as a plane: 1/depth is linear on the picture), or one number.
        alpha: (h, w) 0..1, see-through texture; the label follows alpha > 0.5, or with is_filled covers the whole quad."""
        corners = np.minimum(np.maximum(np.asarray(corners_px, np.float64), -LIMIT_PX), LIMIT_PX)
        box = self.roi(corners, 1)
        if box is None:
            return
        left, top, right, bottom = box
        local = corners - (left, top)
        h, w = texture.shape[:2]
        texture, alpha, h, w = _shrink_to(texture, alpha, local, h, w)
        source = np.array([[-0.5, -0.5], [w - 0.5, -0.5], [w - 0.5, h - 0.5], [-0.5, h - 0.5]], np.float32)
        matrix = cv2.getPerspectiveTransform(source, local.astype(np.float32))
        size = (right - left, bottom - top)
        warped = cv2.warpPerspective(texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = np.zeros((size[1], size[0]), np.uint8)
        cv2.fillPoly(mask, [fixed_point(local.tolist())], 255, cv2.LINE_AA, SHIFT)
        outline = mask
        if alpha is not None:
            shape = cv2.warpPerspective(alpha.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR)
            mask = np.asarray(cv2.multiply(mask, shape, dtype=cv2.CV_8U), np.uint8)
        view = self.color[top:bottom, left:right]
        cv2.blendLinear(warped, view, mask.astype(np.float32), cv2.bitwise_not(mask).astype(np.float32), dst=view)
        if train_id is not None:
            inside = (outline if is_filled else mask) > 127
            put(self.label[top:bottom, left:right], train_id, inside)
            if depth_corners is not None:
                depth = np.full(4, depth_corners) if isinstance(depth_corners, (int, float)) else np.asarray(depth_corners, np.float64)
                self._write_depth(box, inside, corners, depth)

    def _write_depth(self, box: tuple[int, int, int, int], inside: npt.NDArray[np.bool_], points: FloatArray, depth: FloatArray) -> None:
        """Depth of a plane through pixel `points` (N, 2) with `depth` (N,): 1/depth is linear in x and y."""
        left, top, right, bottom = box
        view = self.depth[top:bottom, left:right]
        inverse = 1.0 / np.maximum(depth, 1e-3)
        low, high = min(inverse.tolist()), max(inverse.tolist())
        if high < low * 1.02:
            put(view, 2.0 / (low + high), inside)
            return
        gx, gy, g0 = _plane(points, inverse)
        across, down = np.arange(left, right, dtype=np.float32) * np.float32(gx), np.arange(top, bottom) * gy + g0
        plane = across[None] + down.astype(np.float32)[:, None]
        np.minimum(np.maximum(plane, np.float32(low), out=plane), np.float32(high), out=plane)
        put(view, np.reciprocal(plane, out=plane), inside)

    def fill3d(
        self,
        camera: Camera,
        points: FloatArray | Sequence[Sequence[float]],
        color: Color,
        train_id: int | None = None,
        *,
        color2: Color | None = None,
        alpha: float = 1.0,
    ) -> None:
        """Fill a world polygon (N, 3) metres: clipped at the near plane, projected; depth is its plane where it is long in depth."""
        pixels, depths = camera.outline(points)
        if len(pixels) < 3:
            return
        nearest, farthest = min(depths), max(depths)
        self.fill(pixels, color, train_id, sum(depths) / len(depths), color2=color2, alpha=alpha)
        if train_id is None or farthest < nearest * 1.25:
            return
        corners = np.clip(np.array(pixels), -LIMIT_PX, LIMIT_PX)
        box = self.roi(corners)
        if box is None:
            return
        mask = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
        cv2.fillPoly(mask, [np.round((corners - box[:2]) * (1 << SHIFT)).astype(np.int32)], 255, cv2.LINE_8, SHIFT)
        self._write_depth(box, mask > 0, corners, np.array(depths))

    def shade(self, color: Color, normal: tuple[float, float, float] | FloatArray, light: Light) -> tuple[int, int, int]:
        """RGB of a surface under `light` (see light.shade)."""
        return shade_color(color, normal, light)


def _plane(points: FloatArray, values: FloatArray) -> tuple[float, float, float]:
    """Coefficients of value = gx x + gy y + g0 through three of the points (N, 2), the three that span the largest triangle."""
    corners, known = points.tolist(), values.tolist()
    x0, y0 = corners[0]
    rest = [(x - x0, y - y0) for x, y in corners[1:]]
    best, pair = 0.0, (0, 1)
    for i, (ax, ay) in enumerate(rest):
        for j in range(i + 1, len(rest)):
            area = abs(ax * rest[j][1] - ay * rest[j][0])
            if area > best:
                best, pair = area, (i, j)
    (ax, ay), (bx, by) = rest[pair[0]], rest[pair[1]]
    cross = ax * by - ay * bx
    if abs(cross) < 1e-6:
        return 0.0, 0.0, sum(known) / len(known)
    da, db = known[pair[0] + 1] - known[0], known[pair[1] + 1] - known[0]
    gx, gy = (da * by - db * ay) / cross, (db * ax - da * bx) / cross
    return gx, gy, known[0] - gx * x0 - gy * y0


def _shrink_to(
    texture: npt.NDArray[np.uint8], alpha: FloatArray | None, corners: FloatArray, h: int, w: int
) -> tuple[npt.NDArray[np.uint8], FloatArray | None, int, int]:
    """Shrink a texture much larger than its quad (area average), so that distance does not alias."""
    a, b, c, d = corners.tolist()
    top, right, bottom, left = math.dist(a, b), math.dist(b, c), math.dist(c, d), math.dist(d, a)
    new_w = int(bounded(max(top, bottom), 2, w))
    new_h = int(bounded(max(left, right), 2, h))
    if new_w > 0.7 * w and new_h > 0.7 * h:
        return texture, alpha, h, w
    texture = np.asarray(cv2.resize(texture, (new_w, new_h), interpolation=cv2.INTER_AREA), np.uint8)
    if alpha is not None:
        alpha = np.asarray(cv2.resize(alpha, (new_w, new_h), interpolation=cv2.INTER_AREA), np.float32)
    return texture, alpha, new_h, new_w
