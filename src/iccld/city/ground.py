"""The ground: strips of road, pavement and plots as polygons, then texture, shadow and depth per pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from iccld.city.camera import Camera, FloatArray, bounded
from iccld.city.canvas import FAR_M, LIMIT_PX, SHIFT, Canvas, fixed_point, put
from iccld.city.layout import ROAD, SIDEWALK, SKY, TERRAIN, Junction, Street
from iccld.city.light import Light
from iccld.city.texture import FloatMap, hsv, lookup, noise_tile

Rgb = tuple[float, float, float]

ASPHALT, PAVING, GRASS, SOIL, COBBLE, LOT = range(6)
# A car park is road: CamVid names it so, and where Cityscapes speaks of parking nothing is scored.
MATERIAL_LABEL = (ROAD, SIDEWALK, TERRAIN, TERRAIN, ROAD, ROAD)
#                 fine  middle coarse  (share of brightness per standard deviation of noise)
MATERIAL_NOISE = ((0.09, 0.045, 0.07), (0.07, 0.05, 0.05), (0.24, 0.16, 0.10), (0.16, 0.12, 0.10), (0.20, 0.06, 0.05), (0.10, 0.06, 0.07))
FAR_Z = 700.0
FARTHEST_M = 600.0
"""Depth given to ground at the horizon, metres."""
_QUARTER = [(float(np.cos(a)), float(np.sin(a))) for a in np.linspace(0, np.pi / 2, 6)]


@dataclass(frozen=True)
class GroundPalette:
    """RGB of each ground material before light, and of paint."""

    asphalt: Rgb
    paving: Rgb
    walk: Rgb
    kerb: Rgb
    grass: Rgb
    soil: Rgb
    cobble: Rgb
    lot: Rgb
    paint: Rgb
    yellow: Rgb
    bike: Rgb | None

    def of(self, material: int) -> Rgb:
        """RGB of a material id."""
        return (self.asphalt, self.paving, self.grass, self.soil, self.cobble, self.lot)[material]


def make_palette(rng: np.random.Generator, world: str) -> GroundPalette:
    """Plausible colours; `sim` spreads wider, `camera` keeps to worn, darker, less saturated ground."""
    u = rng.uniform
    spread = 1.0 if world == "sim" else 0.6
    road = float(np.clip(rng.normal(0.42 if world == "sim" else 0.36, 0.085 * spread), 0.2, 0.68))
    pave = float(np.clip(road * u(0.95, 1.45) + 0.03, 0.28, 0.85))
    asphalt = hsv(u(200, 250) if rng.random() < 0.7 else u(20, 50), u(0.0, 0.09 * spread + 0.02), road)
    paving = hsv(u(20, 45) if rng.random() < 0.65 else u(200, 230), u(0.02, 0.16), pave)
    if rng.random() < 0.14:
        paving = hsv(u(8, 22), u(0.2, 0.45), pave * 0.85)  # brick pavers
    return GroundPalette(
        asphalt=asphalt,
        paving=paving,
        walk=hsv(u(200, 250) if rng.random() < 0.5 else u(8, 50), u(0.0, 0.12), float(np.clip(road * u(0.8, 1.3), 0.2, 0.75))),
        kerb=hsv(u(25, 220), u(0, 0.06), min(0.9, pave * u(0.85, 1.25))),
        grass=hsv(u(62, 112), u(0.3, 0.62), u(0.3, 0.58)),
        soil=hsv(u(22, 45), u(0.18, 0.45), u(0.28, 0.55)),
        cobble=hsv(u(20, 230), u(0, 0.1), road * u(0.85, 1.2)),
        lot=hsv(u(25, 220), u(0, 0.08), road * u(0.9, 1.25)),
        paint=hsv(u(40, 60), u(0, 0.06), u(0.72, 0.98)),
        yellow=hsv(u(42, 52), u(0.4, 0.85), u(0.65, 0.95)),
        bike=None if rng.random() < 0.5 else hsv(float(rng.choice([4, 8, 140, 215])), u(0.25, 0.55), u(0.36, 0.6)),
    )


class Ground:
    """Paints the ground of one scene.  `material` (H, W) uint8 remembers what each pixel is made of, `shadow` (H, W) uint8 where the sun
    does not reach (255 = full shadow)."""

    def __init__(
        self, canvas: Canvas, camera: Camera, street: Street, palette: GroundPalette, light: Light, rng: np.random.Generator
    ) -> None:
        self.canvas, self.camera, self.street, self.palette, self.light, self.rng = canvas, camera, street, palette, light, rng
        height, width = canvas.size
        self.material: npt.NDArray[np.uint8] = np.full((height, width), SOIL, np.uint8)
        self.shadow: npt.NDArray[np.uint8] = np.zeros((height, width), np.uint8)
        self._rays()

    def _rays(self) -> None:
        height, width = self.canvas.size
        rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
        dx, dy, dz = self.camera.ground_rays(columns, rows)
        down = np.asarray(dy < -1e-4)
        self.top = int(np.argmax(down.any(axis=1))) if down.any() else height
        part = slice(self.top, height)
        self.below = np.broadcast_to(down, (height, width))[part]
        clear = down.all(axis=1)
        self.full = int(np.argmax(clear)) if clear.any() else height  # from this row on everything is ground
        self.depth = np.minimum(self.camera.height_m / np.maximum(-dy[part], np.float32(1e-4)), np.float32(FARTHEST_M))
        self.world_x = np.broadcast_to(dx, (height, width))[part] * self.depth
        self.world_z = np.broadcast_to(dz, (height, width))[part] * self.depth
        self._lay(self.canvas.label[part], np.uint8(TERRAIN))
        self._lay(self.canvas.depth[part], self.depth)
        soil = np.tile(np.asarray(self.palette.soil, np.uint8), (width, 1))  # a row of pixels: copied in a tenth of the time of one
        self._lay(self.canvas.color[part], np.broadcast_to(soil, (height - self.top, width, 3)))

    def _lay(self, view: npt.NDArray[Any], values: Any) -> None:
        """Write values, broadcast to the rows from `top` on, wherever there is ground."""
        edge = self.full - self.top
        shape = view.shape
        below = self.below[:edge] if len(shape) == 2 else self.below[:edge, :, None]
        rows = np.ndim(values) > 1
        np.copyto(view[:edge], values[:edge] if rows else values, where=below)
        view[edge:] = values[edge:] if rows else values

    def pixels(self, points: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
        """Street coordinates (N, 2) u, z -> pixels (M, 2), cut at the near plane."""
        street = self.street
        offset, slope, half_curve = street.offset, street.slope, 0.5 * street.curve
        world = [(u + offset + slope * z + (half_curve * z * z if z > 0 else 0.0), 0.0, z) for u, z in points]
        return _limited(self.camera.outline(world)[0])

    def paint(self, points: Iterable[Sequence[float]], material: int, color: Rgb | None = None, label: int | None = None) -> None:
        """A patch of material over street coordinates (N, 2) u, z."""
        pixels = self.pixels(points)
        if len(pixels) < 3:
            return
        self.canvas.fill(pixels, color or self.palette.of(material), MATERIAL_LABEL[material] if label is None else label)
        cv2.fillPoly(self.material, [fixed_point(pixels)], material, cv2.LINE_8, SHIFT)

    def mark(self, points: Iterable[Sequence[float]], color: Rgb, alpha: float = 1.0) -> None:
        """Paint or wear on the ground: colour alone, over street coordinates (N, 2) u, z."""
        pixels = self.pixels(points)
        if len(pixels) < 3:
            return
        rows = [y for _, y in pixels]
        if max(rows) - min(rows) > 0.2:  # flatter marks leave no trace
            self.canvas.fill(pixels, color, alpha=alpha)

    def strip(self, u0: float, u1: float, z0: float, z1: float) -> list[tuple[float, float]]:
        """Street coordinates of a strip between u0 and u1 that follows the street's curve."""
        if self.street.curve == 0:
            return [(u0, z0), (u0, z1), (u1, z1), (u1, z0)]
        steps = int(bounded((z1 - z0) / 8, 2, 14))
        z = [(i / (steps - 1)) ** 1.6 * (z1 - z0) + z0 for i in range(steps)]
        return [(u0, v) for v in z] + [(u1, v) for v in reversed(z)]

    def cast(self, points: Sequence[tuple[float, float, float]]) -> None:
        """Shadow of a world outline: polygon (N, 3), any height, thrown to the ground along the sun's rays."""
        sx, sy, sz = self.light.direction
        if self.light.shadow <= 0.02 or sy < 0.05:
            return
        across, ahead = sx / sy, sz / sy
        flat = [(x - across * y, z - ahead * y) for x, y, z in points]
        rows = [z for _, z in flat]
        if max(rows) < 0.5 or min(rows) > 90:
            return
        hull = cv2.convexHull(np.array(flat, np.float32))[:, 0].tolist()
        pixels = _limited(self.camera.outline([(x, 0.0, z) for x, z in hull])[0])
        if len(pixels) >= 3:
            cv2.fillPoly(self.shadow, [fixed_point(pixels)], 255, cv2.LINE_AA, SHIFT)

    def base(self, plot_ground: list[tuple[int, float, float, float, float, int]]) -> None:
        """Everything with an area: plots (sign, u0, u1, z0, z1, material), pavements, verges, kerbs, road, junctions."""
        street, palette = self.street, self.palette
        road = COBBLE if street.kind == "old_town" and self.rng.random() < 0.3 else ASPHALT
        for sign, u0, u1, z0, z1, material in plot_ground:
            self.paint(self.strip(sign * u0, sign * u1, z0, z1), material)
        for side in street.sides:
            s, half = side.sign, street.half
            pave_from = half + side.verge + 0.15
            if side.sidewalk > 0:
                self._pavement(self.strip(s * pave_from, s * side.building_line, -4, FAR_Z), side.surface)
            if side.verge > 0:
                self.paint(self.strip(s * half, s * pave_from, -4, FAR_Z), GRASS if self.rng.random() < 0.8 else SOIL)
            kerb = SIDEWALK if side.sidewalk > 0 or side.verge > 0 else TERRAIN
            self.paint(self.strip(s * half, s * (half + 0.2), -4, FAR_Z), PAVING, palette.kerb, kerb)
        self.paint(self.strip(-street.half, street.half, -4, FAR_Z), road)
        if street.median > 0:
            self._median(street.median / 2)
        for junction in street.junctions:
            for sign in junction.sides:
                self._side_street(junction, sign, road)
        for sign in (-1, 1):
            shade = tuple(0.72 * c for c in palette.of(road))
            self.mark(self.strip(sign * street.half, sign * (street.half - 0.22), -4, 80), (shade[0], shade[1], shade[2]), 0.7)

    def _pavement(self, outline: list[tuple[float, float]], surface: str) -> None:
        if surface == "asphalt":  # the same stuff as the road: only kerb, place and wear tell them apart
            self.paint(outline, ASPHALT, self.palette.walk, SIDEWALK)
        else:
            self.paint(outline, SOIL if surface == "soil" else PAVING)

    def _median(self, half: float) -> None:
        """The strip between the directions: kerbs, and grass, soil or paving; open at junctions."""
        material = int(self.rng.choice([GRASS, SOIL, PAVING], p=[0.45, 0.25, 0.3])) if half > 0.6 else PAVING
        edges = [-4.0]
        for junction in self.street.junctions:
            if len(junction.sides) == 2:
                edges += [junction.z0 - 1.0, junction.z1 + 1.0]
        edges.append(min(FAR_Z, self.street.end + 4))
        for z0, z1 in zip(edges[::2], edges[1::2], strict=True):
            if z1 > max(z0, 0.0):
                self.paint(self.strip(-half, half, z0, z1), PAVING, self.palette.kerb, SIDEWALK)
                self.paint(self.strip(0.2 - half, half - 0.2, z0, z1), material)

    def _side_street(self, junction: Junction, sign: int, road: int) -> None:
        half, z0, z1 = self.street.half, junction.z0, junction.z1
        side = self.street.side(sign)
        walk = max(1.5, side.sidewalk)
        self.paint([(sign * half, z0 - walk), (sign * 160, z0 - walk), (sign * 160, z1 + walk), (sign * half, z1 + walk)], PAVING)
        radius = float(self.rng.uniform(1.5, 5.0))
        for grow, color, label, material in ((0.2, self.palette.kerb, SIDEWALK, PAVING), (0.0, self.palette.of(road), ROAD, road)):
            # The corner's arc has its centre on the pavement, `radius` from both kerbs.
            bend = radius - grow
            near = [(sign * (half + radius - bend * cos), z0 - radius + bend * sin) for cos, sin in _QUARTER]
            far = [(sign * (half + radius - bend * cos), z1 + radius - bend * sin) for cos, sin in reversed(_QUARTER)]
            inner = sign * (half - 0.3)
            outline = [(inner, z0 - radius), *near, (sign * 160, z0 - grow), (sign * 160, z1 + grow), *far, (inner, z1 + radius)]
            self.paint(outline, material, color, label)

    def finish(self, wet: float) -> None:
        """Multiply in texture, light and shadow; `wet` 0..1 darkens asphalt and paving."""
        height = self.canvas.size[0]
        # Rounding can lift the farthest strips a pixel above the horizon, where no ray meets the ground.
        label, depth = self.canvas.label[: self.full], self.canvas.depth[: self.full]
        put(depth, FARTHEST_M, (label != SKY) & (depth >= FAR_M))
        x, z = self.world_x, self.world_z
        footprint = self.depth * self.depth * (1 / (self.camera.focal_px * self.camera.height_m))
        material = self.material[self.top : height]
        gains = np.asarray(MATERIAL_NOISE, np.float32) * float(self.rng.uniform(0.6, 1.5))
        ox, oz = (float(v) for v in self.rng.uniform(0, 256, 2))
        square = footprint * footprint
        fine = lookup(noise_tile(41, 0.35), x * 22 + ox, z * 22 + oz) / (1 + square * 225)
        # The other patterns are soft: half resolution costs a quarter.
        half_x, half_z, size = x[::2, ::2], z[::2, ::2], (x.shape[1], x.shape[0])
        middle = lookup(noise_tile(42, 1.0), half_x * 5 + oz, half_z * 4 + ox) / (1 + square[::2, ::2] * 9)
        middle = np.asarray(cv2.resize(middle, size, interpolation=cv2.INTER_LINEAR), np.float32)
        coarse = lookup(noise_tile(43, 1.4), half_x * 1.3 + ox, half_z * 0.7 + oz)
        coarse = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR), np.float32)
        texture: FloatMap = np.ones(x.shape, np.float32)
        noises: list[Any] = [fine, middle, coarse]
        for i, noise in enumerate(noises):
            texture += np.asarray(cv2.multiply(cv2.LUT(material, _table(gains[:, i])), noise), np.float32)
        self._joints(texture, material, footprint)
        strength = self.light.ambient + self.light.intensity * max(0.0, self.light.direction[1])
        blur = max(1, int(self.canvas.size[0] * 0.006)) * 2 + 1
        dark = cv2.GaussianBlur(self.shadow[self.top : height], (blur, 3), 0)
        level = np.arange(256, dtype=np.float32) * np.float32(self.light.shadow / 255)
        gain = np.asarray(cv2.multiply(texture, cv2.LUT(dark, (1 - level)[None] * np.float32(strength))), np.float32)
        if wet > 0:
            hard = np.array([1 - 0.45 * wet, 1 - 0.35 * wet, 1 - 0.1 * wet, 1 - 0.3 * wet, 1 - 0.45 * wet, 1 - 0.45 * wet], np.float32)
            gain *= np.asarray(cv2.LUT(material, _table(hard)), np.float32)
        # Shadows are lit by the sky: they lose red more than blue.
        red, green, blue = self.light.color
        bluer = cv2.multiply(gain, cv2.LUT(dark, (1 + 0.06 * level)[None] * np.float32(blue)))
        view = self.canvas.color[self.top : height]
        scale = cv2.merge([gain * np.float32(red), gain * np.float32(green), bluer])
        self._lay(view, cv2.multiply(np.ascontiguousarray(view), scale, dtype=cv2.CV_8U))

    def _joints(self, texture: FloatArray, material: npt.NDArray[np.uint8], footprint: FloatArray) -> None:
        paved = np.flatnonzero(((material == PAVING) | (material == COBBLE)) & (footprint < 0.25))
        if not len(paved):
            return
        x, z, foot = self.world_x.ravel()[paved], self.world_z.ravel()[paved], footprint.ravel()[paved]
        size = float(self.rng.choice([0.3, 0.45, 0.6, 0.9]))
        row = np.floor(z / size)
        along = x / size + 0.5 * row
        column = np.floor(along)
        in_x, in_z = along - column, z / size - row
        joint = np.minimum(np.abs(in_x - 0.5) < 0.46, np.abs(in_z - 0.5) < 0.45)
        tone = 0.06 * np.sin(row * 12.9 + column * 78.2)
        texture.reshape(-1)[paved] *= 1 + (np.where(joint, tone, -0.22)) / (1 + (foot * 9 / size * 0.4) ** 2)


def _limited(pixels: list[tuple[float, float]]) -> list[tuple[float, float]]:
    limit = LIMIT_PX
    if not pixels or (max(map(max, pixels)) <= limit and min(map(min, pixels)) >= -limit):  # nearly always
        return pixels
    return [(bounded(x, -limit, limit), bounded(y, -limit, limit)) for x, y in pixels]


def _table(gains: FloatArray) -> FloatArray:
    table = np.zeros((1, 256), np.float32)
    table[0, : len(gains)] = gains
    return table
