"""Data sets of generated scenes, written in the layouts that people have: gta5, synthia, cityscapes, folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from iccld.city.scene import WORLDS, Scene, render_scene
from iccld.errors import ConfigError, DataError
from iccld.labels import CITYSCAPES19, CITYSCAPES_IDS, IGNORE, SYNTHIA_IDS
from iccld.machine import available_cores
from iccld.progress import progress

VERSION = 11
"""Version of what is written: raise it when that changes, so that finished data sets of older code are not taken for new ones."""

LAYOUTS = ("gta5", "synthia", "cityscapes", "folder")
RECORD = "generation.json"
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def scene_seed(seed: int, split: str, index: int) -> int:
    """The seed of one picture; different splits of one seed share no scene."""
    state = np.random.SeedSequence([seed, zlib.crc32(split.encode()), index]).generate_state(1, np.uint64)
    return int(state[0])


def generate(
    world: str, layout: str, num: int, size: tuple[int, int], seed: int, out: Path | str, workers: int | None = None, split: str = "train"
) -> Path:
    """Write `num` scenes of `world`, (H, W) = size, in `layout` below `out`; returns `out`.

    The bytes depend on all arguments but `workers` (processes; default: one a CPU).  The folder appears when it is complete, with a
    generation.json that names its arguments: the same call again reuses it.
    ConfigError: unknown world or layout, impossible num, size or seed.  DataError: `out` holds anything else.
    """
    _check(world, layout, num, size, seed, workers)
    out = Path(out)
    record: dict[str, Any] = {
        "world": world, "layout": layout, "num": num, "size": list(size), "seed": seed, "split": split, "version": VERSION,
    }  # fmt: skip
    if _is_finished(out, record):
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    partial_out = out.parent / f".{out.name}.partial-{os.getpid()}"
    shutil.rmtree(partial_out, ignore_errors=True)
    try:
        for folder in _folders(layout, split):
            (partial_out / folder).mkdir(parents=True, exist_ok=True)
        task = partial(_write_one, world, layout, size, seed, split, partial_out)
        with progress(f"Generating {world} scenes", total=num) as bar:
            for _ in _run(task, num, workers):
                bar.advance()
        if layout == "folder":
            (partial_out / "dataset.yaml").write_text(_description(world), encoding="utf-8")
        (partial_out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if not _is_finished(out, record):  # another process may have drawn the same scenes meanwhile
            if out.is_dir():
                out.rmdir()  # empty: checked above
            partial_out.rename(out)
    finally:
        shutil.rmtree(partial_out, ignore_errors=True)
    return out


def _check(world: str, layout: str, num: int, size: tuple[int, int], seed: int, workers: int | None) -> None:
    if world not in WORLDS:
        raise ConfigError(f"unknown world {world!r}; known: {', '.join(WORLDS)}")
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    if num < 1 or seed < 0 or (workers is not None and workers < 1):
        raise ConfigError(f"num {num} and workers {workers} must be at least 1, seed {seed} at least 0")
    if min(size) < 32:
        raise ConfigError(f"a scene of {size[0]}x{size[1]} pixels is too small; use at least 32x32")


def _is_finished(out: Path, record: dict[str, Any]) -> bool:
    """Whether `out` is this very generation.  DataError when it holds something else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise DataError(f"{out} is a file; give a folder that does not exist yet")
    if not any(out.iterdir()):
        return False
    try:
        found = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{out} is not empty and was not generated; give a folder that does not exist yet") from None
    except ValueError:
        raise DataError(f"{out / RECORD} is damaged; remove {out} to generate it again") from None
    if not isinstance(found, dict):
        raise DataError(f"{out / RECORD} is damaged; remove {out} to generate it again")
    other = [f"{key} {found.get(key)} (asked for {value})" for key, value in record.items() if found.get(key) != value]
    if other:
        raise DataError(f"{out} holds another generation: {', '.join(other)}; give another folder or remove it")
    return True


def _run(task: Callable[[int], int], num: int, workers: int | None) -> Iterator[int]:
    """Do all tasks, in this process or in several."""
    if workers is None:
        workers = available_cores()
    workers = min(workers, (num + 3) // 4)
    if workers == 1:
        yield from map(task, range(num))
        return
    # Spawned, not forked: the caller may hold threads.
    with _script_left_out():
        pool = multiprocessing.get_context("spawn").Pool(workers)
    with pool:
        yield from pool.imap_unordered(task, range(num), chunksize=max(1, min(8, num // (4 * workers))))


@contextmanager
def _script_left_out() -> Iterator[None]:
    """Processes that are spawned meanwhile do not run the caller's script again, as they otherwise do first.

    A script without `if __name__ == "__main__"` would start itself again in each of them, and one that is read from standard input cannot
    be found by them: either way the pool starts new ones for ever.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _write_one(world: str, layout: str, size: tuple[int, int], seed: int, split: str, out: Path, index: int) -> int:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the processes share the machine already
    try:
        _WRITERS[layout](render_scene(world, scene_seed(seed, split, index), size), out, world, split, index)
    finally:
        cv2.setNumThreads(threads)
    return index


def _raw(mapping: dict[int, int]) -> npt.NDArray[np.uint8]:
    """(256,) train id -> raw id; everything else, void included, becomes 0."""
    table = np.zeros(256, np.uint8)
    for raw_id, train_id in mapping.items():
        table[train_id] = raw_id
    return table


def _folders(layout: str, split: str) -> tuple[str, ...]:
    return {
        "gta5": ("images", "labels", "depth"),
        "synthia": ("RGB", "GT/LABELS", "Depth"),
        "cityscapes": (f"leftImg8bit/{split}/city", f"gtFine/{split}/city", f"depth/{split}/city"),
        "folder": ("images", "masks", "depth"),
    }[layout]


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    """A PNG of grey or RGB, 8 or 16 bits."""
    is_picture = array.ndim == 3 and array.dtype == np.uint8
    ordered = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array
    # Pictures go by OpenCV's own choice (one filter, run lengths): half the time of the adaptive filters, a tenth more bytes.
    if not cv2.imwrite(str(path), ordered, [] if is_picture else _PNG):
        raise DataError(f"{path} could not be written; check the free space and permissions")


def _centimetres(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    return np.clip(np.rint(depth * 100), 0, 65535).astype(np.uint16)


def _write_gta5(scene: Scene, out: Path, world: str, split: str, index: int) -> None:
    name = f"{index + 1:05d}.png"  # the original counts from 1
    _save(out / "images" / name, scene.image)
    raw = _raw(CITYSCAPES_IDS)
    palette = np.zeros((256, 3), np.uint8)
    palette[raw[:19]] = CITYSCAPES19.palette
    label = Image.fromarray(np.asarray(cv2.LUT(scene.label, raw), np.uint8), mode="P")
    label.putpalette(palette.tobytes())
    label.save(out / "labels" / name, compress_level=1)
    _save(out / "depth" / name, _centimetres(scene.depth))


def _write_synthia(scene: Scene, out: Path, world: str, split: str, index: int) -> None:
    name = f"{index:07d}.png"
    _save(out / "RGB" / name, scene.image)
    label = np.zeros((*scene.label.shape, 3), np.uint16)
    label[..., 0] = _raw(SYNTHIA_IDS)[scene.label]  # red; green would hold instances
    _save(out / "GT" / "LABELS" / name, label)
    _save(out / "Depth" / name, _centimetres(scene.depth))


def _write_cityscapes(scene: Scene, out: Path, world: str, split: str, index: int) -> None:
    stem = f"{world}_{index:06d}_000000"
    _save(out / "leftImg8bit" / split / "city" / f"{stem}_leftImg8bit.png", scene.image)
    _save(out / "gtFine" / split / "city" / f"{stem}_gtFine_labelIds.png", _raw(CITYSCAPES_IDS)[scene.label])
    _save(out / "depth" / split / "city" / f"{stem}_depth.png", _centimetres(scene.depth))


def _write_folder(scene: Scene, out: Path, world: str, split: str, index: int) -> None:
    name = f"{index:06d}.png"
    _save(out / "images" / name, scene.image)
    _save(out / "masks" / name, scene.label)
    _save(out / "depth" / name, _centimetres(scene.depth))


def _description(world: str) -> str:
    """dataset.yaml: the masks hold train ids 0..18, 255 = ignore; depth in centimetres."""
    lines = [f"name: generated-{world}", "images: images", "masks: masks", "depth: depth", "classes:"]
    for train_id, item in enumerate(CITYSCAPES19.classes):
        lines.append(f"  - {{name: {item.name}, ids: [{train_id}], color: [{', '.join(map(str, item.color))}]}}")
    return "\n".join([*lines, f"ignore_ids: [{IGNORE}]"]) + "\n"


_WRITERS: dict[str, Callable[[Scene, Path, str, str, int], None]] = {
    "gta5": _write_gta5,
    "synthia": _write_synthia,
    "cityscapes": _write_cityscapes,
    "folder": _write_folder,
}
