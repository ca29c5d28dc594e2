"""People on foot (label 11) and riders (label 12) on bicycles (18) and motorcycles (17)."""

from __future__ import annotations

import math

import numpy as np

from iccld.city.camera import Camera, bounded
from iccld.city.canvas import Canvas
from iccld.city.figures import Body, Clothes, clothes, garment, head, shaded
from iccld.city.light import Light
from iccld.city.solid import Point, Rgb, Stage, disc_x, scaled
from iccld.city.street_life import PUSHED, push
from iccld.city.two_wheelers import BICYCLE, Drawing, bicycle_style, motorcycle_style, paint_bicycle, paint_motorcycle

PERSON, RIDER = 11, 12
POSES = ("standing", "walking", "sitting")


def draw_person(
    canvas: Canvas,
    camera: Camera,
    rng: np.random.Generator,
    position: tuple[float, float],
    heading_rad: float,
    light: Light,
    *,
    height_m: float | None = None,
    pose: str | None = None,
) -> None:
    """Paint one person (label 11) at ground position (x, z) metres, heading as in Stage; bags or an umbrella may come
    along, and a pushchair or shopping trolley (label 255).

    height_m: 1.1 (a child) to 1.95; drawn when None.  pose: standing, walking or sitting; drawn when None.  ValueError for another pose.
    """
    if pose is not None and pose not in POSES:
        raise ValueError(f"unknown pose {pose!r}; known: {', '.join(POSES)}")
    is_child = rng.random() < 0.12
    height = float(rng.uniform(1.1, 1.5) if is_child else bounded(rng.normal(1.71, 0.09), 1.5, 1.95))
    height = height if height_m is None else height_m
    drawn_pose = POSES[int(rng.choice(3, p=(0.33, 0.63, 0.04)))]
    pose = drawn_pose if pose is None else pose
    look = clothes(rng, is_child)
    stage = Stage(canvas, camera, position, heading_rad, light)
    if stage.depth < 0.5 or not camera.is_visible(position, 2.0):
        return
    stage.shadow(0.22, -0.2, 0.2, height, is_round=True)
    if height * stage.scale < 26:
        stride = float(rng.uniform(0.0, 0.14)) if pose == "walking" else 0.02
        _far_person(stage, height, look, stride)
        return
    pushed = PUSHED[int(rng.integers(2))] if pose == "walking" and not is_child and rng.random() < 0.07 else ""
    if pushed and stage.viewer[2] < 0:  # ahead of somebody who walks away
        push(stage, rng, pushed)
    body = Body(stage, PERSON)
    if pose == "sitting":
        _sitting(body, height, look)
    else:
        _upright(body, rng, height, look, pose == "walking")
    body.paint()
    stage.roughen(rng, PERSON, 0.2)
    if pushed and stage.viewer[2] >= 0:
        push(stage, rng, pushed)


def draw_group(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, position: tuple[float, float], heading_rad: float, light: Light, num: int = 3
) -> None:
    """Paint `num` people side by side around a ground position, far ones first."""
    places = []
    for i in range(num):
        across = (i - (num - 1) / 2) * float(rng.uniform(0.5, 0.75))
        along = float(rng.normal(0, 0.35))
        x = position[0] + across * math.cos(heading_rad) + along * math.sin(heading_rad)
        z = position[1] - across * math.sin(heading_rad) + along * math.cos(heading_rad)
        places.append((x, z))
    for place in sorted(places, key=lambda p: -math.hypot(*p)):
        draw_person(canvas, camera, rng, place, heading_rad + float(rng.normal(0, 0.35)), light)


def _far_person(stage: Stage, height: float, look: Clothes, stride: float) -> None:
    """A person of a few pixels: legs, torso, head; `stride` is half the step as a share of the height."""
    body = Body(stage, PERSON)
    h = height
    for side in (-1, 1):
        body.limb((side * 0.045 * h, 0.5 * h, 0.0), (side * 0.05 * h, 0.02 * h, side * stride * h), 0.055 * h, 0.034 * h, look.legs)
    bottom = (0.47 - 0.2 * look.coat) * h
    body.trunk(
        [((0, bottom, 0), 0.10 * h, 0.07 * h), ((0, 0.80 * h, 0), 0.135 * h, 0.07 * h), ((0, 0.86 * h, 0), 0.05 * h, 0.04 * h)],
        look.top,
        0.05,
    )
    head_color = look.hair if stage.viewer[2] < 0 else scaled(look.skin, 0.85)
    body.ball((0, 0.925 * h, 0), 0.055 * h, 0.075 * h, head_color, 0.1)
    body.paint()


def _upright(body: Body, rng: np.random.Generator, h: float, look: Clothes, is_walking: bool) -> None:
    """Add a standing or walking body of height h to `body`."""
    swing = float(rng.uniform(0.12, 0.44)) * (1 if rng.random() < 0.5 else -1) if is_walking else float(rng.uniform(-0.05, 0.05))
    g = look.girth
    is_heavy_coat = 1.1 if look.coat > 0.3 else 1.0
    hips: list[Point] = []
    for side in (-1, 1):
        angle = swing * side
        hip = (side * 0.05 * h, 0.52 * h, 0.0)
        bend = max(0.0, -angle) * (0.9 if is_walking else 0.0) + (0.12 if is_walking else 0.0)
        knee = (hip[0], hip[1] - 0.245 * h * math.cos(angle), hip[2] + 0.245 * h * math.sin(angle))
        ankle_y = max(0.045 * h, knee[1] - 0.235 * h * math.cos(angle - bend))
        ankle = (hip[0], ankle_y, knee[2] + 0.235 * h * math.sin(angle - bend))
        hips.append(hip)
        leg = look.skin if look.has_bare_legs else look.legs
        body.limb(hip, knee, 0.056 * h * g, 0.042 * h, look.legs if not look.has_bare_legs else leg)
        body.limb(knee, ankle, 0.040 * h, 0.030 * h, leg)
        toe = (ankle[0] * 1.1, max(0.018 * h, ankle[1] - 0.028 * h), ankle[2] + 0.085 * h)
        body.limb((ankle[0], max(0.018 * h, ankle[1] - 0.025 * h), ankle[2] - 0.02 * h), toe, 0.022 * h, 0.018 * h, look.shoes)
    lean = 0.02 * h if is_walking else 0.0
    shoulder_y = 0.815 * h
    bottom = (0.50 - 0.25 * look.coat) * h
    if look.has_skirt:
        body.trunk([((0, 0.33 * h, 0), 0.125 * h, 0.10 * h), ((0, 0.55 * h, 0), 0.085 * h * g, 0.065 * h)], look.legs, 0.03)
    body.trunk(
        [
            ((0, bottom, 0), (0.090 + 0.02 * look.coat) * h * g * is_heavy_coat, (0.068 + 0.02 * look.coat) * h * g),
            ((0, 0.62 * h, lean * 0.4), 0.080 * h * g * is_heavy_coat, 0.062 * h * g),
            ((0, 0.755 * h, lean), 0.104 * h * g, 0.066 * h * g),
            ((0, shoulder_y, lean), 0.102 * h, 0.050 * h),
            ((0, 0.855 * h, lean), 0.045 * h, 0.040 * h),
        ],
        look.top,
        0.06,
    )
    _arms(body, rng, h, look, swing if is_walking else 0.0, lean)
    head(body, (0.0, 0.925 * h, lean * 1.6), 0.074 * h * min(1.25, math.sqrt(1.71 / h)), look, False)
    _belongings(body, rng, h, look, lean)


def _arms(body: Body, rng: np.random.Generator, h: float, look: Clothes, swing: float, lean: float) -> None:
    pose = rng.random()
    for side in (-1, 1):
        shoulder = (side * 0.106 * h, 0.798 * h, lean)
        angle = -swing * side * 0.9
        bend = 0.35 if swing else 0.15
        if pose < 0.18:  # a hand at a telephone, a strap or a pocket
            bend = 1.9 if side > 0 else bend
        elbow = (side * 0.128 * h, shoulder[1] - 0.17 * h * math.cos(angle), lean + 0.17 * h * math.sin(angle))
        wrist = (side * 0.124 * h, elbow[1] - 0.15 * h * math.cos(angle + bend), elbow[2] + 0.15 * h * math.sin(angle + bend))
        sleeve = look.skin if look.has_bare_arms else look.top
        body.limb(shoulder, elbow, 0.036 * h, 0.030 * h, scaled(look.top, 0.93), 0.02)
        body.limb(elbow, wrist, 0.029 * h, 0.022 * h, scaled(sleeve, 0.93), 0.03)
        body.ball(wrist, 0.022 * h, 0.026 * h, look.skin, 0.05)


def _belongings(body: Body, rng: np.random.Generator, h: float, look: Clothes, lean: float) -> None:
    """Bags, a rucksack, an umbrella or a case, sometimes."""
    draw = rng.random()
    if draw < 0.16:
        body.trunk([((0, 0.60 * h, -0.11 * h), 0.075 * h, 0.04 * h), ((0, 0.79 * h, -0.10 * h), 0.08 * h, 0.04 * h)], look.accent, 0.0)
    elif draw < 0.34:
        side = 1 if rng.random() < 0.5 else -1
        x, y = side * 0.17 * h, float(rng.uniform(0.34, 0.48)) * h
        body.trunk([((x, y - 0.07 * h, 0), 0.03 * h, 0.085 * h), ((x, y + 0.06 * h, 0), 0.025 * h, 0.07 * h)], look.accent, 0.04)
        body.limb((x, y + 0.05 * h, 0), (side * 0.12 * h, 0.8 * h, lean), 0.008 * h, 0.008 * h, shaded(look.accent, 0.4), 0.08)
    elif draw < 0.37:
        top, x = 1.22 * h, 0.08 * h
        color = garment(rng, 0.55)
        body.limb((x, 0.7 * h, 0.1 * h), (x, top, 0.06 * h), 0.008, 0.008, (60, 60, 62), 0.2)
        rings = ((0.12 * h, 0.30 * h), (0.04 * h, 0.19 * h), (0.0, 0.03 * h))
        body.trunk([((x, top - drop, 0.06 * h), radius, radius) for drop, radius in rings], color, 0.3)
    elif draw < 0.42:  # shopping in both hands
        for side in (-1, 1):
            color = (232, 232, 228) if rng.random() < 0.4 else garment(rng, 0.2)
            x, y = side * 0.15 * h, 0.33 * h
            body.trunk([((x, y - 0.09 * h, 0), 0.035 * h, 0.08 * h), ((x, y + 0.05 * h, 0), 0.03 * h, 0.07 * h)], color, 0.05)
    elif draw < 0.46:  # a case on wheels behind
        color = garment(rng, 0.5)
        body.trunk([((0.12 * h, 0.06, -0.3 * h), 0.11 * h, 0.07 * h), ((0.12 * h, 0.36 * h, -0.26 * h), 0.11 * h, 0.07 * h)], color, -0.05)
        body.limb((0.12 * h, 0.36 * h, -0.26 * h), (0.13 * h, 0.5 * h, -0.1 * h), 0.01, 0.01, (60, 60, 62), 0.02)


def _sitting(body: Body, h: float, look: Clothes) -> None:
    """Add a body that sits on something 0.45 m high."""
    seat = 0.45
    drop = 0.52 * h - seat
    for side in (-1, 1):
        hip, knee = (side * 0.055 * h, seat + 0.05, -0.05), (side * 0.07 * h, seat + 0.04, 0.22 * h)
        body.limb(hip, knee, 0.055 * h, 0.045 * h, look.legs)
        body.limb(knee, (knee[0], 0.06, 0.25 * h), 0.042 * h, 0.03 * h, look.legs, 0.04)
        body.limb((knee[0], 0.03, 0.25 * h), (knee[0], 0.025, 0.33 * h), 0.024 * h, 0.02 * h, look.shoes)
        shoulder = (side * 0.115 * h, 0.80 * h - drop, 0.0)
        elbow = (side * 0.14 * h, 0.64 * h - drop, 0.05 * h)
        body.limb(shoulder, elbow, 0.04 * h, 0.033 * h, look.top, 0.02)
        body.limb(elbow, (side * 0.06 * h, 0.60 * h - drop, 0.17 * h), 0.031 * h, 0.024 * h, look.top, 0.06)
    sections = [
        ((0.0, seat, -0.03), 0.10 * h, 0.08 * h),
        ((0.0, 0.755 * h - drop, 0.0), 0.104 * h, 0.07 * h),
        ((0.0, 0.855 * h - drop, 0.0), 0.05 * h, 0.04 * h),
    ]
    body.trunk(sections, look.top, 0.03)
    head(body, (0.0, 0.925 * h - drop, 0.02 * h), 0.072 * h, look, False)


def draw_rider(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, kind: str, position: tuple[float, float], heading_rad: float, light: Light
) -> None:
    """Paint a rider (label 12) on a `kind` bicycle (label 18) or motorcycle (label 17) at ground position (x, z), heading as in Stage.

    ValueError for another kind.
    """
    if kind not in ("bicycle", "motorcycle"):
        raise ValueError(f"unknown kind {kind!r} for a rider; known: bicycle, motorcycle")
    stage = Stage(canvas, camera, position, heading_rad, light)
    look = clothes(rng)
    height = float(bounded(rng.normal(1.73, 0.08), 1.5, 1.95))
    turn = float(rng.uniform(0, 2 * math.pi))
    cycle = bicycle_style(rng) if kind == "bicycle" else motorcycle_style(rng)
    lean = float(rng.normal(0, 0.03))
    if stage.depth < 1.2 or not camera.is_visible(position, 2.5):
        return
    stage.shadow(0.16, -0.85, 0.85, 1.6, is_round=True)
    if kind == "bicycle":
        paint_bicycle(stage, cycle, lean, turn)
        body = Body(stage, RIDER)
        if height * stage.scale < 24:
            _far_rider(body, height / 1.73, look, turn, 0.98 * cycle.size)
        else:
            _cyclist(body, rng, height / 1.73, look, turn, cycle.size)
    else:
        paint_motorcycle(stage, cycle, lean)
        body = Body(stage, RIDER)
        if height * stage.scale < 24:
            _far_rider(body, height / 1.73, look, 0.0, 0.86)
        else:
            _motorcyclist(body, rng, height / 1.73, look)
    body.paint()
    stage.roughen(rng, RIDER, 0.2)
    if kind == "bicycle" and height * stage.scale >= 24 and stage.viewer[2] > 0.3 and abs(stage.viewer[0]) < stage.viewer[2]:
        _front_wheel(stage, cycle.frame, cycle.size)


def _front_wheel(stage: Stage, color: Rgb, size: float) -> None:
    """Seen from the front, wheel and handlebar hide the rider's feet and hands again."""
    drawing = Drawing(stage, BICYCLE)
    z = 0.53 * size
    drawing.add("ring", disc_x(0.0, 0.345, z, 0.335, 16), 0.045, (22, 22, 24))
    drawing.add("bar", [(0.0, 0.02, z), (0.0, 0.69, z)], 0.05, (22, 22, 24))
    drawing.add("bar", [(0.0, 0.345, z), (0.0, 1.0 * size, 0.36 * size)], 0.04, color)
    drawing.add("bar", [(-0.28, 1.03 * size, 0.34 * size), (0.28, 1.03 * size, 0.34 * size)], 0.035, (40, 40, 42))
    drawing.paint()


def _far_rider(body: Body, s: float, look: Clothes, turn: float, seat_y: float) -> None:
    """A rider of a few pixels: two legs, arms, back, head."""
    for side in (-1, 1):
        foot = (side * 0.14, 0.33 + side * 0.15 * math.cos(turn), -0.05 + side * 0.15 * math.sin(turn))
        body.limb((side * 0.09, seat_y, -0.24), (side * 0.13, (seat_y + foot[1]) / 2, 0.1), 0.09 * s, 0.07 * s, look.legs)
        body.limb((side * 0.13, (seat_y + foot[1]) / 2, 0.1), foot, 0.065 * s, 0.05 * s, look.legs)
        body.limb((side * 0.19, seat_y + 0.46 * s, -0.02), (side * 0.26, 1.05, 0.33), 0.06 * s, 0.045 * s, look.top, 0.03)
    body.trunk([((0, seat_y - 0.08, -0.24), 0.16 * s, 0.12 * s), ((0, seat_y + 0.50 * s, -0.03), 0.20 * s, 0.11 * s)], look.top, 0.04)
    body.ball((0, seat_y + 0.70 * s, 0.02), 0.10 * s, 0.135 * s, scaled(look.hair, 0.9), 0.1)


def _cyclist(body: Body, rng: np.random.Generator, s: float, look: Clothes, turn: float, size: float) -> None:
    """A body on a bicycle: seat at 0.97 m, hands at the bar, feet on the pedals."""
    upright = float(rng.uniform(0.0, 1.0))
    seat_y = 0.99 * size
    hip_z = -0.24 * size
    reach = (0.34 - 0.22 * upright) * s
    shoulder_y = seat_y + (0.46 + 0.06 * upright) * s
    g = look.girth
    for side in (-1, 1):
        hip = (side * 0.085 * s, seat_y, hip_z)
        foot = (side * 0.12, 0.31 + side * 0.17 * math.cos(turn), -0.06 * size + side * 0.17 * math.sin(turn))
        ankle = (foot[0], foot[1] + 0.08, foot[2] - 0.04)
        knee = _bent(hip, ankle, 0.43 * s, 0.42 * s)
        leg = look.skin if look.has_bare_arms else look.legs
        body.limb(hip, knee, 0.092 * s * g, 0.068 * s, look.legs, 0.02)
        body.limb(knee, ankle, 0.062 * s, 0.045 * s, leg, 0.03)
        body.limb((foot[0], foot[1] + 0.02, foot[2] - 0.08), (foot[0], foot[1] + 0.02, foot[2] + 0.13), 0.04, 0.034, look.shoes, 0.03)
        shoulder = (side * 0.19 * s, shoulder_y, hip_z + reach)
        hand = (side * 0.26, 1.06 * size, 0.33 * size)
        elbow = ((shoulder[0] + hand[0]) / 2 + side * 0.05, (shoulder[1] + hand[1]) / 2 - 0.04, (shoulder[2] + hand[2]) / 2 - 0.05)
        body.limb(shoulder, elbow, 0.066 * s, 0.054 * s, scaled(look.top, 0.93), 0.05)
        body.limb(elbow, hand, 0.050 * s, 0.038 * s, scaled(look.skin if look.has_bare_arms else look.top, 0.93), 0.05)
        body.ball(hand, 0.04, 0.04, look.skin, 0.06)
    top = (235.0, 225.0, 40.0) if rng.random() < 0.12 else look.top
    back = [
        ((0.0, seat_y - 0.09, hip_z), 0.165 * s * g, 0.13 * s),
        ((0.0, seat_y + 0.2 * s, hip_z + reach * 0.45), 0.155 * s * g, 0.12 * s),
        ((0.0, shoulder_y - 0.06 * s, hip_z + reach * 0.9), 0.20 * s, 0.12 * s),
        ((0.0, shoulder_y + 0.07 * s, hip_z + reach), 0.09 * s, 0.07 * s),
    ]
    body.trunk(back, top, 0.04)
    if rng.random() < 0.22:
        center = (0.0, seat_y + 0.3 * s, hip_z + reach * 0.6 - 0.16)
        body.trunk([(center, 0.14, 0.08), ((0.0, center[1] + 0.22, center[2] + 0.08), 0.13, 0.08)], look.accent, 0.06)
    center = (0.0, shoulder_y + 0.20 * s, hip_z + reach + 0.06 * s)
    head(body, center, 0.125 * s, look, bool(rng.random() < 0.5), garment(rng, 0.4))


def _motorcyclist(body: Body, rng: np.random.Generator, s: float, look: Clothes) -> None:
    """A body on a motorcycle: seat at 0.85 m, full helmet, dark leather mostly."""
    top = look.top if rng.random() < 0.4 else scaled((26, 26, 28), float(rng.uniform(0.7, 1.6)))
    for side in (-1, 1):
        hip, knee, foot = (side * 0.11, 0.88, -0.28), (side * 0.25, 0.72, 0.16), (side * 0.22, 0.32, -0.06)
        body.limb(hip, knee, 0.10 * s, 0.08 * s, look.legs, 0.06)
        body.limb(knee, foot, 0.075 * s, 0.06 * s, look.legs, 0.06)
        body.limb((foot[0], 0.28, -0.1), (foot[0], 0.28, 0.12), 0.055, 0.045, look.shoes, 0.06)
        shoulder, hand = (side * 0.21 * s, 0.88 + 0.50 * s, -0.12), (side * 0.33, 1.05, 0.34)
        elbow = (side * 0.36, 0.88 + 0.25 * s, 0.06)
        body.limb(shoulder, elbow, 0.08 * s, 0.065 * s, scaled(top, 0.95), 0.06)
        body.limb(elbow, hand, 0.06 * s, 0.05 * s, scaled(top, 0.95), 0.06)
        body.ball(hand, 0.055, 0.055, (24, 24, 26), 0.08)
    sections = [
        ((0.0, 0.80, -0.30), 0.19 * s, 0.16),
        ((0.0, 0.88 + 0.28 * s, -0.22), 0.18 * s, 0.14),
        ((0.0, 0.88 + 0.48 * s, -0.14), 0.22 * s, 0.13),
        ((0.0, 0.88 + 0.58 * s, -0.12), 0.09 * s, 0.08),
    ]
    body.trunk(sections, top, 0.04)
    center = (0.0, 0.88 + 0.74 * s, -0.05)
    helmet = garment(rng, 0.5)
    body.ball(center, 0.125 * s, 0.15 * s, helmet, 0.1)
    if body.stage.viewer[2] > 0:
        body.ball((0.0, center[1] - 0.005, center[2] + 0.08), 0.09 * s, 0.05 * s, (20, 22, 26), 0.3)


def _bent(hip: Point, ankle: Point, thigh: float, shin: float) -> Point:
    """The knee between hip and ankle, bent forwards."""
    dy, dz = ankle[1] - hip[1], ankle[2] - hip[2]
    distance = min(math.hypot(dy, dz), (thigh + shin) * 0.999)
    along = (thigh * thigh - shin * shin + distance * distance) / (2 * distance)
    out = math.sqrt(max(0.0, thigh * thigh - along * along))
    uy, uz = dy / distance, dz / distance
    # Of the two normals of the line hip-ankle, the one with positive z is in front.
    ny, nz = (uz, -uy) if -uy > 0 else (-uz, uy)
    return ((hip[0] + ankle[0]) / 2 * 1.15, hip[1] + uy * along + ny * out, hip[2] + uz * along + nz * out)
