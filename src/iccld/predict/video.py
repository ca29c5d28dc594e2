"""Films in and out: frames as pictures, which are predicted like any others, and the overlays as a film again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from iccld.data.finding import VIDEO_SUFFIXES
from iccld.data.images import MAX_PIXELS, read_image
from iccld.errors import ConfigError, DataError
from iccld.files import read_json, write_json
from iccld.progress import progress, say

NOTE = "frames.json"
"""What a folder of frames was taken from; written last."""
MISSING = "films need PyAV; pip install 'iccld[video]', or save the frames as pictures"


def is_video(path: Path) -> bool:
    """Whether a path is a film, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def extract_frames(path: Path, folder: Path) -> Path:
    """Write every frame of a film as `folder`/000001.png and so on, upright; finished ones are found again.  Returns the folder.

    ConfigError without PyAV.  DataError for a film that cannot be read, or has no frame.
    """
    status = path.stat()
    made_from = {"film": str(path.absolute()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    known = read_json(folder / NOTE)
    if known and all(known.get(key) == value for key, value in made_from.items()):
        return folder
    count, rate = 0, Fraction(25)
    with progress(f"Reading {path.name}", total=_announced(path)) as bar:
        for told, pixels in _frames(path):
            folder.mkdir(parents=True, exist_ok=True)  # a film that cannot be read leaves nothing
            count, rate = count + 1, told
            Image.fromarray(pixels).save(folder / f"{count:06d}.png", compress_level=1)
            bar.advance(1)
    if count == 0:
        raise DataError(f"{path}: holds no frame")
    for left in folder.glob("[0-9]" * 6 + ".png"):  # of a longer film that lay there before under this name
        if int(left.stem) > count:
            left.unlink()
    write_json(folder / NOTE, {**made_from, "frames": count, "rate": [rate.numerator, rate.denominator]})
    say(f"{path}: {count} frames in {folder}")
    return folder


def write_video(pictures: Sequence[Path], frames: Path, path: Path) -> None:
    """The pictures, of one size, as a film with the rate of the one that `frames` were taken from (H.264, as most players read)."""
    av = _av()
    numerator, denominator = read_json(frames / NOTE).get("rate") or (25, 1)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    with av.open(str(partial), "w") as film:
        stream = film.add_stream("libx264", rate=Fraction(numerator, denominator))
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            pixels = read_image(picture)
            height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2  # the format has no odd sides
            if number == 0:
                stream.width, stream.height = width, height
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    partial.replace(path)


def _announced(path: Path) -> int:
    """Frames that the file says it has; 1 where it does not say."""
    av = _av()
    try:
        with av.open(str(path)) as film:
            return max(1, film.streams.video[0].frames) if film.streams.video else 1
    except av.FFmpegError as error:
        raise DataError(f"{path}: cannot be read as a film: {' '.join(str(error).split())}") from None


def _frames(path: Path) -> Iterator[tuple[Fraction, npt.NDArray[np.uint8]]]:
    """(rate, (H, W, 3) uint8 RGB) of each frame."""
    av = _av()
    try:
        with av.open(str(path)) as film:
            if not film.streams.video:
                raise DataError(f"{path}: holds no film")
            stream = film.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise DataError(f"{path}: {stream.width}x{stream.height} pixels are more than the limit of {MAX_PIXELS}")
            stream.thread_type = "AUTO"
            rate = Fraction(stream.average_rate or 25)
            for frame in film.decode(stream):
                turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
                yield rate, np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    except av.FFmpegError as error:
        raise DataError(f"{path}: cannot be read as a film: {' '.join(str(error).split())}") from None


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise ConfigError(MISSING) from None
    return av
