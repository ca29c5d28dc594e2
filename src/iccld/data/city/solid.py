"""Small solids of flat faces: culled, shaded and painted in the order they were built.  Cars, buses and boxes are made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from iccld.data.city.camera import NEAR_M, Camera, FloatArray, clip_near
from iccld.data.city.canvas import LIMIT_PX, SHIFT, Canvas
from iccld.data.city.light import Light

Point = tuple[float, float, float]
Rgb = tuple[float, float, float]
Quad = tuple[Point, Point, Point, Point]
Face = tuple[Sequence[Point], Rgb, Point | None, float]
"""Corners (convex, in order), surface colour, a point inside the solid (None: seen from both sides), share of own light 0..1."""


_SQUARE = np.array([(1.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (-1.0, 1.0)])
_ROUND = np.array([(math.cos(i * math.pi / 4), math.sin(i * math.pi / 4)) for i in range(8)])


def _grain() -> FloatArray:
    """A tile (96, 96) of smooth noise of several scales, mean 0, about -1..1."""
    rng = np.random.default_rng(20)
    tile = np.zeros((96, 96), np.float32)
    for cells, weight in ((6, 0.5), (14, 0.35), (32, 0.3), (96, 0.2)):
        tile += weight * cv2.resize(rng.standard_normal((cells, cells)).astype(np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
    out: FloatArray = np.clip(tile - tile.mean(), -1.2, 1.2)
    return out


_GRAIN = _grain()


class Decal(tuple[Point, ...]):
    """A face that lies on another one of the same thing: it needs colour, the label is there already."""

    __slots__ = ()


class Stage:
    """Where one thing stands: its own axes x right, y up, z ahead, metres, origin on the ground.

    heading_rad 0 looks along world Z (away from a camera that looks ahead), +pi/2 along world X (to the right), pi at the camera.
    """

    def __init__(
        self, canvas: Canvas, camera: Camera, position: tuple[float, float], heading_rad: float, light: Light, base: float = 0.0
    ) -> None:
        sin, cos = math.sin(heading_rad), math.cos(heading_rad)
        self.canvas, self.camera, self.light = canvas, camera, light
        self.rotation = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
        self.origin = np.array([position[0], base, position[1]], np.float64)
        viewer = self.rotation @ (np.array([0.0, camera.height_m, 0.0]) - self.origin)
        self.viewer: Point = (float(viewer[0]), float(viewer[1]), float(viewer[2]))
        self.touched: list[float] = [1e9, 1e9, -1e9, -1e9]  # x0, y0, x1, y1 px of what was painted
        self.depth = float(camera.depth_of(self.origin[None])[0])
        sun = self.rotation @ np.array(light.direction)
        self.sun: Point = (float(sun[0]), float(sun[1]), float(sun[2]))

    @property
    def scale(self) -> float:
        """Pixels per metre at the thing's origin (at half a metre for things at or behind the camera)."""
        return self.camera.focal_px / max(self.depth, 0.5)

    @property
    def is_behind(self) -> bool:
        """Whether the origin lies so far behind the camera that nothing up to 20 m long can be seen."""
        return self.depth < -20.0

    def world(self, points: Sequence[Point] | FloatArray) -> FloatArray:
        """Own axes (N, 3) -> world (N, 3), metres."""
        out: FloatArray = np.asarray(points, np.float64) @ self.rotation + self.origin
        return out

    def pixels(self, points: Sequence[Point] | FloatArray) -> tuple[FloatArray, FloatArray]:
        """Own axes (N, 3) metres -> pixels (N, 2) and depths (N,) metres."""
        in_camera = self.camera.to_camera(self.world(points))
        return self.camera.camera_to_pixel(in_camera), in_camera[:, 2]

    def factor(self, normal: Point) -> float:
        """Brightness of a surface whose outward normal is given in own axes."""
        world = np.asarray(normal) @ self.rotation
        return self.light.factor(world)

    def lit(self, color: Rgb, factor: float = 0.8) -> Rgb:
        """A colour under `factor` of the scene's light, 0..255."""
        tint = self.light.color
        return (min(255.0, color[0] * factor * tint[0]), min(255.0, color[1] * factor * tint[1]), min(255.0, color[2] * factor * tint[2]))

    def shadow(self, half_width: float, rear: float, front: float, height: float, is_round: bool = False) -> None:
        """Darken the ground under and, in the sun, beside a thing: colour only, the label stays."""
        if self.depth > 70.0 or self.depth < -8.0:
            return
        plan = _ROUND if is_round else _SQUARE
        middle, reach_z = (rear + front) / 2, (front - rear) / 2
        base = np.stack([plan[:, 0] * half_width * 1.06, np.zeros(len(plan)), middle + plan[:, 1] * reach_z * 1.02], axis=1)
        if self.light.shadow > 0.25 and self.sun[1] > 0.1:
            reach = min(height / self.sun[1], 2.2 * height) * 0.9
            shifted = base - np.array([self.sun[0], 0.0, self.sun[2]]) * reach
            outline = cv2.convexHull(np.concatenate([base, shifted])[:, [0, 2]].astype(np.float32))[:, 0]
            self._darken(np.stack([outline[:, 0], np.zeros(len(outline)), outline[:, 1]], axis=1), 1 - 0.5 * self.light.shadow)
        self._darken(base, 0.45)

    def _darken(self, ground: FloatArray, share: float) -> None:
        """Multiply the colour within a polygon (N, 3) in own axes by `share`."""
        in_camera = clip_near(self.camera.to_camera(self.world(ground)))
        if len(in_camera) < 3:
            return
        pixels = np.clip(self.camera.camera_to_pixel(in_camera), -LIMIT_PX, LIMIT_PX)
        bounds = self.canvas.roi(pixels, 1)
        if bounds is None:
            return
        left, top, right, bottom = bounds
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [((pixels - (left, top)) * (1 << SHIFT)).astype(np.int32)], (1,), cv2.LINE_8, SHIFT)
        view = self.canvas.color[top:bottom, left:right]
        np.copyto(view, cv2.convertScaleAbs(np.ascontiguousarray(view), alpha=share), where=mask[:, :, None].astype(bool))

    def fill(
        self, outlines: Sequence[FloatArray], colors: Sequence[Rgb], depths: Sequence[float], has_label: Sequence[bool], train_id: int
    ) -> None:
        """Fill outlines (N, 2) px in their order: a fast path for many small ones."""
        canvas = self.canvas
        joined = np.concatenate(outlines)
        x0, y0 = joined.min(axis=0)
        x1, y1 = joined.max(axis=0)
        if x1 < -1 or y1 < -1 or x0 > canvas.size[1] or y0 > canvas.size[0]:
            return
        self._touch(joined)
        fixed = (np.clip(joined, -LIMIT_PX, LIMIT_PX) * (1 << SHIFT) + 0.5).astype(np.int32)
        start = 0
        for outline, color, depth, is_labelled in zip(outlines, colors, depths, has_label, strict=True):
            polygon = [fixed[start : start + len(outline)]]
            start += len(outline)
            cv2.fillPoly(canvas.color, polygon, color, cv2.LINE_AA, SHIFT)
            if is_labelled:
                cv2.fillPoly(canvas.label, polygon, (train_id,), cv2.LINE_8, SHIFT)
                cv2.fillPoly(canvas.depth, polygon, (depth,), cv2.LINE_8, SHIFT)

    def _touch(self, pixels: FloatArray) -> None:
        (x0, y0), (x1, y1) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
        a, b, c, d = self.touched
        self.touched = [min(a, x0), min(b, y0), max(c, x1), max(d, y1)]

    def roughen(self, rng: np.random.Generator, train_id: int, strength: float) -> None:
        """Break up flat colours by soft blotches: reflections and dirt on paint, folds in cloth.  strength: relative, about 0.1."""
        amount = float(rng.uniform(0.2, 1.6)) * strength
        cells, x, y = int(rng.integers(8, 40)), int(rng.integers(56)), int(rng.integers(56))
        height, width = self.canvas.size
        x0, y0, x1, y1 = self.touched
        left, top, right, bottom = max(0, int(x0)), max(0, int(y0)), min(width, int(x1) + 1), min(height, int(y1) + 1)
        if right - left < 4 or bottom - top < 8:
            return
        across = max(2, min(cells, (right - left) // 2, 40))
        down = max(2, min(int(across * (bottom - top) / (right - left)) + 1, 40))
        gain = cv2.resize(1 + amount * _GRAIN[y : y + down, x : x + across], (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
        view = self.canvas.color[top:bottom, left:right]
        inside = (self.canvas.label[top:bottom, left:right] == train_id)[:, :, None]
        rough = cv2.multiply(np.ascontiguousarray(view), cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U)
        np.copyto(view, rough, where=inside)

    def paint(self, faces: Sequence[Face], train_id: int | None) -> None:
        """Cull, shade and fill the faces in their order."""
        if not faces:
            return
        # 1. All corners at once: own axes -> camera.
        counts = np.array([len(face[0]) for face in faces])
        start = np.concatenate([[0], np.cumsum(counts)[:-1]])
        own = np.array([point for face in faces for point in face[0]], np.float64)  # (V, 3)
        a, b, c = own[start], own[start + counts // 3], own[start + 2 * counts // 3]
        # 2. Outward normals: away from the inside point, or towards the viewer for faces with two sides.
        u, v = b - a, c - a
        normal = np.stack(
            [u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1], u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2], u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]], 1
        )
        length = np.sqrt((normal * normal).sum(1))
        normal /= np.maximum(length, 1e-9)[:, None]
        viewer = np.array(self.viewer)
        to_viewer = viewer - (a + c) / 2
        inside = np.array([face[2] or self.viewer for face in faces])
        two_sided = np.array([face[2] is None for face in faces])
        outward = np.where(two_sided[:, None], to_viewer, a - inside)
        normal *= np.where((normal * outward).sum(1) < 0, -1.0, 1.0)[:, None]
        visible = (normal * to_viewer).sum(1) > 0
        # 3. Light.
        sky = self.light.ambient * (0.88 + 0.22 * normal[:, 1])
        factor = (sky + self.light.intensity * np.maximum(0.0, normal @ np.array(self.sun)))[:, None] * np.array(self.light.color)
        glow = np.array([face[3] for face in faces])[:, None]
        colors = np.minimum(np.array([face[1] for face in faces]) * (glow + (1 - glow) * factor), 255.0).tolist()
        # 4. Fill, back to front as built.
        in_camera = self.camera.to_camera(own @ self.rotation + self.origin)
        if in_camera[:, 2].min() < NEAR_M:
            for i in np.nonzero(visible)[0]:
                points = own[start[i] : start[i] + counts[i]]
                self.canvas.fill3d(self.camera, points @ self.rotation + self.origin, colors[i], train_id)
            return
        pixels = self.camera.camera_to_pixel(in_camera)
        is_decal = [train_id is None or type(face[0]) is Decal for face in faces]
        self._fill(pixels, in_camera[:, 2], start.tolist(), counts.tolist(), colors, visible.tolist(), is_decal, train_id or 0)

    def _fill(
        self,
        pixels: FloatArray,
        depth: FloatArray,
        start: list[int],
        counts: list[int],
        colors: list[list[float]],
        visible: list[bool],
        is_decal: list[bool],
        train_id: int,
    ) -> None:
        canvas = self.canvas
        height, width = canvas.size
        if pixels[:, 0].max() < -1 or pixels[:, 0].min() > width or pixels[:, 1].max() < -1 or pixels[:, 1].min() > height:
            return
        self._touch(pixels)
        fixed = (np.clip(pixels, -LIMIT_PX, LIMIT_PX) * (1 << SHIFT) + 0.5).astype(np.int32)
        depths = depth.tolist()
        for i, is_seen in enumerate(visible):
            if not is_seen:
                continue
            polygon = [fixed[start[i] : start[i] + counts[i]]]
            cv2.fillPoly(canvas.color, polygon, colors[i], cv2.LINE_AA, SHIFT)
            if not is_decal[i]:
                cv2.fillPoly(canvas.label, polygon, (train_id,), cv2.LINE_8, SHIFT)
                cv2.fillPoly(canvas.depth, polygon, ((depths[start[i]] + depths[start[i] + counts[i] // 2]) / 2,), cv2.LINE_8, SHIFT)


def patch(quad: Sequence[Point], u0: float, u1: float, v0: float, v1: float) -> Decal:
    """A rectangle u0..u1, v0..v1 on a quad whose corners are (0,0), (1,0), (1,1), (0,1)."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz), (dx, dy, dz) = quad[0], quad[1], quad[2], quad[3]

    # Bilinear: the two rails at u0 and u1, then the shares along them.
    w0, w1 = 1 - u0, 1 - u1
    lx, ly, lz = w0 * ax + u0 * bx, w0 * ay + u0 * by, w0 * az + u0 * bz
    mx, my, mz = w0 * dx + u0 * cx - lx, w0 * dy + u0 * cy - ly, w0 * dz + u0 * cz - lz
    rx, ry, rz = w1 * ax + u1 * bx, w1 * ay + u1 * by, w1 * az + u1 * bz
    sx, sy, sz = w1 * dx + u1 * cx - rx, w1 * dy + u1 * cy - ry, w1 * dz + u1 * cz - rz
    return Decal(
        (
            (lx + v0 * mx, ly + v0 * my, lz + v0 * mz),
            (rx + v0 * sx, ry + v0 * sy, rz + v0 * sz),
            (rx + v1 * sx, ry + v1 * sy, rz + v1 * sz),
            (lx + v1 * mx, ly + v1 * my, lz + v1 * mz),
        )
    )


def box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, color: Rgb, glow: float = 0.0) -> list[Face]:
    """The six faces of a box in own axes."""
    inside = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
    sides: list[Quad] = [
        ((x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)),
        ((x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)),
        ((x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)),
        ((x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)),
        ((x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)),
        ((x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)),
    ]
    return [(side, color, inside, glow) for side in sides]


_CIRCLES: dict[int, list[tuple[float, float]]] = {
    n: [(math.cos(2 * math.pi * i / n), math.sin(2 * math.pi * i / n)) for i in range(n)] for n in (6, 8, 10, 12, 14, 16, 20)
}


def disc_x(x: float, y: float, z: float, radius: float, corners: int = 14) -> list[Point]:
    """A disc whose axis is own x (a wheel seen from the side)."""
    return [(x, y + radius * s, z + radius * c) for c, s in _CIRCLES[corners]]


def disc_z(x: float, y: float, z: float, radius: float, corners: int = 14) -> list[Point]:
    """A disc whose axis is own z (a round sign seen from the front)."""
    return [(x + radius * c, y + radius * s, z) for c, s in _CIRCLES[corners]]


def scaled(color: Rgb, share: float) -> Rgb:
    """A colour made darker (share < 1) or lighter."""
    return (min(255.0, color[0] * share), min(255.0, color[1] * share), min(255.0, color[2] * share))


def mixed(a: Rgb, b: Rgb, share: float) -> Rgb:
    """a at share 0, b at share 1."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)
