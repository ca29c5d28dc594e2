"""The index of a folder of predictions: what was made from what, so that a rerun does the rest and nothing is overwritten silently."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from iccld.errors import ConfigError, DataError
from iccld.files import sync, write_atomically
from iccld.predict.names import Job
from iccld.predict.writer import fingerprint

SAVE_SECONDS = 2.0
"""Longest time between two writes of the index: what a kill can make a rerun repeat."""


class PredictionIndex:
    """`predictions.json`: what was predicted from what.  A shard reads all indices of the folder and writes its own.

    {"origin": {"run", "stage", "iteration", "iterations", "weights", "finished"}, "settings": {...}, "images": {input: {"name", "bytes",
    "mtime_ns", "settings", "size": [H, W], "outputs": {folder: file}, "shares": {class: 0..1}, "confidence": mean 0..1}}, "failed": {input:
    reason}}; an entry's "settings" is the key of its own, and it has a confidence where that was among the outputs.
    """

    def __init__(self, out: Path, settings: dict[str, Any], shard: tuple[int, int] | None, origin: Mapping[str, Any] | None = None) -> None:
        if shard and not 0 <= shard[0] < shard[1]:
            raise ConfigError(f"shard {shard[0]} of {shard[1]} does not exist; the first is 0 of {shard[1]}")
        self.out = out
        self.settings = settings
        self.origin = dict(origin or {})
        self.key = hashlib.blake2s(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self.path = out / (f"predictions-{shard[0]}-of-{shard[1]}.json" if shard else "predictions.json")
        self.own: dict[str, dict[str, Any]] = {}
        self.finished: dict[str, dict[str, Any]] = {}
        self.names: dict[str, str] = {}
        self.saved_at, self.text_took = time.monotonic(), 0.0
        self.lock = threading.Lock()
        self.unsynced: list[Path] = []
        """Outputs since the last save."""
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{out}: cannot be made a folder for predictions: {error.strerror}") from error
        indices = sorted(out.glob("predictions*.json"))
        self.is_new = not indices
        for path in indices:
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            images = dict(content["images"])
            names = {source: str(entry["name"]) for source, entry in images.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not an index of predictions ({error}); move it away or name another --out") from error
        self.names |= names
        # Under other settings the outputs are stale: the names stay, the pictures are done again.
        self.finished |= {source: entry for source, entry in images.items() if entry.get("settings") == self.key}
        if path == self.path:
            self.own = images

    def claim(self, jobs: Iterable[Job], files: Callable[[str], dict[str, str]]) -> None:
        """Write the index before the first output, so that a rerun knows what a killed run left from what was never ours.

        files: a job's name -> its outputs' files.  DataError when this is the first run into the folder, and a file of another origin
        is where an output would go.
        """
        if self.is_new:
            for job in jobs:
                for file in files(job.name).values():
                    if (self.out / file).exists():
                        raise DataError(f"{self.out / file}: exists and was not predicted here; move it away or name another --out")
        self.save([])

    def is_done(self, job: Job) -> bool:
        """Whether an earlier run wrote all outputs of this very file with these settings."""
        entry = self.finished.get(str(job.path))
        if entry is None or [entry["bytes"], entry["mtime_ns"]] != fingerprint(job.path):
            return False
        return all((self.out / file).is_file() for file in entry["outputs"].values())

    def record(self, job: Job, entry: dict[str, Any]) -> None:
        """Note a finished picture; `is_due` says when to save."""
        with self.lock:
            self.unsynced += [self.out / file for file in entry["outputs"].values()]
            self.own[str(job.path)] = {**entry, "settings": self.key}

    @property
    def is_due(self) -> bool:
        """Whether it was saved long ago: a few seconds, and of a large index twenty times what its text takes, which holds up the rest."""
        return time.monotonic() - self.saved_at > max(SAVE_SECONDS, 20 * self.text_took)

    def save(self, failed: Iterable[tuple[Path, str]]) -> None:
        """Write the index atomically; DataError when that fails, and the previous one stays intact.  May run beside `record`.

        The pictures that it names are on the disk before it is: after a power cut a rerun must not skip empty files.
        """
        with self.lock:
            own, unsynced, self.unsynced = dict(self.own), self.unsynced, []
        begun = time.monotonic()
        text = self._text(own, failed).encode("ascii")
        self.text_took = time.monotonic() - begun
        try:
            for path in [*unsynced, *dict.fromkeys(path.parent for path in unsynced)]:
                with suppress(FileNotFoundError):  # one that is gone is left to the next run
                    sync(path)
            write_atomically(self.path, text, durable="folder")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.saved_at = time.monotonic()

    def _text(self, own: Mapping[str, Any], failed: Iterable[tuple[Path, str]]) -> str:
        """The whole index as JSON, a picture a line: Python's encoder is ten times as fast without indentation, and holds up the network.

        ASCII escapes keep file names that are not valid Unicode.
        """
        origin = {"origin": self.origin} if self.origin else {}
        head = json.dumps({**origin, "settings": self.settings})
        reasons = json.dumps({str(path): reason for path, reason in failed}, indent=1)
        images = ",\n".join(f"{json.dumps(source)}: {json.dumps(entry)}" for source, entry in own.items())
        return f'{head[:-1]}, "images": {{\n{images}\n}},\n"failed": {reasons}}}\n'
