"""What waiting for data may cost: time, where a read stalls, and shared memory, where workers hand over batches."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import torch

from iccld.errors import DataError

Item = TypeVar("Item")

SHARED_MEMORY = Path("/dev/shm")
"""Where PyTorch's workers leave their batches; containers often keep it at 64 MiB."""

PREFETCH = 2
"""Batches that a worker prepares ahead."""

AHEAD = 2
"""Batches that a thread beside the training reads or has read: the one that is asked for, and the next."""

_END = object()


def _alone() -> None:
    """This thread computes without helpers, whatever others have.

    With helpers of its own there are more threads than cores, and OpenMP lets those of training sleep between any two operations instead
    of waiting awake: two threads then took longer than one.
    """
    torch.get_num_threads()  # what is asked for the first time is set for the thread; the next line must be the last word
    torch.set_num_threads(1)


def patiently(items: Iterator[Item], seconds: float) -> Generator[Item, None, None]:
    """The items, read in a thread beside the caller, one ahead of what is asked for; DataError when one takes longer than `seconds`.

    A read that hangs in the kernel (a network folder that went away) cannot be interrupted, only be left behind.
    The thread ends with the items, or when the generator is closed: whoever stops before the end closes it.
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    threads = torch.get_num_threads()

    def serve() -> None:
        _alone()
        answers.put((None, None))
        while asked.get():
            try:
                answers.put((next(items, _END), None))
            except BaseException as error:  # whatever it is, it belongs to the caller
                answers.put((_END, error))

    Thread(target=serve, daemon=True, name="read").start()
    answers.get()
    torch.set_num_threads(threads)  # of this thread, and of those that begin later
    for _ in range(AHEAD - 1):
        asked.put(True)
    try:
        while True:
            asked.put(True)
            try:
                item, error = answers.get(timeout=seconds)
            except Empty:
                raise DataError(f"a read stalled for {seconds:g} s; check that the data's disk or network folder answers") from None
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        asked.put(False)


def shared_memory_shortage(batch_bytes: int, workers: int) -> str | None:
    """A sentence when the workers' batches of `batch_bytes` may not fit into `SHARED_MEMORY`, where there is one; otherwise None."""
    if workers == 0 or not SHARED_MEMORY.is_dir():
        return None
    needed = batch_bytes * (workers * PREFETCH + 1)  # and the one in hand
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed <= free:
        return None
    return (
        f"warning: {workers} workers may need {needed / 2**20:.0f} MiB of shared memory, {SHARED_MEMORY} has {free / 2**20:.0f} MiB free; "
        "use fewer runtime.workers (0 needs none), or give a container more with --shm-size"
    )
