"""The ground: strips of road, pavement and plots as polygons, then texture, shadow and depth per pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from iccld.data.city.camera import Camera, FloatArray, bounded, clip_near
from iccld.data.city.canvas import LIMIT_PX, SHIFT, VOID, Canvas
from iccld.data.city.layout import ROAD, SIDEWALK, TERRAIN, Junction, Street
from iccld.data.city.light import Light
from iccld.data.city.texture import hsv, lookup, noise_tile

Rgb = tuple[float, float, float]

ASPHALT, PAVING, GRASS, SOIL, COBBLE, LOT = range(6)
MATERIAL_LABEL = (ROAD, SIDEWALK, TERRAIN, TERRAIN, ROAD, VOID)
#                 fine  middle coarse  (share of brightness per standard deviation of noise)
MATERIAL_NOISE = ((0.09, 0.045, 0.07), (0.07, 0.05, 0.05), (0.24, 0.16, 0.10), (0.16, 0.12, 0.10), (0.20, 0.06, 0.05), (0.10, 0.06, 0.07))
FAR_Z = 700.0


@dataclass(frozen=True)
class GroundPalette:
    """RGB of each ground material before light, and of paint."""

    asphalt: Rgb
    paving: Rgb
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
        t = self.camera.height_m / np.maximum(-dy[part], 1e-4)
        self.depth = np.minimum(np.broadcast_to(t, self.below.shape), 600).astype(np.float32)
        self.world_x = (np.broadcast_to(dx[part], self.below.shape) * self.depth).astype(np.float32)
        self.world_z = (np.broadcast_to(dz[part], self.below.shape) * self.depth).astype(np.float32)
        view = (slice(self.top, height),)
        self.canvas.label[view][self.below] = TERRAIN
        self.canvas.depth[view][self.below] = self.depth[self.below]
        self.canvas.color[view][self.below] = np.asarray(self.palette.soil, np.uint8)

    def world(self, points: FloatArray | list[tuple[float, float]]) -> FloatArray:
        """Street coordinates (N, 2) u, z -> world (N, 3) on the ground."""
        uz = np.asarray(points, np.float64)
        out = np.zeros((len(uz), 3))
        out[:, 0] = self.street.x(uz[:, 0], uz[:, 1])
        out[:, 2] = uz[:, 1]
        return out

    def pixels(self, points: FloatArray) -> FloatArray:
        """World polygon (N, 3) -> clipped pixels (M, 2)."""
        return np.minimum(np.maximum(self.camera.camera_to_pixel(clip_near(self.camera.to_camera(points))), -LIMIT_PX), LIMIT_PX)

    def paint(
        self, points: FloatArray | list[tuple[float, float]], material: int, color: Rgb | None = None, label: int | None = None
    ) -> None:
        """A patch of material over street coordinates (N, 2) u, z."""
        pixels = self.pixels(self.world(points))
        if len(pixels) < 3:
            return
        self.canvas.fill(pixels, color or self.palette.of(material), MATERIAL_LABEL[material] if label is None else label)
        cv2.fillPoly(self.material, [(pixels * (1 << SHIFT)).astype(np.int32)], material, cv2.LINE_8, SHIFT)

    def mark(self, points: FloatArray | list[tuple[float, float]], color: Rgb, alpha: float = 1.0) -> None:
        """Paint or wear on the ground: colour alone, over street coordinates (N, 2) u, z."""
        pixels = self.pixels(self.world(points))
        if len(pixels) < 3:
            return
        rows = pixels[:, 1].tolist()
        if max(rows) - min(rows) > 0.2:  # flatter marks leave no trace
            self.canvas.fill(pixels, color, alpha=alpha)

    def strip(self, u0: float, u1: float, z0: float, z1: float) -> list[tuple[float, float]]:
        """Street coordinates of a strip between u0 and u1 that follows the street's curve."""
        if self.street.curve == 0:
            return [(u0, z0), (u0, z1), (u1, z1), (u1, z0)]
        steps = int(bounded((z1 - z0) / 8, 2, 14))
        z = (np.linspace(0, 1, steps) ** 1.6) * (z1 - z0) + z0
        return [(u0, float(v)) for v in z] + [(u1, float(v)) for v in z[::-1]]

    def cast(self, points: FloatArray) -> None:
        """Shadow of a world outline: polygon (N, 3), any height, thrown to the ground along the sun's rays."""
        sx, sy, sz = self.light.direction
        if self.light.shadow <= 0.02 or sy < 0.05:
            return
        reach = points[:, 1:2] / sy
        flat = points - reach * np.array([sx, sy, sz])
        hull = cv2.convexHull(flat[:, ::2].astype(np.float32))[:, 0]
        if hull[:, 1].max() < 0.5 or hull[:, 1].min() > 90:
            return
        pixels = self.pixels(np.stack([hull[:, 0], np.zeros(len(hull)), hull[:, 1]], axis=1).astype(np.float64))
        if len(pixels) >= 3:
            cv2.fillPoly(self.shadow, [(pixels * (1 << SHIFT)).astype(np.int32)], 255, cv2.LINE_AA, SHIFT)

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
                self.paint(self.strip(s * pave_from, s * side.building_line, -4, FAR_Z), PAVING)
            if side.verge > 0:
                self.paint(self.strip(s * half, s * pave_from, -4, FAR_Z), GRASS if self.rng.random() < 0.8 else SOIL)
            kerb = SIDEWALK if side.sidewalk > 0 or side.verge > 0 else TERRAIN
            self.paint(self.strip(s * half, s * (half + 0.2), -4, FAR_Z), PAVING, palette.kerb, kerb)
        self.paint(self.strip(-street.half, street.half, -4, FAR_Z), road)
        for junction in street.junctions:
            for sign in junction.sides:
                self._side_street(junction, sign, road)
        for sign in (-1, 1):
            shade = tuple(0.72 * c for c in palette.of(road))
            self.mark(self.strip(sign * street.half, sign * (street.half - 0.22), -4, 80), (shade[0], shade[1], shade[2]), 0.7)

    def _side_street(self, junction: Junction, sign: int, road: int) -> None:
        half, z0, z1 = self.street.half, junction.z0, junction.z1
        side = self.street.side(sign)
        walk = max(1.5, side.sidewalk)
        self.paint([(sign * half, z0 - walk), (sign * 160, z0 - walk), (sign * 160, z1 + walk), (sign * half, z1 + walk)], PAVING)
        radius = float(self.rng.uniform(1.5, 5.0))
        turn = np.linspace(0, np.pi / 2, 6)
        for grow, color, label, material in ((0.2, self.palette.kerb, SIDEWALK, PAVING), (0.0, self.palette.of(road), ROAD, road)):
            # The corner's arc has its centre on the pavement, `radius` from both kerbs.
            near = [(sign * (half + radius - (radius - grow) * np.cos(a)), z0 - radius + (radius - grow) * np.sin(a)) for a in turn]
            far = [(sign * (half + radius - (radius - grow) * np.cos(a)), z1 + radius - (radius - grow) * np.sin(a)) for a in turn[::-1]]
            inner = sign * (half - 0.3)
            outline = [(inner, z0 - radius), *near, (sign * 160, z0 - grow), (sign * 160, z1 + grow), *far, (inner, z1 + radius)]
            self.paint(outline, material, color, label)

    def finish(self, wet: float) -> None:
        """Multiply in texture, light and shadow; `wet` 0..1 darkens asphalt and paving."""
        height = self.canvas.size[0]
        x, z = self.world_x, self.world_z
        footprint = self.depth * self.depth / (self.camera.focal_px * self.camera.height_m)
        material = self.material[self.top : height]
        gains = np.asarray(MATERIAL_NOISE, np.float32) * float(self.rng.uniform(0.6, 1.5))
        offset = self.rng.uniform(0, 256, 2).astype(np.float32)
        fine = lookup(noise_tile(41, 0.35), x * 22 + offset[0], z * 22 + offset[1]) / (1 + (footprint * 15) ** 2)
        middle = lookup(noise_tile(42, 1.0), x * 5 + offset[1], z * 4 + offset[0]) / (1 + (footprint * 3) ** 2)
        coarse = lookup(noise_tile(43, 1.4), x * 1.3 + offset[0], z * 0.7 + offset[1])
        gain = cv2.LUT(cv2.merge([material] * 3), _table(gains))
        texture = np.asarray(1 + cv2.transform(gain * cv2.merge([fine, middle, coarse]), np.ones((1, 3), np.float32)), np.float32)
        self._joints(texture, material, footprint)
        strength = self.light.ambient + self.light.intensity * max(0.0, self.light.direction[1])
        blur = max(1, int(self.canvas.size[0] * 0.006)) * 2 + 1
        lit = cv2.GaussianBlur(self.shadow[self.top : height], (blur, 3), 0).astype(np.float32) * np.float32(1 / 255)
        lit = 1 - lit * np.float32(self.light.shadow)
        if wet > 0:
            hard = np.array([1 - 0.45 * wet, 1 - 0.35 * wet, 1 - 0.1 * wet, 1 - 0.3 * wet, 1 - 0.45 * wet, 1 - 0.45 * wet], np.float32)
            lit *= hard[material]
        # Shadows are lit by the sky: they lose red more than blue.
        scale = (texture * lit * np.float32(strength))[..., None] * np.asarray(self.light.color, np.float32)
        scale[..., 2] *= 1 + 0.06 * (1 - lit)
        view = self.canvas.color[self.top : height]
        painted = np.clip(view * scale, 0, 255).astype(np.uint8)
        np.copyto(view, painted, where=self.below[..., None])

    def _joints(self, texture: FloatArray, material: npt.NDArray[np.uint8], footprint: FloatArray) -> None:
        paved = np.flatnonzero(((material == PAVING) | (material == COBBLE)) & (footprint < 0.25))
        if not len(paved):
            return
        x, z, foot = self.world_x.ravel()[paved], self.world_z.ravel()[paved], footprint.ravel()[paved]
        size = float(self.rng.choice([0.3, 0.45, 0.6, 0.9]))
        row = np.floor(z / size)
        in_x, in_z = (x / size + 0.5 * row) % 1.0, (z / size) % 1.0
        joint = np.minimum(np.abs(in_x - 0.5) < 0.46, np.abs(in_z - 0.5) < 0.45)
        tone = 0.06 * np.sin(row * 12.9 + np.floor(x / size + 0.5 * row) * 78.2)
        texture.reshape(-1)[paved] *= 1 + (np.where(joint, tone, -0.22)) / (1 + (foot * 9 / size * 0.4) ** 2)


def _table(gains: FloatArray) -> FloatArray:
    table = np.zeros((1, 256, 3), np.float32)
    table[0, : len(gains)] = gains
    return table
