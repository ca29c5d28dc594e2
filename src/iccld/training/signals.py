"""Asked to stop: the signal sets a flag, the loop saves at the step's end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What schedulers and people send: a cluster's end of time (TERM), its warning before (USR1), Ctrl-C (INT)."""

ANSWER = b"\nstopping once the step at hand is saved; Ctrl-C again leaves at once\n"
"""Told to whoever pressed Ctrl-C."""


class Stopped(BaseException):
    """A stop signal within `leaving_at_once`.  Not an Exception, so that what is made for errors lets it pass."""


class StopRequest:
    """Which signal asked for the stop, if any."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.leaves_at_once = False
        self._process = os.getpid()

    def __bool__(self) -> bool:
        return self.name is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler.  Forked workers ignore it; a second Ctrl-C leaves at once, any other second signal does nothing."""
        if os.getpid() != self._process:
            return
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            os.write(2, ANSWER)  # print is not safe in a handler
        is_first, self.name = self.name is None, self.name or signal.Signals(number).name
        if is_first and self.leaves_at_once:
            raise Stopped


_current: list[StopRequest] = []
"""The request of the outermost block, while there is one."""


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn `STOP_SIGNALS` into a flag for the length of the block; the earlier handlers come back after it.

    A block inside another shares its flag: what was asked for between two stages is seen by the second one.  Outside the main
    thread, where Python takes no handlers, the flag is never set.
    """
    if _current:
        yield _current[0]
        return
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    earlier = {number: signal.signal(number, request.handle) for number in STOP_SIGNALS}
    _current.append(request)
    try:
        yield request
    finally:
        _current.clear()
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Work that can be done again, such as scoring: within a `stop_on_signals` block a stop signal leaves it at once, as `Stopped`.

    So does one that came before.  What the work writes must be whole or written again.
    """
    request = _current[0] if _current else StopRequest()
    request.leaves_at_once = True
    try:
        if request:
            raise Stopped
        yield
    finally:
        request.leaves_at_once = False
