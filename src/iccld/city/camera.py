"""The pinhole camera of a street scene: metres in, pixels out, and back to the ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]

NEAR_M = 0.3
"""Nothing nearer than this is drawn, metres along the optical axis."""


def bounded(value: float, low: float, high: float) -> float:
    """`value` held between low and high: for single numbers, where numpy's clip costs more than the drawing."""
    return low if value < low else high if value > high else value


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above the origin of the ground.

    World axes: X right, Y up (0 = ground), Z forward, metres.  Pixels: x right, y down, the centre of the first pixel is (0, 0).
    focal_px: focal length.  cx: column of the optical axis.  horizon_y: row of the horizon at cx.  height_m: height above ground.
    size: (H, W).  yaw, pitch, roll: radians; positive yaw looks right, pitch tilts the verticals (the horizon stays at horizon_y),
    roll turns the picture clockwise.
    """

    focal_px: float
    cx: float
    horizon_y: float
    height_m: float
    size: tuple[int, int]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    rotation: FloatArray = field(init=False, repr=False, compare=False)
    cy: float = field(init=False, repr=False, compare=False)
    _turn: FloatArray = field(init=False, repr=False, compare=False)
    _shift: FloatArray = field(init=False, repr=False, compare=False)
    rows: tuple[tuple[float, float, float, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cos_y, sin_y = math.cos(self.yaw), math.sin(self.yaw)
        cos_p, sin_p = math.cos(self.pitch), math.sin(self.pitch)
        cos_r, sin_r = math.cos(self.roll), math.sin(self.roll)
        turn = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]])
        tilt = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
        spin = np.array([[cos_r, sin_r, 0], [-sin_r, cos_r, 0], [0, 0, 1]])
        rotation = spin @ tilt @ turn
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "_turn", np.ascontiguousarray(rotation.T))
        object.__setattr__(self, "_shift", rotation @ np.array([0.0, -self.height_m, 0.0]))
        shift = self._shift.tolist()
        object.__setattr__(self, "rows", tuple((*row, shift[i]) for i, row in enumerate(rotation.tolist())))
        # A tilted camera sees the horizon f tan(pitch) away from its optical axis: move the axis so that the horizon stays.
        object.__setattr__(self, "cy", self.horizon_y - self.focal_px * math.tan(self.pitch))

    def to_camera(self, points: FloatArray) -> FloatArray:
        """World (N, 3) metres -> camera axes (N, 3) metres: x right, y up, z along the optical axis."""
        return np.asarray(points, dtype=np.float64) @ self._turn + self._shift

    def camera_to_pixel(self, points: FloatArray) -> FloatArray:
        """Camera axes (N, 3) -> pixels (N, 2) x, y; z is clipped at NEAR_M."""
        out: FloatArray = points[:, :2] * (self.focal_px / np.maximum(points[:, 2:], NEAR_M))
        out[:, 0] += self.cx
        np.subtract(self.cy, out[:, 1], out=out[:, 1])
        return out

    def project(self, points: FloatArray) -> FloatArray:
        """World (N, 3) metres -> pixels (N, 2) x, y.  Points nearer than NEAR_M are pushed to it: clip polygons first."""
        return self.camera_to_pixel(self.to_camera(points))

    def outline(self, points: FloatArray | Sequence[Sequence[float]]) -> tuple[list[tuple[float, float]], list[float]]:
        """World polygon (N, 3) metres, cut at the near plane -> pixels (M, 2) and depths (M,); M may be 0.

        Plain floats: for a few corners that is several times quicker than arrays."""
        corners = points.tolist() if isinstance(points, np.ndarray) else points
        (ax, ay, az, ao), (bx, by, bz, bo), (cx, cy, cz, co) = self.rows
        depth = [cx * x + cy * y + cz * z + co for x, y, z in corners]
        focal, left, top = self.focal_px, self.cx, self.cy
        if min(depth) >= NEAR_M:  # nearly always
            return [
                (left + focal * (ax * x + ay * y + az * z + ao) / far, top - focal * (bx * x + by * y + bz * z + bo) / far)
                for (x, y, z), far in zip(corners, depth, strict=True)
            ], depth
        inside = _cut_near(
            [(ax * x + ay * y + az * z + ao, bx * x + by * y + bz * z + bo, far) for (x, y, z), far in zip(corners, depth, strict=True)]
        )
        return [(left + focal * x / z, top - focal * y / z) for x, y, z in inside], [p[2] for p in inside]

    def depth_of(self, points: FloatArray) -> FloatArray:
        """World (N, 3) metres -> depth (N,) metres along the optical axis; negative behind the camera."""
        return self.to_camera(points)[:, 2]

    def depth_at(self, position: tuple[float, float]) -> float:
        """Depth of the point one metre above ground position (x, z): `depth_of` without arrays."""
        a, b, c, d = self.rows[2]
        return a * position[0] + b + c * position[1] + d

    def clip_polygon_near(self, points: FloatArray) -> FloatArray:
        """World polygon (N, 3) -> world polygon (M, 3) in front of the near plane; M may be 0."""
        camera_points = clip_near(self.to_camera(points))
        return camera_points @ self.rotation + (0.0, self.height_m, 0.0)

    def pixels_per_metre(self, depth: float) -> float:
        """Size in pixels of one metre at `depth` metres."""
        return self.focal_px / max(depth, NEAR_M)

    def is_visible(self, position: tuple[float, float], radius: float = 2.0) -> bool:
        """Whether a thing of `radius` metres around ground position (x, z) can touch the picture."""
        sin, cos = math.sin(self.yaw), math.cos(self.yaw)  # pitch and roll are small: the radius covers them
        across, ahead = cos * position[0] - sin * position[1], sin * position[0] + cos * position[1]
        if ahead < NEAR_M - radius:
            return False
        scale = self.focal_px / max(ahead, NEAR_M)
        column = self.cx + across * scale
        return -radius * scale <= column <= self.size[1] + radius * scale

    def ground_rays(self, columns: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Pixels (..., ) -> world directions (X, Y, Z) with optical-axis depth 1; a ray meets the ground where Y < 0."""
        a = (columns - self.cx) / self.focal_px
        b = (self.cy - rows) / self.focal_px
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = self.rotation.tolist()  # plain floats keep float32 pixels float32
        return a * ax + b * bx + cx, a * ay + b * by + cy, a * az + b * bz + cz


def _cut_near(points: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """clip_near for lists."""
    kept: list[tuple[float, float, float]] = []
    px, py, pz = points[-1]
    for x, y, z in points:
        if (z >= NEAR_M) != (pz >= NEAR_M):
            share = (NEAR_M - pz) / (z - pz)
            kept.append((px + share * (x - px), py + share * (y - py), NEAR_M))
        if z >= NEAR_M:
            kept.append((x, y, z))
        px, py, pz = x, y, z
    return kept


def clip_near(points: FloatArray, near: float = NEAR_M) -> FloatArray:
    """Polygon in camera axes (N, 3) -> polygon (M, 3) with z >= near (Sutherland-Hodgman on one plane); M may be 0."""
    depth = points[:, 2].tolist()
    if min(depth) >= near:
        return points
    if max(depth) < near:
        return points[:0]
    kept: list[FloatArray] = []
    previous = points[-1]
    for current in points:
        if (current[2] >= near) != (previous[2] >= near):
            share = (near - previous[2]) / (current[2] - previous[2])
            kept.append(previous + share * (current - previous))
        if current[2] >= near:
            kept.append(current)
        previous = current
    return np.array(kept)
