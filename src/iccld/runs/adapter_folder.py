"""The adapters beside a run, RUN/adapters/NAME: found, listed, put in place and removed.  Nothing here needs PyTorch.

RUN/adapters/NAME/{adapter.safetensors, adapter.json, summary.json, config.yaml, ranges.json, metrics.jsonl}
RUN/adapters/.NAME/       one that is being trained; nobody else sees it
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iccld.errors import CheckpointError, ConfigError, nearest
from iccld.files import read_json, sha256_of, sync

FOLDER = "adapters"
WEIGHTS, ABOUT, SUMMARY = "adapter.safetensors", "adapter.json", "summary.json"
FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Adapter:
    """One adapter on the disk, as its adapter.json tells."""

    path: Path
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.path.name

    @property
    def num_bytes(self) -> int:
        """Size of its weights."""
        return (self.path / WEIGHTS).stat().st_size

    @property
    def scores(self) -> tuple[float | None, float | None]:
        """mIoU on the new target in percent before and after, None where it was not scored."""
        summary = read_json(self.path / SUMMARY)
        before, after = (summary.get("base") or {}).get("miou"), (summary.get("headline") or {}).get("miou")
        return before, after

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        before, after = self.scores
        told = {key: self.about[key] for key in ("target", "date", "iterations", "seconds", "wall_seconds", "base")}
        return {"name": self.name, "bytes": self.num_bytes, **told, "miou_before": before, "miou": after}


def check_name(name: str) -> str:
    """The name; ConfigError for one that is no plain name of a folder on every system."""
    if NAME.fullmatch(name) is None or name.endswith("."):
        raise ConfigError(f"adapter name {name!r} is no plain file name; use up to 64 letters, digits, - _ and . such as night")
    return name


def place_of(run: Path, name: str) -> Path:
    """Where an adapter lies, or will."""
    return run / FOLDER / check_name(name)


def workplace_of(run: Path, name: str) -> Path:
    """Where it is trained."""
    return run / FOLDER / f".{check_name(name)}"


def adapter_names(run: Path) -> list[str]:
    """Names of the finished adapters of a run, sorted.  CheckpointError for what is no run."""
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{run} is no run: it has no config.yaml; name the folder that iccld adapt wrote")
    return sorted(path.parent.name for path in (run / FOLDER).glob(f"*/{ABOUT}") if NAME.fullmatch(path.parent.name))


def unfinished_names(run: Path) -> list[str]:
    """Names of the adapters whose training was interrupted."""
    return sorted(path.parent.name[1:] for path in (run / FOLDER).glob(".*/config.yaml") if NAME.fullmatch(path.parent.name[1:]))


def find_adapter(run: Path, name: str) -> Adapter:
    """The finished adapter of that name; CheckpointError that lists those that there are, or says that it is damaged."""
    known = adapter_names(run)
    if check_name(name) in known:
        return _opened(run / FOLDER / name)
    if name in unfinished_names(run):
        raise CheckpointError(f"adapter {name!r} of {run} is not finished; go on with the command that began it and --resume auto")
    there = f"it has {', '.join(known)}" if known else "it has none; iccld adapt --from makes one"
    raise CheckpointError(f"{run} has no adapter {name!r}{nearest(name, known)}; {there}")


def _opened(path: Path) -> Adapter:
    about = read_json(path / ABOUT)
    missing = {"format", "base", "target", "sha256", "date", "iterations", "seconds", "wall_seconds"} - about.keys()
    if missing or about["format"] != FORMAT or not (path / WEIGHTS).is_file():
        raise CheckpointError(f"{path}: is damaged or of another release of iccld; remove it with iccld adapters RUN --remove {path.name}")
    return Adapter(path, about)


def refuse_other_weights(adapter: Adapter) -> None:
    """CheckpointError when the adapter's own weights are not those that were saved."""
    if sha256_of(adapter.path / WEIGHTS) != adapter.about["sha256"]:
        raise CheckpointError(f"{adapter.path / WEIGHTS}: is damaged (its SHA-256 is not that of {ABOUT}); train it again with --overwrite")


def put_in_place(finished: Path, place: Path) -> None:
    """Rename a whole adapter to where it is found; one that is there goes away first, and comes back if that fails."""
    sync(finished)
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    try:
        os.replace(finished, place)
    except OSError:
        if old.exists():
            os.replace(old, place)
        raise
    sync(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_adapter(run: Path, name: str) -> None:
    """Remove an adapter, finished, damaged or begun; CheckpointError that lists those that there are."""
    place, work = place_of(run, name), workplace_of(run, name)
    if not place.is_dir() and not work.is_dir():
        find_adapter(run, name)
    if place.is_dir():
        doomed = place.with_name(f".{place.name}.old")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(place, doomed)  # at once: half an adapter is never found
        shutil.rmtree(doomed, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    if not any((run / FOLDER).iterdir()):
        (run / FOLDER).rmdir()
