"""Files that are not read are counted by their suffix; HEIC and AVIF are read where pillow-heif is installed (fault 55)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from iccld.data import finding, images, open_dataset
from iccld.data.dataset import left_out_note
from iccld.data.finding import find_files
from iccld.data.images import read_image
from iccld.errors import DataError

SIZE = (48, 64)


def smooth() -> np.ndarray:
    """(48, 64, 3) uint8: what compression keeps well."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([x * 3, y * 4, x + y], axis=-1).astype(np.uint8)


def without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "find_spec", lambda name: None)


def test_fault_55_files_left_out_are_counted_by_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_heif(monkeypatch)
    for i in range(20):
        (tmp_path / f"{i}.HEIC").write_bytes(b"x")
    for i in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 2
    assert dataset.notes == [f"{tmp_path}: 20 files skipped (.heic); pip install 'iccld[heif]' reads HEIC and AVIF"]
    (tmp_path / "clip.mp4").write_bytes(b"x")
    assert "21 files skipped (.heic 20, .mp4 1)" in open_dataset(tmp_path).notes[0]
    (tmp_path / "readme.txt").write_text("words")  # describes the data, and is not expected to be a picture
    assert "21 files skipped" in open_dataset(tmp_path).notes[0]


def test_fault_55_an_empty_folder_tells_what_it_holds_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_heif(monkeypatch)
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"found 0; .*1 file skipped \(\.heic\); pip install 'iccld\[heif\]'"):
        open_dataset(tmp_path)


def test_nothing_left_out_says_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert left_out_note([tmp_path], finding.picture_suffixes()) == []


def test_heic_is_read_upright_and_close_to_what_was_written(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    Image.fromarray(smooth()).save(tmp_path / "a.heic", quality=95)
    assert find_files(tmp_path, finding.picture_suffixes()) == [tmp_path / "a.heic"]
    found = read_image(tmp_path / "a.heic")
    assert found.shape == (*SIZE, 3)
    assert float(np.abs(found.astype(int) - smooth()).mean()) < 4
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth()).save(tmp_path / "b.heic", quality=95, exif=exif.tobytes())
    assert read_image(tmp_path / "b.heic").shape == (SIZE[1], SIZE[0], 3)
    assert images.upright_size(tmp_path / "b.heic") == (SIZE[1], SIZE[0])


def test_avif_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    if not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    Image.fromarray(smooth()).save(tmp_path / "a.avif", quality=95)
    assert float(np.abs(read_image(tmp_path / "a.avif").astype(int) - smooth()).mean()) < 4


def test_heic_without_its_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    with pytest.raises(DataError, match=r"a\.heic: HEIC and AVIF pictures need pillow-heif; pip install 'iccld\[heif\]'"):
        read_image(tmp_path / "a.heic")


def test_heic_as_a_mask_is_refused(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    Image.fromarray(smooth()).save(tmp_path / "a.heic")
    with pytest.raises(DataError, match="HEIF inside"):
        images.read_palette_indices(tmp_path / "a.heic")
