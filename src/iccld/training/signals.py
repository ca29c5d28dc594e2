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


class StopRequest:
    """Which signal asked for the stop, if any."""

    def __init__(self) -> None:
        self.name: str | None = None
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
        self.name = self.name or signal.Signals(number).name


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
