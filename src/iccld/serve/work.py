"""The queue before the network: few pictures in memory, one in the network, decoding and compressing beside it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from starlette.exceptions import HTTPException

from iccld.errors import DataError
from iccld.front import Model
from iccld.serve.answers import Answer, Wish, answer
from iccld.serve.limits import Limits
from iccld.serve.metrics import Metrics
from iccld.serve.upload import decode

AT_ONCE = 2
"""Pictures held as pixels: one in the network, one being decoded or compressed."""
Result = TypeVar("Result")


class Gone(Exception):  # noqa: N818 - not a fault of ours
    """The client has left; nobody waits for its answer."""


class Work:
    """Segments uploads one after the other, in the order in which they arrived."""

    def __init__(self, model: Model, limits: Limits, metrics: Metrics) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self._network = ThreadPoolExecutor(1, "network")
        self._codec = ThreadPoolExecutor(AT_ONCE, "codec")
        self._held = asyncio.Semaphore(AT_ONCE)
        self._usual_seconds = 1.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, taken before a body is read.  HTTPException 503 with Retry-After when there is none."""
        if self.metrics.admitted >= self.limits.queue:
            wait = math.ceil(min(60.0, max(1.0, self._usual_seconds * self.metrics.admitted / 2)))
            raise HTTPException(503, f"busy with {self.metrics.admitted} pictures; try again in {wait} s", {"Retry-After": str(wait)})
        self.metrics.admitted += 1
        try:
            yield
        finally:
            self.metrics.admitted -= 1

    async def segment(self, data: bytes, wish: Wish, is_gone: Callable[[], Awaitable[bool]]) -> Answer:
        """An upload -> its answer.  HTTPException for what cannot be read or fit into memory; Gone when the client left meanwhile."""
        arrived = time.monotonic()
        async with self._held:
            if await is_gone():
                self.metrics.abandoned += 1
                raise Gone
            began = time.monotonic()
            self.metrics.seconds["wait"].add(began - arrived)
            image = await self._timed("decode", self._codec, lambda: decode(data, self.limits, self.model.wide))
            try:
                result = await self._timed("predict", self._network, lambda: self.model.segment(image))
            except DataError as error:
                raise HTTPException(413, " ".join(str(error).split())) from None
            made = await self._timed("encode", self._codec, lambda: answer(result, wish))
        self.metrics.pictures += 1
        self.metrics.pixels += result.labels.size
        self._usual_seconds += 0.1 * (time.monotonic() - began - self._usual_seconds)
        return made

    def close(self) -> None:
        """Let the threads go; what they do is finished first."""
        self._network.shutdown()
        self._codec.shutdown()

    async def _timed(self, phase: str, executor: Executor, work: Callable[[], Result]) -> Result:
        began = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        finally:
            self.metrics.seconds[phase].add(time.monotonic() - began)
