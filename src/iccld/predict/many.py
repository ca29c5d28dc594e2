"""Predict a part of many pictures: names come one folder or archive at a time, and what is done is noted line by line."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from iccld.data.finding import picture_suffixes
from iccld.errors import ConfigError, DataError
from iccld.evaluation.evaluate import evaluation_mode
from iccld.predict.journal import Journal
from iccld.predict.line import Line, PredictReport
from iccld.predict.names import Job, beside_files
from iccld.predict.run import Wanted, prediction_settings
from iccld.predict.shards import Shard, walk
from iccld.predict.writer import OutputWriter, fingerprint
from iccld.predictor import Predictor
from iccld.progress import say

ARCHIVES = (".tar", ".tar.gz", ".tgz")
"""Endings of webdataset shards."""
BLOCK = 256
"""Pictures that are on their way together; of an archive, as many lie unpacked."""
SAY_SECONDS = 10.0
"""Between two words on how far a shard is."""


class Found(NamedTuple):
    """A picture.  source: what it is called in the journal.  mark: bytes and time by which a changed one is told."""

    path: Path
    name: str
    source: str
    mark: list[int]


@dataclass
class Counts:
    """What became of the pictures of this part."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    first_failure: str = ""


def predict_many(
    predictor: Predictor,
    paths: Sequence[Path | str],
    out: Path | str,
    shard: Shard,
    *,
    batch: int = 1,
    model: str = "",
    wanted: Wanted | None = None,
) -> Counts:
    """Write the masks of this shard's part of folders and tar archives below `out`, noted in a journal (`journal.Journal`).

    Pictures are shared out by their names, archives whole, by their own.  What an earlier start did is skipped.  batch, model, wanted: as
    of `predict_paths`, but for an import format.  Bad pictures are noted and counted, and the rest goes on.  DataError when a path holds no
    picture or `out` cannot be written, ConfigError when two paths would write the same names.
    """
    wanted, out = wanted or Wanted(), Path(out)
    if wanted.format is not None:
        raise ConfigError(f"--format {wanted.format} is made of all pictures at once; leave it out with --shard")
    kinds = wanted.kinds()
    settings, table = prediction_settings(predictor.label_space, model, kinds)
    roots = named_roots(paths)
    part = _Part(shard, Journal(out, settings, shard, wanted.origin), OutputWriter(out, predictor.label_space, table, 0.5, kinds))
    try:
        with evaluation_mode(predictor):
            for root, prefix in roots:
                for block in part.members(root, prefix) if _is_archive(root) else part.files(root, prefix):
                    part.predict(predictor, block, batch, wanted.wide)
    finally:
        part.journal.save([])
    return part.counts


class _Part:
    """A shard at work."""

    def __init__(self, shard: Shard, journal: Journal, writer: OutputWriter) -> None:
        self.shard, self.journal, self.writer = shard, journal, writer
        self.counts = Counts()
        self.told_at = time.monotonic()

    def files(self, folder: Path, prefix: str) -> Iterator[list[Found]]:
        """Blocks of the folder's pictures that are this shard's and not done."""
        named = ((path, prefix + beside_files(name)) for path, name in walk(folder, self.journal.out))
        mine = (Found(path, name, os.path.abspath(path), fingerprint(path)) for path, name in named if self.shard.has(name))
        waiting = (found for found in mine if not self._is_done(found))
        while block := list(islice(waiting, BLOCK)):
            yield block

    def members(self, archive: Path, prefix: str) -> Iterator[list[Found]]:
        """Blocks of the archive's pictures that are not done, unpacked beside the masks for as long as they are predicted."""
        if not self.shard.has(archive.name):
            return
        mark = fingerprint(archive)
        try:
            with tarfile.open(archive, "r|*") as stream:
                pictures = (member for member in stream if member.isfile() and _is_picture(member.name))
                is_empty = True
                with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=self.journal.out) as folder:
                    block: list[Found] = []
                    for member in pictures:
                        is_empty = False
                        found = Found(
                            Path(folder, f"{len(block)}{PurePosixPath(member.name).suffix}"),
                            *_of_member(archive, prefix, member.name, mark),
                        )
                        if self._is_done(found):
                            continue
                        content = stream.extractfile(member)
                        assert content is not None
                        with found.path.open("wb") as file:
                            shutil.copyfileobj(content, file)
                        block.append(found)
                        if len(block) == BLOCK:
                            yield block
                            block = []
                    yield block
                # Python takes the end of a cut file for the end of the archive, which is a block of zeros.
                if stream.fileobj.tell() - stream.offset < tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("it ends early")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            self._fail(str(archive), f"is no whole tar archive ({error})")
            return
        if is_empty:
            self._fail(str(archive), "holds no picture")

    def predict(self, predictor: Predictor, block: Sequence[Found], batch: int, wide: tuple[int, int]) -> None:
        """Predict a block and note what became of it."""
        jobs = [Job(found.path, found.name) for found in block]
        report = PredictReport()
        self.journal.known = {found.path: (found.source, found.mark) for found in block}
        if jobs:
            Line(predictor, self.writer, self.journal, report, wide).run(jobs, batch, self)
        self.counts.done += len(report.done)
        for path, reason in report.failed:
            self._fail(self.journal.known[path][0], reason.replace(f"{path}: ", ""))
        self.journal.save([])

    def advance(self, steps: int = 1, note: str = "") -> None:
        """One picture further; says so now and then."""
        if time.monotonic() - self.told_at > SAY_SECONDS:
            self.told_at = time.monotonic()
            counts = self.counts
            say(f"shard {self.shard.index} of {self.shard.count}: {counts.done} predicted, {counts.skipped} done before, now at {note}")

    def _is_done(self, found: Found) -> bool:
        is_done = self.journal.is_done(found.source, found.mark, self.writer.files(found.name).values())
        self.counts.skipped += is_done
        return is_done

    def _fail(self, source: str, reason: str) -> None:
        self.journal.fail(source, reason)
        self.counts.failed += 1
        self.counts.first_failure = self.counts.first_failure or f"{source}: {reason}"


def named_roots(paths: Sequence[Path | str]) -> list[tuple[Path, str]]:
    """Folders and archives with what their pictures' names begin with: nothing for one folder alone, otherwise the root's name.

    DataError for one that is not there or is a single picture, ConfigError for two of one name.
    """
    roots = [Path(path) for path in paths]
    for root in roots:
        if not root.exists():
            raise DataError(f"{root}: no such file or folder")
        if not root.is_dir() and not _is_archive(root):
            raise DataError(f"{root}: --shard takes folders of pictures and archives ({', '.join(ARCHIVES)})")
    if len(roots) == 1 and roots[0].is_dir():
        return [(roots[0], "")]
    names = [_root_name(root) for root in roots]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"two of the paths are called {twice!r}, and their masks would share a folder; predict them into folders of their own"
        )
    return [(root, beside_files(f"{name}/x")[:-1]) for root, name in zip(roots, names, strict=True)]


def _root_name(root: Path) -> str:
    name = os.path.basename(os.path.abspath(root)) or "root"
    ending = next((each for each in ARCHIVES if name.endswith(each)), "")
    return name[: len(name) - len(ending)]


def _is_archive(path: Path) -> bool:
    return path.name.endswith(ARCHIVES) and not path.is_dir()


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in picture_suffixes() and not any(part.startswith(".") for part in path.parts if part != ".")


def _of_member(archive: Path, prefix: str, name: str, mark: list[int]) -> tuple[str, str, list[int]]:
    """(name of its masks, what it is called in the journal, mark): a member keeps its suffix, since nobody has seen all of them."""
    inside = PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")))
    return prefix + beside_files(str(inside)), f"{os.path.abspath(archive)}!{name}", mark
