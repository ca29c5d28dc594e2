"""16-bit pictures of narrow range: the share in use is told, and the scaling is what the setting says (fault 53)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.cli import main
from iccld.data import open_dataset
from iccld.data.images import FULL_RANGE, read_image
from iccld.data.wide import chosen_range, narrow_warning, used_range
from iccld.errors import ConfigError

SIZE = (32, 40)


def thermal(path: Path, seed: int = 0) -> np.ndarray:
    """A picture whose values lie in 21,000 to 23,000, as of a thermal camera."""
    values = np.random.default_rng(seed).integers(21_000, 23_001, SIZE).astype(np.uint16)
    Image.fromarray(values).save(path)
    return values


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_fault_53_narrow_pictures_are_told_with_their_share(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(4):
        thermal(tmp_path / f"{i}{suffix}", i)
    assert main(["data", "check", "--data", str(tmp_path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "pictures have 16 bits, but use 3.0% of the range 0-65535" in told
    assert "about 9 grey levels are left" in told


def test_scaling_is_linear_rounded_and_cut_off(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 999, 1000, 1500, 2000, 2001, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", (1000, 2000))[0, :, 0].tolist() == [0, 0, 0, 128, 255, 255, 255]
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 4, 4, 6, 8, 8, 255]
    Image.fromarray(np.array([[0, 127, 255]], dtype=np.uint8)).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png", (1000, 2000))[0, :, 0].tolist() == [0, 127, 255]  # 8 bits stay as they are


def test_percentiles_keep_the_grey_levels(tmp_path: Path) -> None:
    values = [thermal(tmp_path / f"{i}.tif", i) for i in range(3)]
    dataset = open_dataset(tmp_path)
    low, high = chosen_range("percentiles", dataset.image_paths)
    expected = np.percentile(np.concatenate([each.ravel() for each in values]), [0.5, 99.5])
    assert (low, high) == pytest.approx(tuple(expected), abs=2)
    read = replace(dataset, wide=(low, high)).read_image(0)
    assert len(np.unique(read)) > 200
    assert len(np.unique(dataset.read_image(0))) < 12
    assert narrow_warning(dataset.image_paths, (low, high)) is None


@pytest.mark.parametrize(("scaling", "found"), [("full", FULL_RANGE), ("12bit", (0, 4095)), ("16bit", FULL_RANGE)])
def test_declared_bits(scaling: str, found: tuple[int, int]) -> None:
    assert chosen_range(scaling, []) == found


def test_eight_bits_have_no_range_and_other_words_are_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 7).save(tmp_path / "a.png")
    assert used_range([tmp_path / "a.png"]) is None
    assert chosen_range("percentiles", [tmp_path / "a.png"]) == FULL_RANGE
    with pytest.raises(ConfigError, match="scaling is 'auto'; use full, percentiles, or the bits"):
        chosen_range("auto", [])


def test_thermal_pictures_among_others_are_found(tmp_path: Path) -> None:
    Image.new("L", SIZE, 7).save(tmp_path / "a.png")
    thermal(tmp_path / "b.tif")
    used = used_range([tmp_path / "a.png", tmp_path / "b.tif"])
    assert used is not None
    assert 21_000 <= used[0] < used[1] <= 23_000
