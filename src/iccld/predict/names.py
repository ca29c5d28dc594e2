"""Which pictures are asked for, and what their outputs are called: one name each, whatever the folders hold."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from iccld.data.images import IMAGE_SUFFIXES, find_files, relative_name


class Job(NamedTuple):
    """One picture and the name of its outputs: '/'-separated, relative, without suffix."""

    path: Path
    name: str


def find_pictures(paths: Sequence[Path | str], out: Path) -> tuple[list[tuple[Path, list[str]]], list[Path]]:
    """Every picture once, in order, with the names its outputs could have, best first; and the paths that do not exist.

    A file is named by its stem; a file of a folder by its path below the folder.  What lies below `out` is not an input.
    """
    found: dict[str, tuple[Path, list[str]]] = {}
    missing = []
    excluded = os.path.realpath(out) + os.sep
    for entry in map(Path, paths):
        if not entry.exists():
            missing.append(entry)
            continue
        is_folder = entry.is_dir()
        folder = entry if is_folder else entry.parent
        for path in find_files(entry, IMAGE_SUFFIXES) if is_folder else [entry]:
            absolute = os.path.abspath(path)
            if absolute in found or (is_folder and os.path.realpath(path).startswith(excluded)):
                continue
            name = relative_name(path, folder)
            parent = os.path.basename(os.path.abspath(folder)) or "root"
            found[absolute] = (Path(absolute), [name, name + path.suffix, f"{parent}/{name}{path.suffix}"])
    return list(found.values()), missing


def name_outputs(found: Sequence[tuple[Path, list[str]]], earlier: Mapping[str, str]) -> list[Job]:
    """Give every picture a name of its own: the first of its names that no other wants, a number behind the last one otherwise.

    earlier: input -> name of earlier runs into the same folder; an input keeps its name, and nobody takes another's.  Names that differ
    only in case or Unicode form are the same on some file systems, and count as the same.
    """
    level = [0] * len(found)
    while True:
        wanted: dict[str, list[int]] = {}
        for position, (_, names) in enumerate(found):
            wanted.setdefault(_folded(names[level[position]]), []).append(position)
        clashing = [p for group in wanted.values() if len(group) > 1 for p in group if level[p] < len(found[p][1]) - 1]
        if not clashing:
            break
        for position in clashing:
            level[position] += 1
    taken = {_folded(name) for name in earlier.values()}
    jobs = []
    for position, (path, names) in enumerate(found):
        name = earlier.get(str(path))
        if name is None:
            base, number = names[level[position]], 2
            name = base
            while _folded(name) in taken:
                name, number = f"{base}~{number}", number + 1
            taken.add(_folded(name))
        jobs.append(Job(path, name))
    return jobs


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
