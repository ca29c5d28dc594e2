"""Checkpoints: written whole or not at all, verified before use, loaded without pickle.

    RUN/checkpoints/<stage>/<iteration:08d>/{model,ema,optimizer}.safetensors + state.json + manifest.json

A save writes into a sibling temporary directory, syncs every file, writes the manifest (sizes and SHA-256) last, renames the
directory and syncs its parent.  Nothing is overwritten and nothing points at "the latest": it is found by scanning.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from iccld.errors import CheckpointError, NumericError, nearest
from iccld.files import sync, write_atomically
from iccld.training.packing import pack, unpack

MANIFEST = "manifest.json"
STATE = "state.json"
TENSOR_FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
FILES = (*TENSOR_FILES, STATE)
FORMAT = 1
TEMPORARY_PREFIX = ".tmp-"
DAMAGED_PREFIX = ".damaged-"
SHOWN_DIFFERENCES = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Payload:
    """What a checkpoint holds.  `state` is whatever `packing.pack` takes; its tensors go to optimizer.safetensors."""

    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Loaded(Payload):
    """A checkpoint from the disk, with its tensors on the CPU."""

    path: Path
    stage: str
    iteration: int
    fingerprint: Mapping[str, Any]


def stage_directory(run: Path, stage: str) -> Path:
    """Where a stage's checkpoints lie."""
    return run / "checkpoints" / stage


def save(
    directory: Path,
    iteration: int,
    payload: Payload,
    *,
    fingerprint: Mapping[str, Any] | None = None,
    order: int = 0,
    keep_last: int = 2,
    keep: Collection[int] = (),
) -> Path:
    """Write the checkpoint of `iteration` finished iterations into a stage's directory; returns its path.

    fingerprint: configuration and class list, compared on resume.  order: position of the stage in the run.  Afterwards only
    the newest `keep_last` and the iterations in `keep` (the best) remain.  NumericError for weights that are not finite;
    CheckpointError when this checkpoint exists, or the disk is full or read-only (older checkpoints are untouched).
    """
    _refuse_non_finite(payload)
    path = directory / f"{iteration:08d}"
    tensors: dict[str, Tensor] = {}
    tree = pack(payload.state, tensors)
    files = dict(zip(TENSOR_FILES, (payload.model, payload.ema, tensors), strict=True))
    needed = sum(t.numel() * t.element_size() for group in files.values() for t in group.values()) + 2**20
    temporary: Path | None = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _clean(directory)
        _make_way(path)
        if needed > shutil.disk_usage(directory).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{path.name}-", dir=directory))
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide the run from colleagues
        for name, group in files.items():
            save_file(storable(group), temporary / name)
            sync(temporary / name)
        write_atomically(temporary / STATE, json.dumps(tree, indent=1))
        entries = {name: {"bytes": (temporary / name).stat().st_size, "sha256": _digest(temporary / name)} for name in FILES}
        manifest = {"format": FORMAT, "stage": directory.name, "order": order, "iteration": iteration}
        write_atomically(temporary / MANIFEST, _canonical({**manifest, "fingerprint": fingerprint or {}, "files": entries}))
        sync(temporary)
        os.replace(temporary, path)
        sync(directory)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_describe_failure(error, directory, needed)) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
    prune(directory, keep_last, {*keep, iteration})
    return path


def load(path: Path, *, fingerprint: Mapping[str, Any] | None = None) -> Loaded:
    """Read one checkpoint.  CheckpointError when it is damaged, or differs from `fingerprint` where that is given."""
    manifest = verify(path)
    if fingerprint is not None:
        compare(path, manifest["fingerprint"], fingerprint)
    try:
        model, ema, tensors = (load_file(path / name) for name in TENSOR_FILES)
        state = unpack(json.loads((path / STATE).read_text(encoding="utf-8")), tensors)
    except (OSError, ValueError, KeyError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    return Loaded(model, ema, state, path, manifest["stage"], manifest["iteration"], manifest["fingerprint"])


def load_latest(directory: Path, *, fingerprint: Mapping[str, Any] | None = None) -> Loaded | None:
    """The newest checkpoint of a stage's directory that is whole, or None; every damaged one passed over is warned about."""
    path = _newest_valid(directory)
    return None if path is None else load(path, fingerprint=fingerprint)


def find(run: Path, stage: str | None = None) -> Path:
    """The newest whole checkpoint of a run, of its last stage or of `stage`; a checkpoint's own directory is taken as it is.

    CheckpointError when there is none.
    """
    if (run / MANIFEST).is_file():
        verify(run)
        return run
    saved = saved_stages(run)
    stages = saved if stage is None else [name for name in saved if name == stage]
    if not stages:
        raise CheckpointError(f"{run} has no checkpoint of stage {stage!r}{nearest(stage or '', saved)}; it has {', '.join(sorted(saved))}")
    for name in reversed(stages):
        path = _newest_valid(stage_directory(run, name))
        if path is not None:
            return path
    raise CheckpointError(f"{run} has no whole checkpoint: all of them are damaged")


def saved_stages(run: Path) -> list[str]:
    """The stages that a run has checkpoints of, in their order; CheckpointError when there is none."""
    if not run.is_dir():
        raise CheckpointError(f"{run} is not a run: there is no such folder")
    if not (run / "checkpoints").is_dir():
        raise CheckpointError(f"{run} is not a run: it holds no checkpoints folder")
    stages = sorted(entry for entry in (run / "checkpoints").iterdir() if entry.is_dir() and iterations(entry))
    if not stages:
        raise CheckpointError(f"{run} has no checkpoint; train it first, or give another run")
    return [entry.name for entry in sorted(stages, key=order_of)]


def refuse_other_configuration(run: Path, fingerprint: Mapping[str, Any]) -> None:
    """CheckpointError with the differences when a checkpoint of the run has another fingerprint: before anything of it is overwritten."""
    stages = sorted(entry for entry in (run / "checkpoints").glob("*") if entry.is_dir())
    for path in (stage / f"{iteration:08d}" for stage in stages for iteration in iterations(stage)):
        try:
            stored = json.loads((path / MANIFEST).read_bytes())["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: passed over with a warning when it is to be loaded
        compare(path, stored, fingerprint)


def iterations(directory: Path) -> list[int]:
    """The iterations that a stage's directory holds checkpoints of, ascending; temporaries and other files do not count."""
    if not directory.is_dir():
        return []
    return sorted(int(entry.name) for entry in directory.iterdir() if re.fullmatch(r"\d{8,}", entry.name) and entry.is_dir())


def verify(path: Path, read_all: bool = True) -> dict[str, Any]:
    """Check every byte of a checkpoint against its manifest, which is returned; CheckpointError names the file at fault.

    Without `read_all` only the manifest is read, and the files' sizes are compared.
    """
    try:
        text = (path / MANIFEST).read_bytes().decode()
        manifest: dict[str, Any] = json.loads(text)
        body = {key: value for key, value in manifest.items() if key != "digest"}
        if _canonical(body) != text or manifest["format"] != FORMAT or sorted(manifest["files"]) != sorted(FILES):
            raise CheckpointError(f"{path}: {MANIFEST} is damaged or of another version")
        entries = [(path / name, int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()]
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: {MANIFEST} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: {MANIFEST} is damaged ({error})") from error
    for file, size, digest in entries:
        if not file.is_file():
            raise CheckpointError(f"{path}: {file.name} is missing")
        if file.stat().st_size != size:
            raise CheckpointError(f"{path}: {file.name} has {file.stat().st_size} bytes instead of {size}")
        if read_all and _digest(file) != digest:
            raise CheckpointError(f"{path}: {file.name} is damaged (its SHA-256 is not the manifest's)")
    return manifest


def prune(directory: Path, keep_last: int, keep: Collection[int] = ()) -> list[Path]:
    """Remove all but the newest `keep_last` checkpoints and the iterations in `keep`; returns what was removed."""
    everything = iterations(directory)
    newest = everything[-keep_last:] if keep_last > 0 else everything
    removed = []
    for iteration in everything:
        if iteration not in newest and iteration not in keep:
            path = directory / f"{iteration:08d}"
            # Renamed first: a crash half way leaves a leftover, never half a checkpoint under a valid name.
            doomed = Path(os.path.join(directory, f"{TEMPORARY_PREFIX}removed-{path.name}-{os.getpid()}"))
            os.replace(path, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            removed.append(path)
    return removed


def ensure_writable(run: Path) -> None:
    """Fail now rather than at the first save: CheckpointError when the run's checkpoints cannot be written."""
    directory = run / "checkpoints"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=directory)
        os.close(descriptor)
        os.unlink(name)
    except OSError as error:
        raise CheckpointError(f"{run}: cannot be written ({error.strerror}); choose another output folder") from error


def _newest_valid(directory: Path) -> Path | None:
    for iteration in reversed(iterations(directory)):
        path = directory / f"{iteration:08d}"
        try:
            verify(path)
        except CheckpointError as error:
            _log.warning("warning: %s; taking the checkpoint before it", error)
            continue
        return path
    return None


def order_of(directory: Path) -> int:
    """A stage's position in its run, from the newest manifest that can be read."""
    for iteration in reversed(iterations(directory)):
        try:
            return int(json.loads((directory / f"{iteration:08d}" / MANIFEST).read_bytes())["order"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: an older one tells the same
    return -1


def _make_way(path: Path) -> None:
    """Refuse to overwrite a whole checkpoint; move a damaged one of the same iteration aside."""
    if not path.exists():
        return
    try:
        verify(path)
    except CheckpointError as error:
        aside = path.with_name(f"{DAMAGED_PREFIX}{path.name}-{os.getpid()}")
        os.replace(path, aside)
        _log.warning("warning: %s; moved to %s", error, aside.name)
        return
    raise CheckpointError(f"{path}: exists, and a checkpoint is never overwritten")


def _clean(directory: Path) -> None:
    """Remove what killed saves left behind; the run's lock says that nobody is writing there."""
    for leftover in directory.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _refuse_non_finite(payload: Payload) -> None:
    for group in (payload.model, payload.ema):
        for name, tensor in group.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NumericError(f"weights {name} are not finite, so they were not saved; go on from the last checkpoint at a lower rate")


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no memory, as safetensors wants them."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        pointer = stored.untyped_storage().data_ptr()
        result[name] = stored.clone() if pointer in seen or stored.untyped_storage().nbytes() != stored.nbytes else stored
        seen.add(pointer)
    return result


def compare(path: Path, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """CheckpointError with the differences of two fingerprints, that of `path` and the one asked for."""
    # Earlier checkpoints do not know what data they were trained with.
    comparable = {key: value for key, value in current.items() if key != "data" or "data" in stored}
    before, now = _flatten(stored), _flatten(json.loads(json.dumps(comparable)))
    differences = [
        f"{key}: {before.get(key, 'absent')} in the checkpoint, {now.get(key, 'absent')} now"
        for key in sorted(before.keys() | now.keys())
        if key not in before or key not in now or before[key] != now[key]
    ]
    if differences:
        more = f"; and {len(differences) - SHOWN_DIFFERENCES} more" if len(differences) > SHOWN_DIFFERENCES else ""
        shown = "; ".join(differences[:SHOWN_DIFFERENCES])
        raise CheckpointError(f"{path}: belongs to another configuration ({shown}{more})")


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping) and tree:
        return {k: v for key, item in tree.items() for k, v in _flatten(item, f"{prefix}.{key}" if prefix else key).items()}
    return {prefix: tree}


def _describe_failure(error: Exception, directory: Path, needed: int) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error):
        free = shutil.disk_usage(next(d for d in (directory, *directory.parents) if d.exists())).free
        return f"{directory}: disk full: the checkpoint needs {needed:,} bytes, {free:,} are free; older checkpoints are kept"
    return f"{directory}: the checkpoint could not be written ({error}); older checkpoints are kept"


def _canonical(manifest: Mapping[str, Any]) -> str:
    """The one spelling of a manifest, closed by its own digest, so that any changed byte shows."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "digest": digest}, sort_keys=True, indent=1) + "\n"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
