"""Bodies of people: joints in own axes, limbs as capsules, torsos as hulls of elliptic sections; painted from far to near."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import cv2
import numpy as np

from iccld.city.camera import FloatArray
from iccld.city.solid import Point, Rgb, Stage, mixed, scaled

_DARK: tuple[Rgb, ...] = ((24, 24, 27), (34, 36, 44), (44, 42, 42), (28, 34, 54), (56, 50, 46), (40, 46, 40), (66, 68, 74), (20, 20, 22))
_SKIN: tuple[Rgb, ...] = ((226, 178, 150), (214, 164, 134), (198, 146, 116), (160, 112, 84), (116, 78, 58), (84, 56, 44))
_HAIR: tuple[Rgb, ...] = ((24, 20, 18), (46, 34, 26), (76, 54, 36), (120, 88, 52), (168, 140, 92), (150, 148, 146), (110, 58, 34))


@dataclass(frozen=True)
class Clothes:
    """Colours and garments of one person.  coat: 0 jacket to the waist .. 1 coat to the knees."""

    top: Rgb
    legs: Rgb
    shoes: Rgb
    skin: Rgb
    hair: Rgb
    accent: Rgb
    coat: float
    has_skirt: bool
    has_bare_arms: bool
    has_bare_legs: bool
    has_long_hair: bool
    hat: int
    girth: float


def garment(rng: np.random.Generator, dark_share: float) -> Rgb:
    """A colour of cloth: mostly dark, sometimes white or grey, sometimes anything."""
    draw = rng.random()
    if draw < dark_share:
        return scaled(_DARK[int(rng.integers(len(_DARK)))], float(rng.uniform(0.7, 1.5)))
    if draw < dark_share + 0.4 * (1 - dark_share):
        grey = float(rng.uniform(70, 225))
        return (grey, grey * float(rng.uniform(0.93, 1.0)), grey * float(rng.uniform(0.86, 1.02)))
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.85), rng.uniform(0.3, 0.9))
    return (255 * r, 255 * g, 255 * b)


def clothes(rng: np.random.Generator, is_child: bool = False) -> Clothes:
    """Draw what one person wears and looks like."""
    legs = (
        (garment(rng, 0.85) if rng.random() < 0.6 else scaled((56, 72, 104), float(rng.uniform(0.5, 1.4))))
        if not is_child
        else garment(rng, 0.6)
    )
    skirt = bool(rng.random() < 0.12)
    return Clothes(
        top=garment(rng, 0.35 if is_child else 0.62),
        legs=legs,
        shoes=scaled((30, 28, 28), float(rng.uniform(0.6, 1.6))) if rng.random() < 0.75 else (200, 200, 198),
        skin=scaled(_SKIN[int(rng.integers(len(_SKIN)))], float(rng.uniform(0.9, 1.05))),
        hair=_HAIR[int(rng.integers(len(_HAIR)))],
        accent=garment(rng, 0.5),
        coat=float(rng.choice([0.0, 0.15, 0.45, 0.9], p=[0.4, 0.3, 0.2, 0.1])),
        has_skirt=skirt,
        has_bare_arms=bool(rng.random() < 0.15),
        has_bare_legs=skirt and bool(rng.random() < 0.6),
        has_long_hair=bool(rng.random() < 0.35),
        hat=int(rng.choice(3, p=(0.8, 0.12, 0.08))),
        girth=float(rng.uniform(0.9, 1.22)),
    )


class Body:
    """Parts of one or several bodies on one stage; `paint` projects all and fills them from far to near."""

    def __init__(self, stage: Stage, train_id: int) -> None:
        self.stage, self.train_id = stage, train_id
        self.points: list[Point] = []
        self.parts: list[
            tuple[str, int, int, tuple[float, ...], Rgb, float]
        ] = []  # kind, first point, number, radii m, colour, nearer by m

    def limb(self, a: Point, b: Point, radius_a: float, radius_b: float, color: Rgb, nearer: float = 0.0) -> None:
        """A tapered capsule from a to b, metres."""
        self.parts.append(("limb", len(self.points), 2, (radius_a, radius_b), color, nearer))
        self.points += [a, b]

    def trunk(self, sections: list[tuple[Point, float, float]], color: Rgb, nearer: float = 0.0) -> None:
        """The hull of level ellipses, each (centre, half width along own x, half depth along own z)."""
        first = len(self.points)
        for (x, y, z), half_width, half_depth in sections:
            for cos, sin in _RING:
                self.points.append((x + half_width * cos, y, z + half_depth * sin))
        self.parts.append(("trunk", first, len(self.points) - first, (), color, nearer))

    def ball(self, center: Point, half_width: float, half_height: float, color: Rgb, nearer: float = 0.0) -> None:
        """An upright ellipse facing the camera."""
        self.parts.append(("ball", len(self.points), 1, (half_width, half_height), color, nearer))
        self.points.append(center)

    def paint(self) -> None:
        """Paint everything; parts nearer than the near plane hide the whole body."""
        pixels, depth = self.stage.pixels(self.points)
        if depth.min() < 0.45:
            return
        outlines = self._outlines(pixels, depth)
        # Light and shade: each part is dim, and its half on the sun's side bright.
        stage, light = self.stage, self.stage.light
        sun_x = float(stage.camera.rotation[0] @ np.array(light.direction))
        side = 1.0 if sun_x >= 0 else -1.0
        bright = light.ambient * 0.95 + light.intensity * 0.62
        dim = light.ambient * 0.84 + light.intensity * 0.25
        counts = np.array([len(outline) for outline in outlines])
        joined = np.concatenate(outlines)
        start = np.concatenate([[0], np.cumsum(counts)[:-1]])
        center = np.repeat(np.add.reduceat(joined[:, 0], start) / counts, counts)
        away = joined[:, 0] - center
        joined[:, 0] = np.where(away * side >= 0, joined[:, 0], center + 0.1 * away)
        wide = np.maximum.reduceat(np.abs(away), start).tolist()
        starts, depths = start.tolist(), depth.tolist()
        add = np.add.reduce  # what mean() does, in half its time
        nearness = [float(add(depth[f : f + n])) / n - nearer for _, f, n, _, _, nearer in self.parts]
        shapes: list[FloatArray] = []
        colors: list[Rgb] = []
        fars: list[float] = []
        labelled: list[bool] = []
        for i in sorted(range(len(self.parts)), key=lambda i: -nearness[i]):
            is_fine = wide[i] > 1.6
            shapes.append(outlines[i])
            colors.append(stage.lit(self.parts[i][4], dim if is_fine else (bright + dim) / 2))
            fars.append(depths[self.parts[i][1]])
            labelled.append(True)
            if is_fine:
                shapes.append(joined[starts[i] : starts[i] + len(outlines[i])])
                colors.append(stage.lit(self.parts[i][4], bright))
                fars.append(0.0)
                labelled.append(False)
        stage.fill(shapes, colors, fars, labelled, self.train_id)

    def _outlines(self, pixels: FloatArray, depth: FloatArray) -> list[FloatArray]:
        """The outline (N, 2) px of every part, in the parts' order."""
        scale = self.stage.camera.focal_px / depth
        limbs = [(first, radii) for kind, first, _, radii, _, _ in self.parts if kind == "limb"]
        capsules = iter(())
        if limbs:
            first = np.array([f for f, _ in limbs])
            radii = np.array([r for _, r in limbs]) * scale[first][:, None]
            capsules = iter(_capsules(pixels[first], pixels[first + 1], radii[:, 0], radii[:, 1]))
        outlines: list[FloatArray] = []
        for kind, start, num, size, _, _ in self.parts:
            if kind == "limb":
                outlines.append(next(capsules))
            elif kind == "trunk":
                outlines.append(cv2.convexHull(pixels[start : start + num].astype(np.float32))[:, 0].astype(np.float64))
            else:
                outlines.append(pixels[start] + _UNIT * (size[0] * scale[start], size[1] * scale[start]))
        return outlines


_RING = [(math.cos(2 * math.pi * i / 8), math.sin(2 * math.pi * i / 8)) for i in range(8)]
_UNIT = np.array([(math.cos(2 * math.pi * i / 12), math.sin(2 * math.pi * i / 12)) for i in range(12)])
_ARC = np.linspace(-math.pi / 2, math.pi / 2, 4)


def _capsules(a: FloatArray, b: FloatArray, radius_a: FloatArray, radius_b: FloatArray) -> FloatArray:
    """Outlines (N, 8, 2) px of tapered capsules from a to b (N, 2)."""
    angle = np.arctan2(b[:, 1] - a[:, 1], b[:, 0] - a[:, 0])[:, None] + _ARC  # (N, 4)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=2)  # (N, 4, 2)
    # fillPoly paints half a pixel beyond an outline: take some of it back.
    ra, rb = np.maximum(0.25, radius_a - 0.3), np.maximum(0.25, radius_b - 0.3)
    return np.concatenate([b[:, None] + rb[:, None, None] * direction, a[:, None] - ra[:, None, None] * direction], axis=1)


def head(body: Body, center: Point, size: float, look: Clothes, is_helmet: bool, helmet: Rgb = (40, 40, 44)) -> None:
    """A head of height 2 * size metres around `center`: face, hair, hat or helmet, seen from any side."""
    x, y, z = center
    stage = body.stage
    toward = (stage.viewer[0] - x, stage.viewer[2] - z)
    norm = math.hypot(*toward) or 1.0
    ahead = toward[1] / norm  # 1: the face looks at the camera, -1: the back of the head does
    body.limb((x, y - 1.6 * size, z - 0.2 * size), (x, y - 0.6 * size, z), 0.42 * size, 0.42 * size, look.skin)
    body.ball((x, y, z), 0.74 * size, size, look.skin if ahead > -0.35 else look.hair, 0.05)
    if look.has_long_hair:
        upper = ((x, y + 0.5 * size, z - 0.3 * size), 0.75 * size, 0.5 * size)
        lower = ((x, y - 1.3 * size, z - 0.45 * size), 0.8 * size, 0.4 * size)
        body.trunk([upper, lower], look.hair, 0.08 if ahead < 0.2 else -0.1)
    cover = helmet if is_helmet else (look.accent if look.hat == 1 else look.hair)
    brim, top = (0.07, 1.12) if is_helmet else (0.10, 1.12 if look.hat else 1.02)
    back = -0.18 * size
    cap = [
        ((x, y + brim * size, z + back - 0.1 * size), 0.80 * size, 0.72 * size),
        ((x, y + 0.72 * size, z + back * 0.5), 0.66 * size, 0.62 * size),
        ((x, y + top * size, z + back * 0.5), 0.30 * size, 0.30 * size),
    ]
    body.trunk(cap, cover, 0.12)
    if ahead > 0.2:  # the face in front of the hair
        body.ball((x, y - 0.22 * size, z), 0.62 * size, 0.66 * size, look.skin, 0.2)
    elif ahead > -0.6:
        side = toward[0] / norm
        body.ball((x + 0.1 * side * size, y - 0.25 * size, z + 0.3 * size), 0.42 * size, 0.62 * size, look.skin, 0.2)


def shaded(color: Rgb, share: float) -> Rgb:
    """A colour mixed with the dark of folds and pockets."""
    return mixed(color, (18, 18, 20), share)
