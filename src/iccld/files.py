"""Files that are whole or not there: written beside their place, forced to the disk, then put into it.

`os.replace` is atomic only within one file system, so the temporary lies in the file's own folder.  A power cut may still lose the new
name, never the content behind it: a caller that must not lose the name either asks for its folder to be forced to the disk too.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

PARTIAL = ".partial"
"""Ending of a file that is being written; its name begins with a point."""

Durability = Literal["folder", "file", "later"]


def write_atomically(path: Path, data: bytes | str, *, durable: Durability = "file", is_shared: bool = False) -> None:
    """Put `data` (text as UTF-8) into a file: readers see the old one or the whole new one, also after a crash.  Makes the folder.

    durable: "file" forces the content to the disk before the new file takes its place, "folder" the new name afterwards as well; with
    "later" the caller does both (`sync`), for example once for many files.
    is_shared: other processes may write this very file at the same time; the temporary's name is then its own.  Otherwise it is the same
    at every try, and the next one writes over what a killed process left.
    Raises OSError, with the old file as it was and the temporary removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A hash, since a name of full length has no room for an ending.
    digest = hashlib.blake2s(os.fsencode(path.name), digest_size=8).hexdigest()
    own = f"-{secrets.token_hex(4)}" if is_shared else ""
    partial = path.parent / f".{digest}{own}{PARTIAL}"
    try:
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            if durable != "later":
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable == "folder":
        sync(path.parent)


def write_json(
    path: Path,
    content: Mapping[str, Any] | Sequence[Any],
    *,
    indent: int | None = 2,
    durable: Durability = "file",
    is_shared: bool = False,
) -> None:
    """`write_atomically` of JSON with a newline at its end."""
    text = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
    write_atomically(path, text, durable=durable, is_shared=is_shared)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when the file is missing, damaged, or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk.  FileNotFoundError when it is gone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
