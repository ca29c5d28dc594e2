"""A model without training, and ways to ask a server: in this process, and through a socket."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iccld.front import Model

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from iccld.serve.app import make_app
from iccld.serve.guard import Guard
from iccld.serve.limits import Limits
from iccld.serve.server import open_socket, run_app

from .toy import Brightness, make_model


@pytest.fixture
def network() -> Brightness:
    return Brightness()


@pytest.fixture
def model(network: Brightness, tmp_path: Path) -> Model:
    return make_model(network, tmp_path / "some-run")


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(self.body))


@dataclass
class Asked:
    """A request without a socket."""

    method: str = "GET"
    target: str = "/"
    body: bytes | list[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    leaves: bool = False
    """Whether the client goes away once everything is sent."""


async def ask(app: Guard, asked: Asked) -> Reply:
    """The ASGI call that uvicorn would make."""
    path, _, query = asked.target.partition("?")
    named = {"host": "localhost", **asked.headers}
    chunks = asked.body if isinstance(asked.body, list) else [asked.body]
    arriving = [{"type": "http.request", "body": chunk, "more_body": number < len(chunks)} for number, chunk in enumerate(chunks, 1)]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if arriving:
            return arriving.pop(0)
        if not asked.leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": query.encode("utf-8", "surrogateescape"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in named.items() if value],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)  # type: ignore[arg-type]
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.fixture
def limits() -> Limits:
    return Limits(queue=4, megabytes=1, megapixels=1)


@pytest.fixture
def app(model: Model, limits: Limits) -> Iterator[Guard]:
    made = make_app(model, limits)
    yield made
    made.close()


@pytest.fixture
def get(app: Guard) -> Callable[..., Reply]:
    """get("/info") or get("/segment?format=json", picture, {header: value}) -> the reply."""

    def call(target: str, body: bytes | list[bytes] | None = None, headers: dict[str, str] | None = None, method: str = "") -> Reply:
        method = method or ("GET" if body is None else "POST")
        return asyncio.run(ask(app, Asked(method, target, body or b"", headers or {})))

    return call


def picture(level: int = 9, size: tuple[int, int] = (24, 32), format: str = "PNG", **options: Any) -> bytes:
    """A grey picture of (H, W) whose class is `level`."""
    data = io.BytesIO()
    Image.fromarray(np.full((*size, 3), round(255 * level / 18), dtype=np.uint8)).save(data, format=format, **options)
    return data.getvalue()


@dataclass
class Server:
    """A server in a thread of this process, on a port of its own."""

    app: Guard
    port: int
    stop: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        """A client's socket, with patience."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@pytest.fixture
def started(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """started(limits, app=None) -> a server, of the model where no application is given; it is stopped at the test's end."""
    running: list[tuple[Server, threading.Thread]] = []

    def start(limits: Limits, app: Guard | None = None) -> Server:
        import uvicorn

        servers: list[uvicorn.Server] = []
        begin = uvicorn.Server.__init__

        def remember(self: uvicorn.Server, config: uvicorn.Config) -> None:
            servers.append(self)
            begin(self, config)

        monkeypatch.setattr(uvicorn.Server, "__init__", remember)
        opened = open_socket("127.0.0.1", 0)
        port, is_up = opened.getsockname()[1], threading.Event()
        app = app or make_app(model, limits)
        thread = threading.Thread(target=run_app, args=(app, opened, limits, is_up.set))
        thread.start()
        assert is_up.wait(30)

        def stop() -> None:
            servers[0].should_exit = True

        running.append((Server(app, port, stop), thread))
        return running[-1][0]

    yield start
    for server, thread in running:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()
        server.app.close()
