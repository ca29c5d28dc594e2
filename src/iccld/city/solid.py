"""Small solids of flat faces: culled, shaded and painted in the order they were built.  Cars, buses and boxes are made of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from iccld.city.camera import NEAR_M, Camera, FloatArray, bounded
from iccld.city.canvas import LIMIT_PX, SHIFT, Canvas, fixed_point, put
from iccld.city.light import Light

Point = tuple[float, float, float]
Rgb = tuple[float, float, float]
Quad = tuple[Point, Point, Point, Point]
Face = tuple[Sequence[Point], Rgb, Point | None, float]
"""Corners (convex, in order), surface colour, a point inside the solid (None: seen from both sides), share of own light 0..1."""


_SQUARE = ((1.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (-1.0, 1.0))
_ROUND = tuple((math.cos(i * math.pi / 4), math.sin(i * math.pi / 4)) for i in range(8))


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
        self.turn = (cos, sin)
        x, z = float(position[0]), float(position[1])
        self.origin: Point = (x, base, z)
        self.viewer: Point = (-cos * x + sin * z, camera.height_m - base, -sin * x - cos * z)
        self.touched: list[float] = [1e9, 1e9, -1e9, -1e9]  # x0, y0, x1, y1 px of what was painted
        # Own axes -> camera axes: three rows of factors of x, y, z, 1.
        (a0, b0, c0, d0), (a1, b1, c1, d1), (a2, b2, c2, d2) = camera.rows
        self.depth = a2 * x + b2 * base + c2 * z + d2
        self.rows = (
            (a0 * cos - c0 * sin, b0, a0 * sin + c0 * cos, a0 * x + b0 * base + c0 * z + d0),
            (a1 * cos - c1 * sin, b1, a1 * sin + c1 * cos, a1 * x + b1 * base + c1 * z + d1),
            (a2 * cos - c2 * sin, b2, a2 * sin + c2 * cos, self.depth),
        )
        sx, sy, sz = light.direction
        self.sun: Point = (cos * sx - sin * sz, sy, sin * sx + cos * sz)

    @cached_property
    def rotation(self) -> FloatArray:
        """World axes -> own axes (3, 3)."""
        cos, sin = self.turn
        return np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])

    @cached_property
    def _matrix(self) -> tuple[FloatArray, FloatArray]:
        """`rows` as a factor (3, 3) and a shift (3,) of row vectors."""
        rows = np.array(self.rows)
        return np.ascontiguousarray(rows[:, :3].T), rows[:, 3]

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
        turn, shift = self._matrix
        own = np.asarray(points, np.float64) if isinstance(points, np.ndarray) else _rows_of_three(points)
        in_camera = own @ turn + shift
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
        if self.depth > 55.0 or self.depth < -8.0:
            return
        middle, wide, reach_z = (rear + front) / 2, half_width * 1.06, (front - rear) * 0.51
        base = [(x * wide, middle + z * reach_z) for x, z in (_ROUND if is_round else _SQUARE)]
        if self.light.shadow > 0.25 and self.sun[1] > 0.1:
            reach = min(height / self.sun[1], 2.2 * height) * 0.9
            dx, dz = self.sun[0] * reach, self.sun[2] * reach
            hull = cv2.convexHull(np.array([*base, *((x - dx, z - dz) for x, z in base)], np.float32))
            self._darken(hull[:, 0].tolist(), 1 - 0.5 * self.light.shadow)
        self._darken(base, 0.45)

    def _darken(self, ground: Sequence[Sequence[float]], share: float) -> None:
        """Multiply the colour within a ground polygon (N, 2) in own axes x, z by `share`."""
        (cos, sin), (x0, y0, z0) = self.turn, self.origin
        pixels, _ = self.camera.outline([(x * cos + z * sin + x0, y0, z * cos - x * sin + z0) for x, z in ground])
        self.canvas.fill(pixels, (0.0, 0.0, 0.0), alpha=1 - share)

    def fill(
        self, outlines: Sequence[FloatArray], colors: Sequence[Rgb], depths: Sequence[float], has_label: Sequence[bool], train_id: int
    ) -> None:
        """Fill outlines (N, 2) px in their order: a fast path for many small ones."""
        canvas = self.canvas
        joined = np.concatenate(outlines)
        xs, ys = joined.T.tolist()
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
        if x1 < -1 or y1 < -1 or x0 > canvas.size[1] or y0 > canvas.size[0]:
            return
        self._touch(x0, y0, x1, y1)
        fixed = _fixed_points(joined, (x0, y0, x1, y1))
        faces, start = [], 0
        for outline, color, depth, is_labelled in zip(outlines, colors, depths, has_label, strict=True):
            end = start + len(outline)
            faces.append((start, end, color, depth, is_labelled))
            start = end
        _fill_all(canvas, fixed, faces, train_id)

    def _touch(self, x0: float, y0: float, x1: float, y1: float) -> None:
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
        rough = cv2.multiply(view, cv2.cvtColor(gain, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)
        put(view, rough, self.canvas.label[top:bottom, left:right] == train_id)

    def paint(self, faces: Sequence[Face], train_id: int | None) -> None:
        """Cull, shade and fill the faces in their order."""
        if len(faces) > 20 and self._paint_many(faces, train_id):
            return
        focal, left, top = self.camera.focal_px, self.camera.cx, self.camera.cy
        (ax, ay, az, ao), (bx, by, bz, bo), (cx, cy, cz, co) = self.rows
        corners: list[tuple[float, float]] = []
        seen: list[tuple[int, int, Rgb, float, bool]] = []  # first corner, end, colour, depth, is labelled
        for face in faces:
            color = self._shaded(face)
            if color is None:
                continue
            points = face[0]
            depths = [cx * x + cy * y + cz * z + co for x, y, z in points]
            if min(depths) < NEAR_M:
                self._fill(corners, seen, train_id or 0)
                corners, seen = [], []
                self.canvas.fill3d(self.camera, self.world(points), color, train_id)
                continue
            first = len(corners)
            for (x, y, z), depth in zip(points, depths, strict=True):
                scale = focal / depth
                corners.append((left + scale * (ax * x + ay * y + az * z + ao), top - scale * (bx * x + by * y + bz * z + bo)))
            is_labelled = train_id is not None and type(points) is not Decal
            seen.append((first, len(corners), color, (depths[0] + depths[len(depths) // 2]) / 2, is_labelled))
        self._fill(corners, seen, train_id or 0)

    def _paint_many(self, faces: Sequence[Face], train_id: int | None) -> bool:
        """`paint` for many faces, with arrays; False, and nothing done, when a corner lies behind the near plane."""
        counts = np.array([len(face[0]) for face in faces])
        end = np.cumsum(counts)
        start = end - counts
        own = _rows_of_three(itertools.chain.from_iterable(face[0] for face in faces))  # (V, 3)
        turn, shift = self._matrix
        in_camera = own @ turn + shift
        if float(in_camera[:, 2].min()) < NEAR_M:
            return False
        # Outward normals: away from the inside point, or towards the viewer for faces with two sides.
        a, b, c = own[start], own[start + counts // 3], own[start + 2 * counts // 3]
        u, v = b - a, c - a
        (ux, uy, uz), (vx, vy, vz) = u.T, v.T
        normal = np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], axis=1)
        viewer = np.array(self.viewer)
        toward = np.einsum("ij,ij->i", normal, viewer - (a + c) / 2)
        inside = _rows_of_three(face[2] or self.viewer for face in faces)
        is_two_sided = [face[2] is None for face in faces]
        outward = np.where(is_two_sided, toward, np.einsum("ij,ij->i", normal, a - inside))
        seen = np.flatnonzero(toward * outward > 0)
        normal, outward = normal[seen], outward[seen]
        length = np.sqrt(np.einsum("ij,ij->i", normal, normal)) * np.sign(outward)
        normal /= np.where(length == 0, 1.0, length)[:, None]
        light = self.light
        factor = light.ambient * (0.88 + 0.22 * normal[:, 1]) + light.intensity * np.maximum(0.0, normal @ np.array(self.sun))
        order = seen.tolist()
        glow = np.array([faces[i][3] for i in order])
        gain = glow[:, None] + ((1 - glow) * factor)[:, None] * np.array(light.color)
        colors = np.minimum(_rows_of_three(faces[i][1] for i in order) * gain, 255.0).tolist()
        pixels = self.camera.camera_to_pixel(in_camera)
        depth, first, last = in_camera[:, 2].tolist(), start.tolist(), end.tolist()
        has_label, shown = train_id is not None, []
        for i, color in zip(order, colors, strict=True):
            j, k = first[i], last[i]
            shown.append((j, k, color, (depth[j] + depth[(j + k) // 2]) / 2, has_label and type(faces[i][0]) is not Decal))
        xs, ys = pixels.T.tolist()
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
        self._fill_fixed(_fixed_points(pixels, (x0, y0, x1, y1)), (x0, y0, x1, y1), shown, train_id or 0)
        return True

    def _shaded(self, face: Face) -> Rgb | None:
        """The lit colour of a face; None when it is turned away."""
        points, color, inside, glow = face
        vx, vy, vz = self.viewer
        third = len(points) // 3
        x0, y0, z0 = points[0]
        x1, y1, z1 = points[third]
        x2, y2, z2 = points[2 * third if third > 1 or len(points) < 4 else 2]
        ux, uy, uz, wx, wy, wz = x1 - x0, y1 - y0, z1 - z0, x2 - x0, y2 - y0, z2 - z0
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        toward = nx * (vx - (x0 + x2) / 2) + ny * (vy - (y0 + y2) / 2) + nz * (vz - (z0 + z2) / 2)
        outward = toward if inside is None else nx * (x0 - inside[0]) + ny * (y0 - inside[1]) + nz * (z0 - inside[2])
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        if (toward if outward >= 0 else -toward) <= 0 or length < 1e-12:
            return None
        if outward < 0:
            length = -length
        light, (sx, sy, sz) = self.light, self.sun
        sun = (nx * sx + ny * sy + nz * sz) / length
        factor = light.ambient * (0.88 + 0.22 * ny / length) + (light.intensity * sun if sun > 0 else 0.0)
        lit = (1 - glow) * factor
        r, g, b = light.color
        return (min(255.0, color[0] * (glow + lit * r)), min(255.0, color[1] * (glow + lit * g)), min(255.0, color[2] * (glow + lit * b)))

    def _fill(self, corners: list[tuple[float, float]], faces: list[tuple[int, int, Rgb, float, bool]], train_id: int) -> None:
        """Fill faces (first corner, end, colour, depth, is labelled) in their order."""
        if not faces:
            return
        xs, ys = [p[0] for p in corners], [p[1] for p in corners]
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
        if x0 < -LIMIT_PX or y0 < -LIMIT_PX or x1 > LIMIT_PX or y1 > LIMIT_PX:
            corners = [(bounded(x, -LIMIT_PX, LIMIT_PX), bounded(y, -LIMIT_PX, LIMIT_PX)) for x, y in corners]
        self._fill_fixed(fixed_point(corners), (x0, y0, x1, y1), faces, train_id)

    def _fill_fixed(
        self,
        fixed: npt.NDArray[np.int32],
        bounds: tuple[float, float, float, float],
        faces: list[tuple[int, int, Rgb, float, bool]],
        train_id: int,
    ) -> None:
        canvas = self.canvas
        height, width = canvas.size
        x0, y0, x1, y1 = bounds
        if x1 < -1 or x0 > width or y1 < -1 or y0 > height:
            return
        self._touch(x0, y0, x1, y1)
        _fill_all(canvas, fixed, faces, train_id)


def _fill_all(canvas: Canvas, fixed: npt.NDArray[np.int32], faces: Sequence[tuple[int, int, Rgb, float, bool]], train_id: int) -> None:
    """Fill polygons (first corner, end, colour, depth, is labelled) of the corners `fixed` in their order."""
    fill, smooth, hard, shift = cv2.fillPoly, cv2.LINE_AA, cv2.LINE_8, SHIFT  # looked up once: a scene fills hundreds
    color, label, depth, tag = canvas.color, canvas.label, canvas.depth, (train_id,)
    for first, end, paint, far, is_labelled in faces:
        polygon = [fixed[first:end]]
        fill(color, polygon, paint, smooth, shift)
        if is_labelled:
            fill(label, polygon, tag, hard, shift)
            fill(depth, polygon, (far,), hard, shift)


def _rows_of_three(rows: Iterable[Sequence[float]]) -> FloatArray:
    """N times three numbers as (N, 3): in half the time of np.array."""
    return np.fromiter(itertools.chain.from_iterable(rows), np.float64).reshape(-1, 3)


def _fixed_points(pixels: FloatArray, bounds: tuple[float, float, float, float]) -> npt.NDArray[np.int32]:
    """Pixels (N, 2) within `bounds` x0, y0, x1, y1 -> OpenCV's fixed point, held within LIMIT_PX."""
    if bounds[0] < -LIMIT_PX or bounds[1] < -LIMIT_PX or bounds[2] > LIMIT_PX or bounds[3] > LIMIT_PX:
        pixels = np.minimum(np.maximum(pixels, -LIMIT_PX), LIMIT_PX)
    return (pixels * (1 << SHIFT) + 0.5).astype(np.int32)


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
