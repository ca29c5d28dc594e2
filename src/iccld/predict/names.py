"""Which pictures are asked for, and what their outputs are called: one name each, whatever the folders hold."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from iccld.data.dataset import left_out_note
from iccld.data.finding import picture_suffixes, relative_name
from iccld.data.layouts import pictures_below
from iccld.errors import ConfigError, nearest
from iccld.progress import say

OUTPUTS = {"color": ".png", "train_ids": ".png", "raw_ids": ".png", "overlay": ".jpg", "confidence": ".png", "logits": ".npy"}
"""Output folder -> suffix.  color: RGB of the palette.  train_ids: palette PNG of indices.  raw_ids: grey ids.  overlay: colours over the
picture.  confidence: grey, 255 = certain.  logits: (K, h, w) float16 at the network's own resolution."""
PICTURES = tuple(name for name in OUTPUTS if name != "logits")
"""What `all` stands for."""
USUAL = ("train_ids",)
"""What is written when nothing else is asked for."""
ALL = "all"


def chosen_outputs(write: Sequence[str]) -> tuple[str, ...]:
    """The outputs named, in the order of OUTPUTS; `all` names PICTURES.  ConfigError for one that there is not, and for none at all."""
    unknown = [kind for kind in write if kind not in OUTPUTS and kind != ALL]
    if unknown or not write:
        kind = unknown[0] if unknown else ""
        raise ConfigError(f"nothing called {kind!r} can be written{nearest(kind, OUTPUTS)}; choose from {', '.join(OUTPUTS)}, or {ALL}")
    return tuple(kind for kind in OUTPUTS if kind in write or (ALL in write and kind in PICTURES))


class Job(NamedTuple):
    """One picture and the name of its outputs: '/'-separated, relative, without suffix."""

    path: Path
    name: str


def output_files(name: str, kinds: Sequence[str] = PICTURES) -> dict[str, str]:
    """Output folder -> file below `out`."""
    return {folder: f"{folder}/{name}{OUTPUTS[folder]}" for folder in kinds}


def find_pictures(paths: Sequence[Path | str], out: Path) -> tuple[list[tuple[Path, list[str]]], list[tuple[Path, str]]]:
    """Every picture once, in order, with the names its outputs could have, best first; and the paths that cannot be done, with reasons.

    A file is named by its stem; a file of a folder by its path below the folder.  What lies below `out` is not an input of a folder.
    Where the pictures of a folder were taken from, and what was left out, is said.  DataError for a folder that holds masks among them.
    """
    found: dict[str, tuple[Path, list[str]]] = {}
    refused = []
    excluded = os.path.realpath(out) + os.sep
    outputs = tuple(os.path.join(excluded, folder, "") for folder in OUTPUTS)
    for entry in map(Path, paths):
        if not os.path.exists(entry):  # Path.exists raises for a name that is too long
            refused.append((entry, "no such file or folder"))
            continue
        if os.path.realpath(entry).startswith(outputs):
            refused.append((entry, f"lies among the predictions in {out}, which could replace it; name another --out"))
            continue
        is_folder = entry.is_dir()
        folder = entry if is_folder else entry.parent
        for path in _pictures_of(entry, excluded) if is_folder else [entry]:
            absolute = os.path.abspath(path)
            if absolute in found:
                continue
            name = relative_name(path, folder)
            parent = os.path.basename(os.path.abspath(folder)) or "root"
            names = [name, name + path.suffix, f"{parent}/{name}{path.suffix}"]
            found[absolute] = (Path(absolute), [beside_files(name) for name in names])
    return list(found.values()), refused


def _pictures_of(folder: Path, excluded: str) -> list[Path]:
    files, words = pictures_below(folder, excluded)
    if words:
        say(words)
    for note in left_out_note([folder], picture_suffixes()):
        say(f"warning: {note}")
    return files


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


def beside_files(name: str) -> str:
    """The name with a tilde behind folders that are called like an output: `a.png/b` would need a folder where `a` has its file."""
    *folders, last = name.split("/")
    suffixes = tuple(set(OUTPUTS.values()))
    return "/".join([*(folder + "~" if folder.casefold().endswith(suffixes) else folder for folder in folders), last])


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
