"""Files that are whole or not there."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from iccld import files
from iccld.files import read_json, sync, write_atomically, write_json

LONGEST_NAME = 255


def test_text_and_bytes_are_written_and_the_folder_is_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.txt", "Größe\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "Größe\n".encode()
    write_atomically(tmp_path / "a" / "b.txt", b"\x00")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"\x00"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_name_of_full_length_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * LONGEST_NAME)
    for is_shared in (False, True):
        write_atomically(path, b"whole", is_shared=is_shared)
        assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("where", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_fault_36_a_failed_write_leaves_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    path = tmp_path / "a.png"
    write_atomically(path, b"old")

    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(files.os, where, refuse)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("durable", "expected"),
    [
        ("later", ["replace"]),
        ("file", ["fsync a file of 5 bytes", "replace"]),
        ("folder", ["fsync a file of 5 bytes", "replace", "fsync a folder"]),
    ],
)
def test_fault_03_content_reaches_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: Any, expected: list[str]
) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
        events.append("fsync a folder" if is_folder else f"fsync a file of {os.fstat(descriptor).st_size} bytes")
        real_fsync(descriptor)

    def replace(old: Path, new: Path) -> None:
        assert old.parent == new.parent  # otherwise it might be another file system, where nothing is atomic
        events.append("replace")
        real_replace(old, new)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    write_atomically(tmp_path / "a", "whole", durable=durable)
    assert events == expected


def _die_while_writing(path: Path) -> None:
    files.os.replace = lambda *_: os._exit(9)  # type: ignore[assignment]
    write_atomically(path, b"never seen")


def test_fault_01_what_a_killed_write_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")
    process = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def _write_often(path: Path, byte: bytes) -> None:
    for _ in range(200):
        write_atomically(path, byte * 50_000, durable="later", is_shared=True)


def test_several_writers_of_a_shared_file_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "counts.npy"
    write_atomically(path, b"0" * 50_000)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(path, byte)) for byte in (b"1", b"2")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = path.read_bytes()
        assert len(content) == 50_000
        assert len(set(content)) == 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_read_back_and_damage_is_empty(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Größe", "value": [1, None]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8").endswith("}\n")
    assert read_json(tmp_path / "a.json") == {"name": "Größe", "value": [1, None]}
    write_json(tmp_path / "row.json", [1, 2], indent=None)
    assert json.loads((tmp_path / "row.json").read_text()) == [1, 2]
    assert read_json(tmp_path / "row.json") == {}  # no object
    (tmp_path / "a.json").write_text('{"name": ')
    assert read_json(tmp_path / "a.json") == {}
    assert read_json(tmp_path / "absent.json") == {}


def test_sync_of_what_is_gone_is_an_error(tmp_path: Path) -> None:
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "gone")
