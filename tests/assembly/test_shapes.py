"""`size.shape target`: working sizes, windows and scenes in the aspect of the target's pictures, at the areas that the recipe gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import iccld
from iccld import runs
from iccld.adapting import train
from iccld.assembly.shapes import with_target_shape
from iccld.cli import main
from iccld.config import Config, load_config, parse_size, read_config
from iccld.experiments import compare as table2

Pictures = Callable[..., str]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Black pictures of these sizes (H, W), and the folder they lie in."""

    def made(*sizes: tuple[int, int], orientation: int = 1) -> str:
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        for number, (height, width) in enumerate(sizes):
            image = Image.new("RGB", (width, height))
            exif = image.getexif()
            exif[0x0112] = orientation
            image.save(folder / f"{number}.jpg", exif=exif)
        return str(folder)

    return made


def shaped(folder: str, *flags: str, recipe: str = "city_to_folder") -> Config:
    return with_target_shape(load_config(recipe, ["--target.path", folder, *flags]))


def area(text: str) -> int:
    height, width = parse_size(text)
    return height * width


@pytest.mark.parametrize(
    ("size", "target", "crop", "scenes"),
    [
        ((360, 480), "448x608", "288x384", "456x608"),  # CamVid's: what city_to_camvid was measured with
        ((240, 320), "448x608", "288x384", "456x608"),
        ((1080, 1920), "384x704", "256x432", "392x704"),
        ((2160, 3840), "384x704", "256x432", "392x704"),
        ((1920, 1080), "688x400", "448x240", "704x392"),
        ((500, 500), "528x512", "336x336", "528x528"),
        ((400, 2000), "304x896", "192x576", "304x912"),  # 5 to 1: windows stay within 3 to 1
        ((4000, 100), "896x304", "576x192", "912x304"),
    ],
)
def test_windows_and_scenes_take_the_aspect_of_the_pictures(
    size: tuple[int, int], target: str, crop: str, scenes: str, pictures: Pictures
) -> None:
    config, given = shaped(pictures(size)), load_config("city_to_folder")
    assert (config.size.target, config.size.crop, config.source.generate.size) == (target, crop, scenes)
    assert config.size.source == target
    assert config.size.shape == "given"
    for own, recipes in ((target, given.size.target), (crop, given.size.crop), (scenes, given.source.generate.size)):
        assert area(own) == pytest.approx(area(recipes), rel=0.04)  # so that time and memory stay as they were


def test_the_median_picture_decides_and_one_that_is_turned_counts_as_it_is_shown(pictures: Pictures) -> None:
    assert shaped(pictures((90, 160), (90, 160), (400, 100))).size.crop == "256x432"
    assert shaped(pictures((90, 160), (90, 160), (90, 160), orientation=6)).size.crop == "448x240"


def test_damaged_pictures_are_left_to_their_reader(pictures: Pictures) -> None:
    folder = pictures((90, 160), (90, 160))
    Path(folder, "0.jpg").write_bytes(b"no picture")
    assert shaped(folder).size.crop == "256x432"
    Path(folder, "1.jpg").write_bytes(b"no picture")
    assert shaped(folder).size == load_config("city_to_folder", ["--size.shape", "given"]).size


@pytest.mark.parametrize("named", [("--size.crop", "224x224"), ("--source.generate.size=224x336",), ("--size.shape", "given")])
def test_sizes_that_are_named_stay(named: tuple[str, ...], pictures: Pictures) -> None:
    asked = load_config("city_to_folder", ["--target.path", pictures((90, 160)), *named])
    assert asked.size.shape == "given"
    assert with_target_shape(asked) is asked
    assert asked.size.target == "448x608"


def test_a_shape_asked_for_beside_a_size_is_taken(pictures: Pictures) -> None:
    assert shaped(pictures((90, 160)), "--size.crop", "224x224", "--size.shape", "target").size.crop == "160x320"


def test_windows_fit_into_a_source_that_is_read(pictures: Pictures, tmp_path: Path) -> None:
    """Its own aspect is not known here, so its working size stays, and no window is larger."""
    config = shaped(pictures((900, 300)), "--source.path", str(tmp_path), recipe="own_to_own")
    assert (config.size.source, config.size.target, config.size.crop) == ("448x608", "896x304", "448x192")


def test_drawn_targets_tell_their_own_shape() -> None:
    flags = ["--target.generate.num", "2", "--target.generate.size", "96x192", "--target.format", "folder"]
    assert with_target_shape(load_config("city_to_folder", flags)).size.crop == "240x464"


def test_a_folder_that_is_not_there_is_left_to_its_reader(capsys: Any) -> None:
    assert shaped("nowhere").size.crop == "288x384"
    assert main(["adapt", "--recipe", "city_to_folder", "--target.path", "nowhere"]) == 3
    assert capsys.readouterr().err.strip().endswith("nowhere: no such folder")


def test_other_recipes_keep_their_sizes(pictures: Pictures) -> None:
    config = load_config("city_to_camvid", ["--target.path", pictures((90, 160))])
    assert with_target_shape(config) is config


# --- every way into a run -------------------------------------------------------------------------------------------------


class ReachedError(Exception):
    """A run would begin here."""


def test_every_way_into_a_run_has_the_shape(pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    begun: list[Config] = []

    def begin(config: Config, *_: object) -> Path:
        begun.append(config)
        raise ReachedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "adapt", begin)
    monkeypatch.setattr(table2, "compare", begin)
    words = ["--recipe", "city_to_folder", "--target.path", pictures((90, 160))]
    for way in (
        lambda: train(load_config("city_to_folder", words[2:]), estimates=False),
        lambda: main(["adapt", *words, "--no_estimate"]),
        lambda: iccld.adapt("city_to_folder", target=words[3]),
        lambda: main(["compare", *words, "--methods", "dacs", "--seeds", "0", "--out", "table"]),
    ):
        with pytest.raises(ReachedError):
            way()
    assert [(config.size.crop, config.size.shape) for config in begun] == [("256x432", "given")] * 4
    assert "windows are 256x432 of 384x704, scenes drawn at 392x704" in capsys.readouterr().err
    assert main(["adapt", *words, "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["size"]["crop"] == "256x432"
    (tmp_path / "config.yaml").write_text(printed)  # as a run keeps it: what went on again is the same
    again = read_config(tmp_path / "config.yaml")
    assert with_target_shape(again) is again
