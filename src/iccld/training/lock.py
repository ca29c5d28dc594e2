"""One training per run directory; the lock ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iccld.errors import CheckpointError

LOCK_NAME = ".lock"


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Hold the run directory (made when missing) for the block; CheckpointError when another process holds it.

    The lock belongs to the open file, so the kernel drops it when the process dies; the file itself stays and means nothing.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CheckpointError(f"{run}: cannot be written ({error.strerror}); choose another output folder") from error
    owner = os.getpid()
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            raise CheckpointError(f"{run}: in use by {holder}; wait for it, stop it, or choose another output folder") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        _close_in_children.add(descriptor)
        yield
    finally:
        if os.getpid() == owner:  # a forked child has closed its copy already
            _close_in_children.discard(descriptor)
            os.close(descriptor)


_close_in_children: set[int] = set()


def _close_inherited() -> None:
    # A forked data worker would otherwise keep the lock of a training that was killed.
    for descriptor in _close_in_children:
        os.close(descriptor)
    _close_in_children.clear()


os.register_at_fork(after_in_child=_close_inherited)
