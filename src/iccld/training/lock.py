"""One training per run directory; the lock ends with its process, however that ends."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from iccld.errors import CheckpointError

LOCK_NAME = ".lock"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What `flock` answers on file systems that have no locks."""


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Hold the run directory (made when missing) for the block; CheckpointError when another process holds it.

    The lock belongs to the open file, so the kernel drops it when the process dies or the machine restarts, and forked workers do not
    inherit it (`filelock`); the file stays and its text only names the holder.  On a file system without locks the text decides: a process
    that no longer lives is taken over, one of another machine, which cannot be asked, is refused with what to do.
    """
    file, owner = run / LOCK_NAME, os.getpid()
    lock = FileLock(file, mode=0o644, thread_local=False, fallback_to_soft=False)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = _text(file).strip() or "another process"
        raise CheckpointError(f"{run}: in use by {holder}; wait for it, stop it, or choose another output folder") from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise CheckpointError(f"{run}: cannot be written ({error.strerror}); choose another output folder") from error
        _refuse_living_holder(run, _text(file))
    try:
        # Written in place: another file under this name would be another lock.
        try:
            file.write_text(_signature(owner), encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"{run}: cannot be written ({error.strerror}); free some space, or choose another output folder"
            ) from error
        yield
    finally:
        if os.getpid() == owner:  # a forked child has no lock
            with suppress(OSError):
                os.truncate(file, 0)  # nobody holds it now
            lock.release()


def is_locked(run: Path) -> bool:
    """Whether a process trains in the run directory now, as far as this machine can tell; nothing is written."""
    file = run / LOCK_NAME
    text = _text(file)
    if not text.strip():
        return False  # who holds it says so
    try:
        import fcntl

        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in WITHOUT_LOCKS:
            return False
        try:
            _refuse_living_holder(run, text)
        except CheckpointError:
            return True
    return False  # closing the file has let the shared lock go


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _signature(process: int) -> str:
    return f"process {process} on {socket.gethostname()} since start {_boot()}\n"


def _boot() -> str:
    """What tells this start of the machine from every other one; empty where the system does not say."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _refuse_living_holder(run: Path, text: str) -> None:
    """CheckpointError unless the lock's text names nobody, or a process of this machine that has ended."""
    named = re.fullmatch(r"process (\d+) on (\S+) since start (\S*)\n?", text)
    if named is None:
        return
    process, host, boot = int(named[1]), named[2], named[3]
    remedy = f"wait for it, choose another output folder, or remove {run / LOCK_NAME} if it no longer runs"
    if host != socket.gethostname():
        raise CheckpointError(f"{run}: in use by process {process} on {host}, as far as this file system tells; {remedy}")
    if boot == _boot() and _is_alive(process):
        raise CheckpointError(f"{run}: in use by process {process} on {host}; {remedy}")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's process
    return True
