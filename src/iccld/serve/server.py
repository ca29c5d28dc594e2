"""uvicorn around the application: one process, deadlines for every connection, and an end that finishes what is at hand."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING, Any

from iccld.errors import ConfigError
from iccld.progress import say
from iccld.serve.limits import Limits

if TYPE_CHECKING:
    from iccld.front import Model
    from iccld.serve.guard import Guard

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def require_extra() -> None:
    """ConfigError in one line where the extra `serve` is not installed."""
    missing = [name for name in ("uvicorn", "starlette", "python_multipart") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}: pip install 'iccld[serve]'")


def open_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address, listening only when the server is ready; port 0 takes a free one.  ConfigError in one line."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror}; use for example 127.0.0.1") from None
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port") from None
    return opened


def address_of(opened: socket.socket) -> str:
    """The URL at which a bound socket is reached from this machine."""
    host, port = opened.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(opened: socket.socket) -> bool:
    """Whether a bound socket is reached from this machine alone."""
    return ipaddress.ip_address(opened.getsockname()[0]).is_loopback


def serve(
    model: Model,
    opened: socket.socket,
    limits: Limits | None = None,
    *,
    about: Mapping[str, Any] | None = None,
    names: Collection[str] = (),
    on_start: Callable[[], None] | None = None,
) -> None:
    """Serve a model on a bound socket until SIGTERM or Ctrl-C, then finish what is at hand (`drain_seconds`); a second one leaves at once.

    about, names: as for `make_app`.  on_start: called once connections are taken.  Call it in the main thread, where signals arrive.
    """
    from iccld.serve.app import make_app

    limits = limits or Limits()
    app = make_app(model, limits, about=about, is_loopback=is_loopback(opened), names=names)
    try:
        run_app(app, opened, limits, on_start)
    finally:
        app.close()


def run_app(app: Guard, opened: socket.socket, limits: Limits, on_start: Callable[[], None] | None = None) -> None:
    """Serve an application; `on_start` is called once connections are taken."""
    import uvicorn

    from iccld.serve.protocol import deadlined

    config = uvicorn.Config(
        app,
        http=deadlined(limits.header_seconds, limits.answer_seconds),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=round(limits.drain_seconds) or 1,
        backlog=512,
    )

    class Server(uvicorn.Server):
        """Ends with the process's own exit code, where uvicorn raises the signal once more."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            is_main = threading.current_thread() is threading.main_thread()  # signals arrive there alone
            before = {number: signal.signal(number, self.stop) for number in STOP_SIGNALS if is_main}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        def stop(self, number: int, frame: FrameType | None) -> None:
            if self.should_exit:
                self.force_exit = True
                return
            self.should_exit = True
            say(f"stopping: {app.metrics.admitted} pictures at hand are finished first")

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if on_start is not None:
                on_start()

    asyncio.run(Server(config).serve([opened]))
