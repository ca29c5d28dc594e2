"""What the labels of the generated city promise: the sky between branches is sky; walls, columns and boards keep their class."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from iccld.city import VERSION, WORLDS, render_scene
from iccld.city.barriers import draw_fence, draw_hoarding, draw_wall
from iccld.city.buildings import Point, wall_quad
from iccld.city.camera import Camera
from iccld.city.canopies import column_places, draw_column, draw_roof
from iccld.city.canvas import FAR_M, VOID, Canvas
from iccld.city.dice import Dice
from iccld.city.facade_style import FRONTS, make_style
from iccld.city.furniture import draw_pylon
from iccld.city.ground import LOT, MATERIAL_LABEL, Ground, make_palette
from iccld.city.layout import (
    BUILDING,
    FENCE,
    KINDS,
    PERSON,
    POLE,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    VEGETATION,
    WALL,
    Side,
    Street,
    make_street,
)  # fmt: skip
from iccld.city.light import Light
from iccld.city.people import draw_person
from iccld.city.tree_sprites import SPECIMENS, tree_sprite
from iccld.city.vegetation import Season, draw_tree, draw_tree_line
from iccld.cli import parser
from iccld.config.domains import GenerateConfig

SIZE = (240, 320)
WHITE = (250, 250, 250)
WINTER = Season((60, 110), (0.2, 0.45), (0.2, 0.38), 1.0, 0.0)
LATE_AUTUMN = Season((22, 70), (0.35, 0.7), (0.3, 0.58), 0.0, 1.0)
SUMMER = Season((72, 118), (0.3, 0.62), (0.26, 0.5), 0.0, 0.0)
Barrier = Callable[[Canvas, Camera, np.random.Generator, Point, Point, float, Light], None]


def street() -> tuple[Canvas, Camera]:
    """A white sky over everything, and the camera that looks at it."""
    canvas = Canvas(SIZE)
    canvas.color[:] = WHITE
    canvas.label[:] = SKY
    return canvas, Camera(focal_px=300.0, cx=160.0, horizon_y=150.0, height_m=1.4, size=SIZE)


@pytest.mark.parametrize("season", [WINTER, LATE_AUTUMN], ids=["bare", "few leaves"])
@pytest.mark.parametrize("seed", range(6))
def test_bare_crown_is_tree_at_branches_and_sky_between_them(season: Season, seed: int) -> None:
    canvas, camera = street()
    draw_tree(canvas, camera, np.random.default_rng(seed), season, (0.0, 16.0), 9.0, Light())
    is_tree, is_sky = canvas.label == VEGETATION, canvas.label == SKY
    assert np.array_equal(is_tree, ~is_sky)
    grey = canvas.color.mean(axis=2)
    assert grey[is_tree].max() < 215  # nothing white is tree
    assert (grey[is_sky] > 190).mean() > 0.985  # nearly nothing dark is sky: the thinnest twigs alone
    assert np.all(canvas.depth[is_sky] == np.float32(FAR_M))
    rows, columns = np.nonzero(is_tree)
    crown = canvas.label[rows.min() : rows.min() + int(0.6 * np.ptp(rows)), columns.min() : columns.max()]
    assert 0.1 < (crown == VEGETATION).mean() < 0.8
    # Sky is seen through the crown: sky pixels with tree to the left and to the right.
    left, right = np.maximum.accumulate(crown == VEGETATION, axis=1), np.maximum.accumulate((crown == VEGETATION)[:, ::-1], axis=1)[:, ::-1]
    assert ((crown == SKY) & left & right).mean() > 0.08


def test_bare_crown_in_front_of_a_wall_shows_the_wall_between_branches() -> None:
    canvas, camera = street()
    canvas.label[:] = BUILDING
    draw_tree(canvas, camera, np.random.default_rng(1), WINTER, (0.0, 16.0), 9.0, Light())
    assert set(np.unique(canvas.label)) == {BUILDING, VEGETATION}
    assert 0.02 < (canvas.label == VEGETATION).mean() < 0.5


def test_far_bare_crowns_close_and_near_ones_open() -> None:
    def tree_share(distance: float) -> float:
        shares = []
        for seed in range(8):
            canvas, camera = street()
            draw_tree(canvas, camera, np.random.default_rng(seed), WINTER, (0.0, distance), 9.0, Light())
            shares.append((canvas.label == VEGETATION).sum() * distance**2)
        return float(np.mean(shares))

    assert tree_share(60.0) > 0.8 * tree_share(18.0)  # averaging closes the gaps, it never loses the tree


def test_leafy_crowns_are_filled_more_than_bare_ones() -> None:
    def filled(kind: str) -> float:
        return float(np.mean([(tree_sprite(kind, i).outline > 0.5).mean() for i in range(SPECIMENS[kind])]))

    assert filled("leafy") > 1.3 * filled("bare")
    for number in range(SPECIMENS["leafy"]):
        sprite = tree_sprite("leafy", number)
        assert sprite.alpha[sprite.outline > 0.5].mean() > 0.75


def test_bare_tree_line_lets_the_sky_through_its_top() -> None:
    shares = []
    for season in (SUMMER, WINTER):
        canvas, camera = street()
        draw_tree_line(canvas, camera, np.random.default_rng(2), season, Light(), (225.0, 228.0, 232.0), 60.0)
        assert set(np.unique(canvas.label)) == {SKY, VEGETATION}
        shares.append((canvas.label == VEGETATION).mean())
    assert 0.4 * shares[0] < shares[1] < 0.97 * shares[0]


@pytest.mark.parametrize(
    ("draw", "must", "may"),
    [(draw_wall, WALL, {VEGETATION}), (draw_hoarding, WALL, set()), (draw_fence, FENCE, set())],
    ids=["wall", "hoarding", "fence"],
)
@pytest.mark.parametrize("seed", range(12))
def test_barriers_keep_their_class_whatever_hangs_on_them(draw: Barrier, must: int, may: set[int], seed: int) -> None:
    canvas, camera = street()
    p, q = (-3.0, 9.0), (3.0, 8.0)
    draw(canvas, camera, np.random.default_rng(seed), p, q, 1.6, Light())
    found = {int(v) for v in np.unique(canvas.label)} - {SKY}
    assert must in found
    assert found <= {must} | may
    quad, _ = wall_quad(camera, p, q, 0.0, 1.6)
    y, x = int(quad[:, 1].mean()), int(quad[:, 0].mean())
    assert canvas.label[y, x] in {must} | may
    assert canvas.depth[y, x] == pytest.approx(8.5, abs=0.4)


def test_fence_on_a_wall_stands_above_it() -> None:
    canvas, camera = street()
    p, q = (-3.0, 9.0), (3.0, 9.0)
    draw_wall(canvas, camera, np.random.default_rng(0), p, q, 0.7, Light())
    draw_fence(canvas, camera, np.random.default_rng(0), p, q, 0.8, Light(), "railing", 0.7)
    column = canvas.label[:, 160]
    assert np.flatnonzero(column == FENCE).max() < np.flatnonzero(column == WALL).min() + 1
    assert (column == FENCE).sum() == pytest.approx(0.8 * 300 / 9, abs=3)


def test_columns_and_roofs_are_building() -> None:
    canvas, camera = street()
    p, q = (-4.0, 12.0), (4.0, 12.0)
    draw_roof(canvas, camera, p, q, 3.0, 3.5, 0.6, (200, 200, 200), (220, 90, 30), Light())
    assert set(np.unique(canvas.label)) == {SKY, BUILDING}
    for number, place in enumerate(column_places(p, q, 2.6, 4.0)):
        assert place[1] == pytest.approx(9.4)
        draw_column(canvas, camera, np.random.default_rng(number), place, Light(), 3.5, 0.2, (210, 210, 205))
    assert len(column_places(p, q, 2.6, 4.0)) == 3
    assert set(np.unique(canvas.label)) == {SKY, BUILDING}
    x, y = camera.project(np.array([[0.0, 1.0, 9.4]]))[0]
    assert canvas.label[round(y), round(x)] == BUILDING


def test_every_shop_front_occurs() -> None:
    rng = np.random.default_rng(0)
    fronts = [make_style(rng, "terrace", "sim", 0.0).front for _ in range(300)]
    assert set(fronts) == set(FRONTS)


def test_pushed_things_are_void_and_their_person_is_not() -> None:
    seen: set[int] = set()
    for seed in range(120):
        canvas, camera = street()
        draw_person(canvas, camera, np.random.default_rng(seed), (0.0, 7.0), np.pi * (seed % 2), Light(), pose="walking", height_m=1.75)
        found = {int(v) for v in np.unique(canvas.label)} - {SKY}
        assert PERSON in found
        seen |= found
    assert seen == {PERSON, VOID}


def test_pylon_shows_the_sky_between_its_bars() -> None:
    canvas, camera = street()
    draw_pylon(canvas, camera, np.random.default_rng(3), (0.0, 40.0), 0.3, Light())
    rows, columns = np.nonzero(canvas.label == POLE)
    inside = canvas.label[rows.min() : rows.max(), columns.min() : columns.max()]
    assert (inside == SKY).mean() > 0.3


def ground_label(**changes: object) -> tuple[np.ndarray, Camera, Street]:
    """Labels of the bare ground of a street, with some of its properties set."""
    canvas, camera = street()
    side = Side(-1, 0.0, 2.0, 6.15, ())
    plain = Street("residential", -1.5, 0.0, 0.0, 1, 4.0, 3.0, 1, (0.0, 0.0), (side, replace(side, sign=1)), (), 100.0)
    layout = replace(plain, **changes)  # type: ignore[arg-type]
    rng = Dice(4)
    Ground(canvas, camera, layout, make_palette(rng, "sim"), Light(), rng).base([])
    return canvas.label, camera, layout


def at(label: np.ndarray, camera: Camera, layout: Street, u: float, z: float) -> int:
    """The label at lateral coordinate u, z metres ahead."""
    x, ahead = layout.at(u, z)
    column, row = camera.project(np.array([[x, 0.0, ahead]]))[0]
    return int(label[round(row), round(column)])


@pytest.mark.parametrize(("surface", "expected"), [("paving", SIDEWALK), ("asphalt", SIDEWALK), ("soil", TERRAIN)])
def test_pavement_of_asphalt_is_pavement_and_of_soil_is_terrain(surface: str, expected: int) -> None:
    side = Side(-1, 0.0, 2.0, 6.15, (), surface)
    label, camera, layout = ground_label()
    assert at(label, camera, layout, 5.2, 9.0) == SIDEWALK
    label, camera, layout = ground_label(sides=(side, replace(side, sign=1)))
    assert at(label, camera, layout, 5.2, 9.0) == expected
    assert at(label, camera, layout, 2.0, 9.0) == ROAD


def test_median_divides_the_road() -> None:
    label, camera, layout = ground_label(median=2.0)
    assert at(label, camera, layout, 0.0, 12.0) in (SIDEWALK, TERRAIN)
    assert {at(label, camera, layout, u, 12.0) for u in (-2.5, 2.5)} == {ROAD}
    assert layout.shift == 1.0


def test_car_parks_are_road() -> None:
    assert MATERIAL_LABEL[LOT] == ROAD


def test_streets_of_every_kind_occur_in_sim_alone_and_weathers_share_the_camera_s() -> None:
    kinds = {world: {make_street(Dice([seed, 7]), world).kind for seed in range(400)} for world in ("sim", "camera")}
    assert kinds["sim"] == set(KINDS)
    assert kinds["camera"] == set(KINDS) - {"bazaar", "village"}


@pytest.mark.parametrize(("world", "low", "high"), [("camera", 75, 165), ("night", 18, 90), ("rain", 50, 150), ("fog", 60, 180)])
def test_targets_are_bright_enough_to_see(world: str, low: float, high: float) -> None:
    scenes = [render_scene(world, seed, (96, 192)) for seed in range(12)]
    means = [scene.image.mean() for scene in scenes]
    assert low < np.median(means) < high
    assert min(means) > 0.6 * low
    # Things can be told from what surrounds them: grey levels spread within every picture.
    assert np.median([scene.image.mean(axis=2).std() for scene in scenes]) > 12


def test_fog_hides_what_is_far_more_than_the_camera_s_haze() -> None:
    def far_spread(world: str) -> float:
        spreads = []
        for seed in range(16):
            scene = render_scene(world, seed, (96, 192))
            far = (scene.depth > 40) & (scene.depth < 150)
            if far.sum() > 200:
                spreads.append(float(scene.image.mean(axis=2)[far].std()))
        return float(np.median(spreads))

    assert far_spread("fog") < 0.85 * far_spread("camera")


def test_command_line_and_configuration_know_every_world() -> None:
    assert parser.WORLDS == WORLDS
    for world in WORLDS:
        assert GenerateConfig(world=world).world == world


def test_sparse_grid_of_every_world_equals_what_this_version_drew() -> None:
    """Pictures change only together with VERSION: raise it, then write this file again (see its note)."""
    golden = json.loads((Path(__file__).parent / "golden_scenes.json").read_text())
    assert golden["version"] == VERSION
    for world in WORLDS:
        scene = render_scene(world, 77, (96, 160))
        found = cv2.resize(scene.image, (10, 6), interpolation=cv2.INTER_AREA).mean(axis=2)
        np.testing.assert_allclose(found, golden["grids"][world], atol=2.0)  # codecs and vector units round differently
        shares = np.bincount(scene.label.ravel(), minlength=256)[:19] / scene.label.size
        np.testing.assert_allclose(shares, golden["shares"][world], atol=0.004)


def test_more_than_a_third_of_the_people_have_the_carriageway_below_them() -> None:
    """A network that knows people on pavements alone calls whoever stands on the road a rider."""
    on_road = []
    for seed in range(60):
        label = render_scene("sim", seed, (180, 320)).label
        _, _, boxes, _ = cv2.connectedComponentsWithStats((label == PERSON).astype(np.uint8))
        for x, y, width, height, _ in boxes[1:]:
            if height >= 10 and y + height + 2 < len(label):
                below = label[y + height : y + height + 2, x : x + width]
                on_road.append(bool((below == ROAD).mean() > 0.5))
    assert len(on_road) > 100
    assert np.mean(on_road) > 0.36
