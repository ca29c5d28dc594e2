"""Films: every frame is predicted, and the overlays become a film of the same rate and length."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from iccld.errors import ConfigError, DataError
from iccld.files import read_json
from iccld.predict.video import extract_frames, is_video, write_video

SIZE = (48, 64)


def write_film(path: Path, num: int = 5) -> None:
    """Frames that grow brighter, at 12.5 a second."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=Fraction(25, 2))
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for i in range(num):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 40 * i + 20, dtype=np.uint8), format="rgb24")))
        film.mux(stream.encode())


def test_every_frame_is_a_picture_once(tmp_path: Path) -> None:
    write_film(tmp_path / "clip.mp4")
    assert is_video(tmp_path / "clip.mp4")
    from iccld.data.images import read_image

    folder = extract_frames(tmp_path / "clip.mp4", tmp_path / "frames" / "clip")
    frames = sorted(folder.glob("*.png"))
    assert [path.name for path in frames] == [f"{i:06d}.png" for i in range(1, 6)]
    for i, path in enumerate(frames):
        assert abs(float(read_image(path).mean()) - (40 * i + 20)) < 3
    assert read_json(folder / "frames.json")["rate"] == [25, 2]
    before = frames[0].stat().st_mtime_ns
    extract_frames(tmp_path / "clip.mp4", folder)
    assert frames[0].stat().st_mtime_ns == before


def test_overlays_become_a_film_of_the_same_rate(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    write_film(tmp_path / "clip.mp4")
    folder = extract_frames(tmp_path / "clip.mp4", tmp_path / "frames" / "clip")
    write_video(sorted(folder.glob("*.png")), folder, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as film:
        assert film.streams.video[0].average_rate == Fraction(25, 2)
        assert sum(1 for _ in film.decode(video=0)) == 5


def test_what_is_no_film_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"no film" * 100)
    with pytest.raises(DataError, match=r"a\.mp4: cannot be read as a film"):
        extract_frames(tmp_path / "a.mp4", tmp_path / "frames" / "a")
    assert not (tmp_path / "frames").exists()


def test_frames_of_a_longer_film_of_that_name_do_not_stay(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_film(tmp_path / "clip.mp4")
    folder = extract_frames(tmp_path / "clip.mp4", tmp_path / "clip")
    assert len(list(folder.glob("*.png"))) == 5
    (folder / "000009.png").write_bytes((folder / "000001.png").read_bytes())
    os.utime(tmp_path / "clip.mp4", (1, 1))  # another film than before, as its time says
    extract_frames(tmp_path / "clip.mp4", folder)
    assert sorted(path.name for path in folder.glob("*.png")) == [f"{number:06d}.png" for number in range(1, 6)]


def test_without_its_reader_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"films need PyAV; pip install 'iccld\[video\]'"):
        extract_frames(tmp_path / "a.mp4", tmp_path / "frames")
