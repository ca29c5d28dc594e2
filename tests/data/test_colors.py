"""Masks in colours: exact, in RGB, RGBA and palette files; what was not listed is an error with its numbers of pixels."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.data import open_dataset
from iccld.data.colors import ColorMask, parse_color
from iccld.data.description import read_description
from iccld.errors import ConfigError, DataError
from iccld.labels import LabelClass, LabelSpace

TWO = LabelSpace("two", (LabelClass("road", (1, 1, 1)), LabelClass("sky", (2, 2, 2))))
YAML = """
classes:
- {name: road, colors: ["#804080", [1, 2, 3]]}
- {name: sky, colors: ["4682B4"]}
ignore_colors: ["#000000"]
"""
COLORS = [(128, 64, 128), (1, 2, 3), (70, 130, 180), (0, 0, 0)]


def painted(root: Path, colors: list[tuple[int, int, int]], mode: str = "RGB") -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (len(colors), 1)).save(root / "images" / "a.jpg")
    image = Image.fromarray(np.array([colors], dtype=np.uint8))
    if mode == "P":
        image = Image.fromarray(np.arange(len(colors), dtype=np.uint8)[None])
        image.putpalette([value for color in colors for value in color])
    elif mode == "RGBA":
        image = image.convert("RGBA")
        image.putalpha(7)
    image.save(root / "masks" / "a.png")
    (root / "dataset.yaml").write_text(YAML)
    return root


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_become_classes(tmp_path: Path, mode: str) -> None:
    dataset = open_dataset(painted(tmp_path, COLORS, mode), label_space=TWO)
    assert dataset.read_label(0).tolist() == [[0, 0, 1, 255]]


def test_unknown_colours_are_listed_with_their_counts_most_frequent_first(tmp_path: Path) -> None:
    root = painted(tmp_path, [*COLORS, (128, 64, 129), (255, 0, 0), (255, 0, 0)])
    with pytest.raises(DataError, match=r"masks/a\.png: unknown colour #ff0000 \(2 pixels\), #804081 \(1 pixels\); add it to a class"):
        open_dataset(root, label_space=TWO).read_label(0)


def test_grey_masks_have_no_colours(tmp_path: Path) -> None:
    root = painted(tmp_path, COLORS)
    Image.new("L", (4, 1)).save(root / "masks" / "a.png")
    with pytest.raises(DataError, match="grey values, not colours; list 'ids'"):
        open_dataset(root, label_space=TWO).read_label(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [{name: a, colors: ['#12345']}]", "'#12345' is no colour; write '#804080'"),
        ("classes: [{name: a, colors: ['#123456']}, {name: b, colors: ['123456']}]", "colour #123456 already belongs to 'a'"),
        ("classes: [{name: a, colors: ['#123456'], ids: [1]}]", "has ids and colors"),
        ("classes: [{name: a, colors: ['#123456']}, {name: b, ids: [1]}]", "has ids and colors"),
        ("classes: [{name: a, colors: ['#123456']}]\nignore_colors: ['#123456']", "both ignored and 'a'"),
        ("classes: [{name: a, ids: [1]}]\nlabelled: [b]", "'labelled' names 'b', which is none of its classes: a"),
        ("classes: [{name: a, ids: [1]}]\nlabelled: a", "'labelled' must be a list"),
        ("classes: [{name: a, ids: [1]}]\nsuffixes: _x", "'suffixes' must be a mapping"),
        ("classes: [{name: a, ids: [1]}]\nsuffixes: {imge: _x}", "did you mean 'image'"),
    ],
)
def test_bad_descriptions_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_description(tmp_path / "dataset.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_endings_may_name_the_whole_end_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text("suffixes: {image: .jpg, mask: _mask.png}")
    described = read_description(tmp_path / "dataset.yaml")
    assert (described.image_ending, described.mask_ending) == ("", "_mask")


def test_readers_travel_to_workers_without_their_tables(tmp_path: Path) -> None:
    reader = ColorMask({(1, 2, 3): 5})
    reader(painted(tmp_path, [(1, 2, 3)]) / "masks" / "a.png")
    copied = pickle.dumps(reader)
    assert len(copied) < 1000
    assert pickle.loads(copied)(tmp_path / "masks" / "a.png").tolist() == [[5]]
    assert parse_color([1, 2, 3], "") == parse_color("#010203", "") == (1, 2, 3)
