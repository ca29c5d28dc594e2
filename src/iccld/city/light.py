"""The light of a scene: where the sun is, how strong it is, what colour it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from iccld.city.camera import FloatArray


@dataclass(frozen=True)
class Light:
    """direction: unit vector TOWARDS the sun, world axes.  ambient, intensity: 0..1 shares of sky and sun light (together about 1).
    color: RGB tint around 1.0.  night: 0 day .. 1 night, when lamps and windows shine.  shadow: 0 none .. 1 hard cast shadows."""

    direction: tuple[float, float, float] = (0.3, 0.8, -0.5)
    ambient: float = 0.6
    intensity: float = 0.4
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    night: float = 0.0
    shadow: float = 0.5

    def factor(self, normal: tuple[float, float, float] | FloatArray) -> float:
        """Brightness of a surface with this outward normal, about 0.3..1.2; upward surfaces see more of the sky."""
        nx, ny, nz = float(normal[0]), float(normal[1]), float(normal[2])
        length = math.sqrt(nx * nx + ny * ny + nz * nz) or 1.0
        dx, dy, dz = self.direction
        sun = max(0.0, (nx * dx + ny * dy + nz * dz) / length)
        return self.ambient * (0.88 + 0.22 * ny / length) + self.intensity * sun


def shade(
    color: tuple[float, float, float] | FloatArray, normal: tuple[float, float, float] | FloatArray, light: Light
) -> tuple[int, int, int]:
    """RGB 0..255 of a surface colour seen under `light`."""
    factor = light.factor(normal)
    r, g, b = (min(255, max(0, int(float(color[i]) * factor * light.color[i]))) for i in range(3))
    return r, g, b


def sun(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """Unit vector towards a sun at azimuth (radians from straight ahead, positive to the right) and elevation (radians)."""
    flat = math.cos(elevation)
    return flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)


__all__ = ["Light", "shade", "sun"]
