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
        self.name = self.name or signal.Signals(number).name


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn `STOP_SIGNALS` into a flag for the length of the block; the earlier handlers come back after it.

    Outside the main thread, where Python takes no handlers, the flag is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    earlier = {number: signal.signal(number, request.handle) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
