"""What nobody can see is not drawn: things out of the picture, or wholly behind the walls of nearer houses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from iccld.city.buildings import House, Point, between, clip_to_view, outward, wall_quad
from iccld.city.camera import Camera, FloatArray

Box = tuple[float, float, float, float]
_NEAR = 0.6


@dataclass(frozen=True)
class Extent:
    """Room of a thing: an upright cylinder around ground position (x, z), metres; flat ones face the camera."""

    position: Point
    radius: float
    height: float
    is_flat: bool = False


@dataclass(frozen=True)
class Wall:
    """Room of an upright plane over the ground line p..q, `height` metres; opaque ones hide what is behind."""

    p: Point
    q: Point
    height: float
    is_opaque: bool


Room = Extent | Wall | House | None


class Cover:
    """For every column of the picture the rows that opaque walls cover.  Ask and add from near to far, against the order of painting."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        width = camera.size[1]
        self.top: FloatArray = np.full(width, 1e9)
        self.bottom: FloatArray = np.full(width, -1e9)
        self._top: list[float] = self.top.tolist()  # the same as lists: quicker to ask
        self._bottom: list[float] = self.bottom.tolist()

    def admit(self, room: Room) -> bool:
        """Whether a thing can be seen; if so, what it hides counts from now on."""
        if room is None:
            return True
        if isinstance(room, Extent):
            box = self._thing(room)
            return box is None or not self._is_hidden(box)
        wall = room if isinstance(room, Wall) else Wall(room.front[0], room.front[1], room.height, True)
        box = self._wall(wall) if isinstance(room, Wall) else self._house(room)
        if box is not None and self._is_hidden(box):
            return False
        nx, _, nz = outward(wall.p, wall.q)
        if wall.is_opaque and -(wall.p[0] * nx + wall.p[1] * nz) > 0.05:
            self._add(wall)
        return True

    def _is_hidden(self, box: Box) -> bool:
        height, width = self.camera.size
        left, right = max(0, int(box[0]) - 1), min(width, int(box[2]) + 2)
        top, bottom = max(0.0, box[1] - 1), min(float(height - 1), box[3] + 1)
        if left >= right or top > bottom:
            return True  # out of the picture
        return self._top[left] <= top and max(self._top[left:right]) <= top and min(self._bottom[left:right]) >= bottom

    def _thing(self, room: Extent) -> Box | None:
        """Bounds in pixels; None when it comes too near to say."""
        camera = self.camera
        (x, z), radius, height = room.position, room.radius, room.height
        (ax, ay, az, ao), (bx, by, bz, bo), (cx, cy, cz, co) = camera.rows  # written out: half the time of loops over three
        reach = 0.0 if room.is_flat else radius
        near = far = cx * x + cz * z + co
        if cy < 0:
            near += height * cy
        else:
            far += height * cy
        near, far = near - reach, far + reach
        if near < _NEAR:
            return None
        focal = camera.focal_px
        x0 = x1 = ax * x + az * z + ao
        if ay < 0:
            x0 += height * ay
        else:
            x1 += height * ay
        foot = bx * x + bz * z + bo
        x0, x1, y0, y1 = x0 - radius, x1 + radius, foot + height * by + 0.1 * radius, foot - 0.1 * radius
        left, right = x0 / (near if x0 < 0 else far), x1 / (far if x1 < 0 else near)
        up, down = y0 / (far if y0 < 0 else near), y1 / (near if y1 < 0 else far)
        return camera.cx + focal * left, camera.cy - focal * up, camera.cx + focal * right, camera.cy - focal * down

    def _house(self, house: House) -> Box | None:
        (p, q), top = house.front, house.height + (house.rise + 1.2 if house.roof != "flat" else 0.1)
        nx, _, nz = outward(p, q)
        corners = [p, q, (p[0] - nx * house.back, p[1] - nz * house.back), (q[0] - nx * house.back, q[1] - nz * house.back)]
        if house.awning is not None:
            corners += [(p[0] + nx * 1.5, p[1] + nz * 1.5), (q[0] + nx * 1.5, q[1] + nz * 1.5)]
        camera = self.camera
        (ax, ay, az, ao), (bx, by, bz, bo), (cx, cy, cz, co) = camera.rows
        xs, ys = [], []
        for x, z in corners:
            for y in (0.0, top):
                depth = cx * x + cy * y + cz * z + co
                if depth < _NEAR:
                    return None
                xs.append((ax * x + ay * y + az * z + ao) / depth)
                ys.append((bx * x + by * y + bz * z + bo) / depth)
        focal, left, middle = camera.focal_px, camera.cx, camera.cy
        return left + focal * min(xs), middle - focal * max(ys), left + focal * max(xs), middle - focal * min(ys)

    def _wall(self, wall: Wall) -> Box | None:
        part = clip_to_view(self.camera, wall.p, wall.q)
        if part is None:
            return (-9.0, -9.0, -9.0, -9.0)
        a, b = between(wall.p, wall.q, part[0]), between(wall.p, wall.q, part[1])
        return _bounds(wall_quad(self.camera, a, b, 0.0, wall.height)[0])

    def _add(self, wall: Wall) -> None:
        part = clip_to_view(self.camera, wall.p, wall.q)
        if part is None:
            return
        a, b = between(wall.p, wall.q, part[0]), between(wall.p, wall.q, part[1])
        (x0, t0), (x1, t1), (x2, b1), (x3, b0) = wall_quad(self.camera, a, b, 0.0, wall.height)[0].tolist()
        left, right = max(0, math.ceil(max(x0, x3)) + 1), min(self.camera.size[1], int(min(x1, x2)))
        if right - left < 2:
            return
        columns = np.arange(left, right)
        top = t0 + (t1 - t0) / (x1 - x0) * (columns - x0) + 1.0
        bottom = b0 + (b1 - b0) / (x2 - x3) * (columns - x3) - 1.0
        old_top, old_bottom = self.top[left:right], self.bottom[left:right]
        is_joined = (top <= old_bottom + 1) & (bottom >= old_top - 1)
        is_larger = bottom - top > old_bottom - old_top
        self.top[left:right] = np.where(is_joined, np.minimum(top, old_top), np.where(is_larger, top, old_top))
        self.bottom[left:right] = np.where(is_joined, np.maximum(bottom, old_bottom), np.where(is_larger, bottom, old_bottom))
        self._top[left:right], self._bottom[left:right] = self.top[left:right].tolist(), self.bottom[left:right].tolist()


def _bounds(pixels: FloatArray) -> Box:
    xs, ys = pixels.T.tolist()
    return min(xs), min(ys), max(xs), max(ys)
