"""Which files below a folder are pictures, masks or films, by their suffixes; hidden ones and loops of links are left out."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from iccld.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
"""Pictures that are always read, by lower-case suffix."""
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".avif"})
"""Pictures that are read where the extra `heif` (pillow-heif) is installed."""
MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp"})
"""Formats that keep ids exact."""
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
"""Films, which `predict` reads where the extra `video` (av) is installed."""
DESCRIPTIONS = frozenset({".yaml", ".yml", ".md", ".json", ".txt", ".csv", ".html"})
"""Files that describe a data set and are not expected to be pictures."""


def picture_suffixes() -> frozenset[str]:
    """The lower-case suffixes of pictures that can be read with what is installed."""
    return IMAGE_SUFFIXES | HEIF_SUFFIXES if find_spec("pillow_heif") else IMAGE_SUFFIXES


def find_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below `folder` with one of the lower-case `suffixes`, sorted by their relative path.

    Links are followed, loops of links are not; hidden files and folders are left out.  DataError for a folder that cannot be listed.
    """
    return _walk(folder, lambda path: path.suffix.lower() in suffixes)


def other_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """The files that `find_files` leaves out, apart from hidden ones and those that describe a data set."""
    return _walk(folder, lambda path: path.suffix.lower() not in suffixes | DESCRIPTIONS)


def _walk(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise DataError(f"{error.filename}: cannot be listed: {error.strerror}; files in it would be missed")

    found: list[Path] = []
    visited: set[str] = set()
    for directory, subfolders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(directory)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [path for name in files if not name.startswith(".") and wanted(path := Path(directory, name))]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def relative_name(path: Path, folder: Path) -> str:
    """The path below `folder` without its suffix, '/'-separated and in Unicode's composed form, so that names compare across systems."""
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
