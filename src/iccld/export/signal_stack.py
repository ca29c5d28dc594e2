"""Keeps a thread's alternate signal stack what it was."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux's sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Undo what is done to this thread's alternate signal stack meanwhile; nothing to do outside Linux.

    OpenVINO's CPU plugin sets one when it compiles a model, and frees its memory when the model goes, which may be in another thread.
    Python's handlers run on that stack, so that the next signal, such as a worker's end, would kill the process (OpenVINO 2026.4.1).
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None, use_errno=True).sigaltstack(ctypes.byref(before), None)


def signal_stack() -> SignalStack:
    """The alternate signal stack of this thread; `flags` 2 where there is none."""
    found = SignalStack()
    ctypes.CDLL(None, use_errno=True).sigaltstack(None, ctypes.byref(found))
    return found
