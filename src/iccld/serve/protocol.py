"""uvicorn's HTTP/1.1 with a deadline on every connection, so that no client holds one by being slow."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Deadlined(H11Protocol):
    """uvicorn waits for ever for the head of a request, and for a client to take its answer; here both end in a cut connection."""

    header_seconds = 15.0
    answer_seconds = 300.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._give(self.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._give(self.answer_seconds)

    def on_response_complete(self) -> None:
        self._give(self.header_seconds)  # to take the rest of the answer, and to send the next head
        super().on_response_complete()

    def _give(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._cut)

    def _cut(self) -> None:
        self.transport.abort()


def deadlined(header_seconds: float, answer_seconds: float) -> type[Any]:
    """The protocol with these deadlines, in seconds."""
    return type("Protocol", (Deadlined,), {"header_seconds": header_seconds, "answer_seconds": answer_seconds})
