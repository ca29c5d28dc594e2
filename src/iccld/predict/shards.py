"""Which part of many pictures is whose: by a flag, or by what Slurm, Kubernetes and torchrun tell each process."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from iccld.data.finding import picture_suffixes, relative_name
from iccld.data.layouts import NOT_PICTURES, refuse_masks
from iccld.errors import ConfigError, DataError

LOOKED_AT = 200
"""Pictures of a folder whose content is looked at for masks; the folders' names all are."""


@dataclass(frozen=True)
class Shard:
    """This process's part: index of count, from 0."""

    index: int
    count: int

    def has(self, name: str) -> bool:
        """Whether a picture is of this part: a function of its name alone, so that added pictures move no others."""
        digest = hashlib.blake2s(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index


def shard_of(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """`3/16` -> the fourth of sixteen; `auto` -> what the scheduler says; `auto/16` -> the count given, the index from the scheduler.

    Slurm arrays: SLURM_ARRAY_TASK_ID, _COUNT, _MIN and _STEP.  Kubernetes indexed jobs: JOB_COMPLETION_INDEX, which come without a count.
    torchrun: RANK and WORLD_SIZE.  ConfigError for anything else, and where the environment says nothing.
    """
    given = re.fullmatch(r"(\d+|auto)(?:/(\d+))?", text)
    if given is None or (given[1] != "auto" and given[2] is None):
        raise ConfigError(f"--shard is {text!r}; write 3/16 (counted from 0), auto, or auto/16")
    if given[1] != "auto":
        index, count = int(given[1]), int(given[2])
    else:
        index, found = _of_scheduler(environment)
        if given[2] is None and found is None:
            raise ConfigError("--shard auto: Kubernetes tells no number of completions; write auto/16 for sixteen")
        count = int(given[2]) if given[2] is not None else int(found or 0)
        if found is not None and count != found:
            raise ConfigError(f"--shard {text}: the scheduler runs {found} processes, and {count} were named; write auto")
    if not 0 <= index < count:
        raise ConfigError(f"--shard {index}/{count} does not exist; the first is 0/{count or 1}")
    return Shard(index, count)


def _of_scheduler(environment: Mapping[str, str]) -> tuple[int, int | None]:
    """(index, count or None)."""
    try:
        if "SLURM_ARRAY_TASK_ID" in environment:
            first, step = int(environment.get("SLURM_ARRAY_TASK_MIN", "0")), int(environment.get("SLURM_ARRAY_TASK_STEP") or 1)
            return (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step, int(environment["SLURM_ARRAY_TASK_COUNT"])
        if "JOB_COMPLETION_INDEX" in environment:
            return int(environment["JOB_COMPLETION_INDEX"]), None
        if "RANK" in environment and "WORLD_SIZE" in environment:
            return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    except (KeyError, ValueError) as error:
        raise ConfigError(f"--shard auto: the scheduler's variables cannot be read ({error}); write --shard INDEX/COUNT") from error
    wanted = "SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX or RANK and WORLD_SIZE"
    raise ConfigError(f"--shard auto: no {wanted} in the environment; write --shard INDEX/COUNT, such as 0/16")


def walk(folder: Path, excluded: Path) -> Iterator[tuple[Path, str]]:
    """Every picture below a folder with a name of its own, one folder at a time: no more names are held than one folder has.

    In the order of their paths, hidden ones left out, and what lies below `excluded` as well.  A name is the path below the folder without
    suffix, which it keeps where two pictures of a folder differ in it alone.  DataError for masks among the pictures, for no picture, and
    for a folder that cannot be listed.
    """
    suffixes, outputs = picture_suffixes(), os.path.realpath(excluded)
    is_empty, looked = True, 0
    waiting, visited = [folder], set()
    while waiting:
        here = waiting.pop()
        real = os.path.realpath(here)
        if real in visited or real == outputs:
            continue
        visited.add(real)
        files, folders = _listed(here, suffixes)
        waiting += reversed(folders)
        if files and any(part.casefold() in NOT_PICTURES for part in here.relative_to(folder).parts):
            raise DataError(f"{here}: holds masks or depth maps by its name; name the folder of the pictures alone")
        if files and looked < LOOKED_AT:
            refuse_masks(folder, files[: LOOKED_AT - looked])
            looked += len(files)
        stems: dict[str, int] = {}
        for path in files:
            key = relative_name(path, folder).casefold()
            stems[key] = stems.get(key, 0) + 1
        for path in files:
            is_empty = False
            name = relative_name(path, folder)
            yield path, name + path.suffix if stems[name.casefold()] > 1 else name
    if is_empty:
        raise DataError(f"{folder}: no pictures found; expected {', '.join(sorted(suffixes))} files")


def _listed(folder: Path, suffixes: frozenset[str]) -> tuple[list[Path], list[Path]]:
    """Pictures and folders in a folder, sorted."""
    try:
        with os.scandir(folder) as entries:
            seen = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}; files in it would be missed") from error
    seen.sort()
    folders = [folder / name for name, is_folder in seen if is_folder]
    return [folder / name for name, is_folder in seen if not is_folder and Path(name).suffix.lower() in suffixes], folders
