"""The generated city: scenes are pure functions, labels and depth agree, files keep ids, and workers do not change a byte."""

from __future__ import annotations

import colorsys
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from iccld.city import WORLDS, generate, render_scene
from iccld.city.buildings import clip_to_view
from iccld.city.camera import NEAR_M, Camera, clip_near
from iccld.city.canvas import FAR_M, SHIFT, Canvas, fixed_point, put
from iccld.city.texture import hsv, sample_tile
from iccld.city.vegetation import bark_and_leaf
from iccld.city.writers import scene_seed
from iccld.data import open_dataset
from iccld.errors import ConfigError, DataError
from iccld.labels import CITYSCAPES_IDS, SYNTHIA_IDS

SIZE = (64, 128)
SKY, ROAD, VOID = 10, 0, 255


def digest(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_camera_projection_closed_form() -> None:
    camera = Camera(200.0, 64.0, 30.0, 1.5, SIZE)
    pixels = camera.project(np.array([[0.0, 1.5, 10.0], [1.0, 0.0, 10.0]]))
    np.testing.assert_allclose(pixels, [[64.0, 30.0], [84.0, 60.0]])


def test_camera_tilt_keeps_horizon_and_rays_invert_projection() -> None:
    camera = Camera(200.0, 64.0, 30.0, 1.5, SIZE, yaw=0.2, pitch=0.05, roll=0.02)
    far = camera.project(np.array([[np.sin(0.2) * 1e6, 0.0, np.cos(0.2) * 1e6]]))[0]
    np.testing.assert_allclose(far, [64.0, 30.0], atol=0.25)  # the picture turns about the optical axis: f tan(pitch) sin(roll) = 0.2
    point = np.array([[2.0, 0.0, 9.0]])
    x, y = camera.project(point)[0]
    dx, dy, dz = camera.ground_rays(np.array(x), np.array(y))
    t = -camera.height_m / dy
    np.testing.assert_allclose([dx * t, dz * t], [2.0, 9.0], rtol=1e-9)
    np.testing.assert_allclose(t, camera.depth_of(point)[0], rtol=1e-9)


def test_clip_near_cuts_the_triangle_at_the_plane() -> None:
    clipped = clip_near(np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 2.0], [1.0, 0.0, 2.0]]))
    assert len(clipped) == 4
    assert clipped[:, 2].min() == pytest.approx(NEAR_M)
    assert len(clip_near(np.array([[0.0, 0.0, 0.1], [1.0, 0.0, 0.1], [0.0, 1.0, 0.2]]))) == 0


def test_clip_to_view_drops_what_is_behind() -> None:
    camera = Camera(100.0, 64.0, 30.0, 1.5, SIZE)
    assert clip_to_view(camera, (-4.0, -9.0), (-4.0, -2.0)) is None
    part = clip_to_view(camera, (0.0, -10.0), (0.0, 10.0))
    assert part is not None
    assert part[0] == pytest.approx(0.525)
    assert part[1] == 1.0


def test_canvas_fill_writes_color_label_and_depth_together() -> None:
    canvas = Canvas(SIZE)
    canvas.fill([(20, 10), (40, 10), (40, 30), (20, 30)], (250, 10, 20), 13, 7.5)
    assert canvas.color[20, 30].tolist() == [250, 10, 20]
    inside = canvas.label == 13
    assert inside.sum() == 21 * 21
    assert np.all(canvas.depth[inside] == 7.5)
    assert np.all(canvas.depth[~inside] == np.float32(FAR_M))
    canvas.fill([(20, 10), (40, 10), (40, 30), (20, 30)], (0, 0, 0))  # a detail leaves label and depth
    assert np.array_equal(canvas.label == 13, inside)


@pytest.mark.parametrize(("width", "is_labelled"), [(2.0, True), (0.5, True), (0.3, False)])
def test_canvas_thin_line_label_ends_at_four_tenths_of_a_pixel(width: float, is_labelled: bool) -> None:
    canvas = Canvas(SIZE)
    canvas.line((50, 5), (50, 55), width, (255, 255, 255), 5, 9.0)
    assert bool((canvas.label[10:50, 49:52] == 5).any(axis=1).all()) is is_labelled
    assert canvas.color[30, 50].max() > 50


def test_canvas_plane_depth_follows_the_wall() -> None:
    camera = Camera(100.0, 64.0, 30.0, 1.5, SIZE)
    canvas = Canvas(SIZE)
    wall = np.array([[-3.0, 0.0, 5.0], [-3.0, 4.0, 5.0], [-3.0, 4.0, 25.0], [-3.0, 0.0, 25.0]])
    canvas.fill3d(camera, wall, (100, 100, 100), 2)
    x, y = camera.project(np.array([[-3.0, 1.5, 10.0]]))[0]
    assert canvas.depth[round(y), round(x)] == pytest.approx(10.0, rel=0.04)


def test_put_is_numpys_masked_assignment() -> None:
    rng = np.random.default_rng(0)
    for dtype, values in ((np.uint8, 7), (np.float32, 1 / 3), (np.float32, rng.random((20, 30), np.float32))):
        canvas = rng.integers(0, 99, (40, 50)).astype(dtype)
        expected, inside = canvas.copy(), rng.random((20, 30)) < 0.4
        expected[5:25, 10:40][inside] = values if isinstance(values, (int, float)) else values[inside]
        put(canvas[5:25, 10:40], values, inside)
        np.testing.assert_array_equal(canvas, expected)


def test_sample_tile_wraps_around_both_edges() -> None:
    tile = np.arange(64, dtype=np.float32).reshape(8, 8)
    for seed in range(40):
        y, x = (int(np.random.default_rng(seed).integers(8, size=2)[i]) for i in range(2))
        rows, columns = np.arange(y, y + 21) % 8, np.arange(x, x + 13) % 8
        np.testing.assert_array_equal(sample_tile(tile, (21, 13), 1.0, np.random.default_rng(seed)), tile[rows][:, columns])


def test_tree_colors_by_table_are_the_matrix_on_every_pixel() -> None:
    rng = np.random.default_rng(0)
    wood = rng.integers(0, 256, (31, 47), np.uint8)
    mix = np.zeros((3, 4))
    mix[:, 0], mix[:, 3] = rng.uniform(0.1, 1.0, 3), rng.uniform(-1.0, 1.0, 3)
    full = np.full_like(wood, 255)
    expected = cv2.transform(cv2.merge([full, full, full, wood]), mix)
    np.testing.assert_array_equal(bark_and_leaf(wood, mix), expected)


@pytest.mark.parametrize("world", WORLDS)
def test_scene_is_a_pure_function(world: str) -> None:
    first = render_scene(world, 5, SIZE)
    render_scene(world, 6, SIZE)  # whatever was cached or drawn in between
    again = render_scene(world, 5, SIZE)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.image.shape == (*SIZE, 3)
    assert first.image.dtype == np.uint8
    assert first.label.dtype == np.uint8
    assert first.depth.dtype == np.float32


def test_scene_does_not_depend_on_the_process() -> None:
    code = (
        "import hashlib; from iccld.city import render_scene; s = render_scene('sim', 3, (64, 128));"
        "print(hashlib.sha256(s.image.tobytes() + s.label.tobytes() + s.depth.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = render_scene("sim", 3, SIZE)
    assert hashlib.sha256(here.image.tobytes() + here.label.tobytes() + here.depth.tobytes()).hexdigest() == there


@pytest.mark.parametrize("size", [(48, 160), (96, 64), (33, 47)])
def test_scene_takes_any_size(size: tuple[int, int]) -> None:
    for seed in range(3):
        assert render_scene("sim", seed, size).label.shape == size


def test_scenes_label_and_depth_agree_and_all_classes_occur() -> None:
    seen: set[int] = set()
    for seed in range(60):  # a tram stands in one scene of eight
        scene = render_scene(WORLDS[seed % len(WORLDS)], seed, SIZE)
        seen |= set(np.unique(scene.label).tolist())
        assert np.isfinite(scene.depth).all()
        assert scene.depth.min() > 0
        sky = scene.label == SKY
        assert np.all(scene.depth[sky] == np.float32(FAR_M))
        assert np.all(scene.depth[~sky & (scene.label != VOID)] < FAR_M)
        rows = np.flatnonzero((scene.label == ROAD).any(axis=1))
        near, far = scene.depth[rows[-1]], scene.depth[rows[0]]
        assert near[scene.label[rows[-1]] == ROAD].mean() < far[scene.label[rows[0]] == ROAD].mean()
    assert seen - {VOID} == set(range(19))


def test_worlds_differ_in_look() -> None:
    def sharpness(world: str) -> float:
        greys = [render_scene(world, seed, SIZE).image.mean(axis=2) for seed in range(8)]
        return float(np.median([np.abs(np.diff(cv2.blur(grey, (3, 3)), axis=1)).mean() for grey in greys]))

    assert not np.array_equal(render_scene("sim", 0, SIZE).label, render_scene("camera", 0, SIZE).label)
    assert sharpness("camera") < sharpness("sim")


def test_splits_share_no_scene() -> None:
    seeds = {scene_seed(seed, split, i) for seed in (0, 1) for split in ("train", "val") for i in range(50)}
    assert len(seeds) == 200


@pytest.mark.parametrize("layout", ["gta5", "synthia", "cityscapes", "folder"])
def test_layout_round_trips_through_its_reader(layout: str, tmp_path: Path) -> None:
    out = generate("sim", layout, 2, SIZE, 4, tmp_path / "data", workers=1)
    dataset = open_dataset(out, "auto", "train")
    assert dataset.format == layout
    assert len(dataset) == 2
    for i in range(2):
        scene, sample = render_scene("sim", scene_seed(4, "train", i), SIZE), dataset[i]
        np.testing.assert_array_equal(sample.image, scene.image)
        np.testing.assert_array_equal(sample.label, scene.label)
        assert sample.depth is not None
        np.testing.assert_allclose(sample.depth, scene.depth, atol=0.006)


def test_gta5_label_is_a_palette_png_of_raw_ids(tmp_path: Path) -> None:
    out = generate("camera", "gta5", 1, SIZE, 0, tmp_path / "data", workers=1)
    label = Image.open(out / "labels" / "00001.png")
    assert label.mode == "P"
    assert set(np.unique(np.asarray(label))) <= set(CITYSCAPES_IDS) | {0}


def test_synthia_label_keeps_the_class_in_red(tmp_path: Path) -> None:
    out = generate("sim", "synthia", 1, SIZE, 0, tmp_path / "data", workers=1)
    label = cv2.imread(str(out / "GT" / "LABELS" / "0000000.png"), cv2.IMREAD_UNCHANGED)
    assert label.dtype == np.uint16
    assert set(np.unique(label[..., 2])) <= set(SYNTHIA_IDS) | {0}
    assert label[..., 2].max() > 0
    assert label[..., :2].max() == 0


def test_bytes_do_not_depend_on_workers(tmp_path: Path) -> None:
    one = generate("sim", "folder", 8, (32, 64), 9, tmp_path / "one", workers=1)
    two = generate("sim", "folder", 8, (32, 64), 9, tmp_path / "two", workers=2)
    assert digest(one) == digest(two)
    assert len(digest(one)) == 8 * 3 + 2


@pytest.mark.parametrize("from_standard_input", [False, True])
def test_a_script_without_a_guard_draws_in_several_processes(from_standard_input: bool, tmp_path: Path) -> None:
    """Its processes do not run it again, and one from standard input has no file to run."""
    script = "from iccld.city import generate\nprint('once')\ngenerate('sim', 'folder', 8, (32, 64), 9, 'data', workers=2)\n"
    (tmp_path / "script.py").write_text(script)
    words = [sys.executable, "-" if from_standard_input else str(tmp_path / "script.py")]
    done = subprocess.run(words, input=script, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr[-2000:]
    assert len(list((tmp_path / "data" / "images").iterdir())) == 8


def test_finished_generation_is_reused_and_another_refused(tmp_path: Path) -> None:
    out = generate("sim", "gta5", 1, (32, 64), 0, tmp_path / "data", workers=1)
    stamp = (out / "images" / "00001.png").stat().st_mtime_ns
    assert generate("sim", "gta5", 1, (32, 64), 0, out) == out
    assert (out / "images" / "00001.png").stat().st_mtime_ns == stamp
    assert json.loads((out / "generation.json").read_text())["seed"] == 0
    with pytest.raises(DataError, match="another generation: seed 0"):
        generate("sim", "gta5", 1, (32, 64), 1, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(DataError, match="not empty"):
        generate("sim", "gta5", 1, (32, 64), 0, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not touch"


def test_interrupted_generation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DataError("disk full")

    monkeypatch.setitem(sys.modules["iccld.city.writers"].__dict__["_WRITERS"], "gta5", fail)
    with pytest.raises(DataError, match="disk full"):
        generate("sim", "gta5", 1, (32, 64), 0, tmp_path / "data", workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("world", "layout", "num", "size"),
    [("mars", "gta5", 1, (64, 64)), ("sim", "kitti", 1, (64, 64)), ("sim", "gta5", 0, (64, 64)), ("sim", "gta5", 1, (8, 64))],
)
def test_impossible_arguments_are_configuration_errors(world: str, layout: str, num: int, size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        generate(world, layout, num, size, 0, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_two_processes_that_draw_the_same_scenes_both_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("sim", "folder", 2, (48, 64), 5)
    first = generate(*arguments, tmp_path / "first", workers=1)
    contested = tmp_path / "contested"
    write = Path.write_text

    def another_is_faster(path: Path, *text: str, **options: str) -> int:
        if path.name == "generation.json" and not contested.exists():
            shutil.copytree(first, contested)
        return write(path, *text, **options)

    monkeypatch.setattr(Path, "write_text", another_is_faster)
    assert generate(*arguments, contested, workers=1) == contested
    assert sorted(p.name for p in tmp_path.iterdir()) == ["contested", "first"]


@pytest.mark.parametrize("corners", [3, 4, 5, 12])
def test_fixed_point_of_any_number_of_corners_rounds_alike(corners: int) -> None:
    points = np.random.default_rng(corners).uniform(0, 500, (corners, 2))
    assert np.array_equal(fixed_point(points.tolist()), np.floor(points * (1 << SHIFT) + 0.5))


@pytest.mark.parametrize("side", [8, 200])  # numpy's masks below some size, OpenCV's above
def test_put_writes_a_number_into_small_and_large_areas(side: int) -> None:
    inside = np.random.default_rng(side).random((side, side)) < 0.5
    for dtype, value in ((np.uint8, 8), (np.float32, 12.34)):
        sheet = np.full((side + 2, side + 3), 255, dtype)
        put(sheet[1:-1, 2:-1], value, inside)
        expected = np.full_like(sheet, 255)
        expected[1:-1, 2:-1] = np.where(inside, dtype(value), dtype(255))
        assert np.array_equal(sheet, expected)


def test_hsv_agrees_with_the_standard_library_in_every_sector() -> None:
    for hue in range(-30, 420, 15):
        for saturation, value in ((0.0, 0.4), (0.3, 0.8), (1.0, 1.0)):
            assert hsv(hue, saturation, value) == pytest.approx([255 * c for c in colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)])


def test_outline_cut_at_the_near_plane_is_the_projection_of_what_is_left() -> None:
    camera = Camera(focal_px=100, cx=64, horizon_y=30, height_m=1.5, size=SIZE, yaw=0.2, pitch=0.02, roll=0.01)
    for nearest in (2.0, -1.0):
        corners = np.array([(-1.0, 0.0, nearest), (1.0, 0.5, nearest), (1.5, 1.0, 9.0), (-1.5, 0.2, 9.0)])
        pixels, depths = camera.outline(corners.tolist())
        left = camera.clip_polygon_near(corners)
        assert np.allclose(pixels, camera.project(left))
        assert np.allclose(depths, camera.depth_of(left))
