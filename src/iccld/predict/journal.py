"""What a shard has done, one line a picture: it is appended to, never held in memory, and merged with the others' at the end."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iccld.errors import DataError
from iccld.files import PARTIAL, sync
from iccld.predict.index import SAVE_SECONDS
from iccld.predict.names import Job
from iccld.predict.shards import Shard

MERGED = "predictions.jsonl"
PATTERN = re.compile(r"predictions-(\d+)-of-(\d+)\.jsonl")
BLOCK = 4096
"""Lines that are looked at together."""


class Journal:
    """`predictions-<index>-of-<count>.jsonl`: a line of settings for each start, then a line for each picture.

    {"picture": input, "name", "bytes", "mtime_ns", "settings": key, "size": [H, W], "outputs": {folder: file}, "shares": {class: 0..1},
    "confidence": mean 0..1 where it was asked for}, or {"picture", "error"}; of several lines for a picture the last one counts.
    Of what is done, a hash of eight bytes a picture is held.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], shard: Shard, origin: Mapping[str, Any] | None = None) -> None:
        self.out = out
        self.path = out / f"predictions-{shard.index}-of-{shard.count}.jsonl"
        self.key = hashlib.blake2s(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self.known: Mapping[Path, tuple[str, list[int]]] = {}
        """What the files under way are called in the lines, and their marks: a member of an archive is named by it."""
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._unsynced: list[Path] = []
        self._saved_at = time.monotonic()
        try:
            out.mkdir(parents=True, exist_ok=True)
            _cut_torn_line(self.path)
            self._done = _hashes_of_done(self.path, self.key)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read or written: {error.strerror}") from error
        self._lines.append(_line({"settings": dict(settings), "key": self.key, "origin": dict(origin or {})}))
        self.save([])

    def is_done(self, source: str, mark: list[int], files: Iterable[str]) -> bool:
        """Whether an earlier start wrote all outputs of this very file with these settings.  mark: its bytes and time."""
        wanted = _hash(source, mark, self.key)
        place = np.searchsorted(self._done, wanted)
        if place == len(self._done) or self._done[place] != wanted:
            return False
        return all((self.out / file).is_file() for file in files)

    def record(self, job: Job, entry: dict[str, Any]) -> None:
        """Note a finished picture; it is on the disk after the next `save`."""
        source, (size, changed) = self.known[job.path]
        entry = {**entry, "bytes": size, "mtime_ns": changed}
        with self._lock:
            self._unsynced += [self.out / file for file in entry["outputs"].values()]
            self._lines.append(_line({"picture": source, **entry, "settings": self.key}))

    def fail(self, source: str, reason: str) -> None:
        """Note a picture that cannot be predicted; the next start tries again."""
        with self._lock:
            self._lines.append(_line({"picture": source, "error": reason}))

    @property
    def is_due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved_at > SAVE_SECONDS

    def save(self, failed: Iterable[tuple[Path, str]]) -> None:
        """Append what was noted and force it to the disk; DataError when that fails."""
        with self._lock:
            lines, self._lines = self._lines, []
            outputs, self._unsynced = self._unsynced, []
            self._saved_at = time.monotonic()
            if not lines:
                return
            try:
                # The pictures that a line names are on the disk before it is: after a power cut a rerun must not skip empty files.
                for path in [*outputs, *dict.fromkeys(path.parent for path in outputs)]:
                    with suppress(FileNotFoundError):
                        sync(path)
                with self.path.open("a", encoding="ascii") as file:
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise DataError(f"{self.path}: cannot be written: {error.strerror}") from error


def merge(out: Path) -> tuple[int, int]:
    """The journals of all shards as one `predictions.jsonl`, a line a picture, settings first; returns (pictures, failures among them).

    DataError when there is no journal, when some of the shards have none, or when they were split in different ways.
    """
    shards = {}
    for path in sorted(out.glob("predictions-*-of-*.jsonl")):
        if (found := PATTERN.fullmatch(path.name)) is not None:
            shards[int(found[1])] = (path, int(found[2]))
    counts = {count for _, count in shards.values()}
    if not shards:
        raise DataError(f"{out}: holds no journal of a shard (predictions-0-of-16.jsonl); predict with --shard first")
    if len(counts) > 1:
        raise DataError(f"{out}: holds journals of {' and '.join(map(str, sorted(counts)))} shards; keep those of one division")
    missing = sorted(set(range(counts.pop())) - set(shards))
    if missing:
        raise DataError(f"{out}: no journal of shard {missing[0]} ({len(missing)} missing); predict it before merging")
    paths = [shards[index][0] for index in sorted(shards)]
    partial, pictures, failures = out / f".{MERGED}{PARTIAL}", 0, 0
    try:
        with partial.open("w", encoding="ascii") as file:
            for path in paths:
                last = _last_lines(path)
                for number, line in enumerate(_lines_of(path)):
                    if number in last:
                        pictures += "picture" in line[:12]
                        failures += '"error"' in line and "error" in json.loads(line)
                        file.write(line)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, out / MERGED)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{out / MERGED}: cannot be written: {error.strerror}") from error
    return pictures, failures


class _Numbers:
    """A set of line numbers, a bit each."""

    def __init__(self, numbers: npt.NDArray[np.int64], count: int) -> None:
        self._bits = np.zeros(count, dtype=np.bool_)
        self._bits[numbers] = True

    def __contains__(self, number: int) -> bool:
        return number < len(self._bits) and bool(self._bits[number])


def _last_lines(path: Path) -> _Numbers:
    """The numbers of the lines that count: the last of each picture, and the last of settings."""
    hashes: list[npt.NDArray[np.uint64]] = []
    for block in _blocks(path):
        hashes.append(np.array([_hash_text(_picture_of(line)) for line in block], dtype=np.uint64))
    every = np.concatenate(hashes) if hashes else np.zeros(0, dtype=np.uint64)
    _, first_from_behind = np.unique(every[::-1], return_index=True)
    return _Numbers(len(every) - 1 - first_from_behind, len(every))


def _hashes_of_done(path: Path, key: str) -> npt.NDArray[np.uint64]:
    """Sorted hashes of the pictures that were predicted with these settings."""
    found: list[npt.NDArray[np.uint64]] = [np.zeros(0, dtype=np.uint64)]
    for block in _blocks(path):
        entries = (json.loads(line) for line in block)
        done = [_hash(each["picture"], [each["bytes"], each["mtime_ns"]], key) for each in entries if each.get("settings") == key]
        found.append(np.array(done, dtype=np.uint64))
    return np.unique(np.concatenate(found))


def _blocks(path: Path) -> Iterator[list[str]]:
    block: list[str] = []
    for line in _lines_of(path):
        block.append(line)
        if len(block) == BLOCK:
            yield block
            block = []
    yield block


def _lines_of(path: Path) -> Iterator[str]:
    """Whole lines; DataError for one that is no JSON object."""
    if not path.is_file():
        return
    with path.open(encoding="ascii") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("}\n") or not line.startswith("{"):
                raise DataError(f"{path}: line {number} is damaged; move the file away and predict the shard again")
            yield line


def _cut_torn_line(path: Path) -> None:
    """Take away what a killed process left behind the last whole line."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        place = end
        while place > 0:
            start = max(0, place - 65536)
            file.seek(start)
            newline = file.read(place - start).rfind(b"\n")
            if newline >= 0:
                place = start + newline + 1
                break
            place = start
        if place < end:
            file.truncate(place)


def _picture_of(line: str) -> str:
    entry = json.loads(line)
    return str(entry.get("picture", ""))


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"  # ASCII escapes keep file names that are not valid Unicode


def _hash(source: str, mark: list[int], key: str) -> np.uint64:
    return _hash_text(f"{source}\0{mark[0]}\0{mark[1]}\0{key}")


def _hash_text(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"))
