"""Faults 41 to 49: what clients may do to the server, and what happens then."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from iccld.cli.parser import parse
from iccld.errors import DataError, NumericError
from iccld.front import Model
from iccld.serve.app import make_app
from iccld.serve.guard import Guard, Hosts
from iccld.serve.limits import Limits
from iccld.serve.metrics import Metrics

from ..faults.conftest import scale
from .conftest import Asked, Reply, Server, ask, picture
from .toy import Brightness

__all__ = ["scale"]

Get = Callable[..., Reply]
Start = Callable[..., Server]
ROOT = Path(__file__).parents[2]
LONG = 50 * (1 << 20)


def head(port: int, length: int | str, more: str = "") -> bytes:
    """The head of a POST of so many bytes, "chunked" for any number."""
    size = "Transfer-Encoding: chunked" if length == "chunked" else f"Content-Length: {length}"
    return f"POST /segment HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{size}\r\n{more}\r\n".encode()


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the server closes; a cut connection ends it too."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def form(filename: str, content: bytes, boundary: str = "b") -> tuple[bytes, dict[str, str]]:
    disposition = f'Content-Disposition: form-data; name="image"; filename="{filename}"'
    body = f"--{boundary}\r\n{disposition}\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


# 41


def test_fault_41_a_promise_of_too_many_bytes_is_refused_unread(get: Get) -> None:
    for length in (str(LONG), "9" * 400):
        reply = get("/segment", [b"x"], {"content-length": length})
        assert (reply.status, reply.json) == (413, {"error": "more than 1 MiB; send a smaller file"})
    assert get("/segment", b"x", {"content-length": "-3"}).status == 400


def test_fault_41_an_upload_without_an_end_is_cut_at_the_limit(get: Get) -> None:
    assert get("/segment", [b"x" * 65536] * 800).status == 413


def resident(server: Server) -> int:
    """The memory of this process, as the server tells it."""
    return int(server.app.metrics.text().rsplit("\nprocess_resident_memory_bytes ", 1)[1].split()[0])


def send_for(connection: socket.socket, data: bytes, seconds: float) -> None:
    """The same again and again, as fast as it is taken."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.sendall(data)


def test_fault_41_chunks_without_an_end_leave_the_servers_memory(started: Start) -> None:
    server = started(Limits(megabytes=1, header_seconds=1.0))
    memory, chunk = resident(server), b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with server.connect() as connection:
        connection.sendall(head(server.port, "chunked") + chunk * 32)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
        with pytest.raises(ConnectionError):  # what comes after the answer is thrown away for a while, then the connection is cut
            send_for(connection, chunk * 64, seconds=60)
    assert resident(server) - memory < 20 * (1 << 20)


def test_fault_41_long_names_and_heads_are_refused(get: Get, started: Start) -> None:
    body, headers = form("x" * 500_000 + ".png", picture())
    assert get("/segment", body, headers).status == 400
    server = started(Limits())
    with server.connect() as connection:
        connection.sendall(head(server.port, 1, f"X-Long: {'x' * 200_000}\r\n"))
        assert rest_of(connection).startswith(b"HTTP/1.1 400")


def test_fault_41_forms_of_many_parts_are_refused(get: Get) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    assert get("/segment", part * 10_000 + b"--b--\r\n", {"content-type": "multipart/form-data; boundary=b"}).status == 400


# 42


def animated(format: str) -> bytes:
    data = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    frames[0].save(data, format=format, save_all=True, append_images=frames[1:])
    return data.getvalue()


def bomb() -> bytes:
    data = io.BytesIO()
    Image.new("L", (4000, 3000)).save(data, format="PNG")  # 12 megapixels in a few kilobytes
    return data.getvalue()


def zipped_behind(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.html", "<p>")
    return content + archive.getvalue()


def with_comment(text: bytes) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, format="JPEG", comment=text)
    return data.getvalue()


WRONG: dict[str, tuple[int, Callable[[], bytes]]] = {
    "text": (415, lambda: b"hello"),
    "page": (415, lambda: b"<!doctype html><script>alert(1)</script>"),
    "svg": (415, lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "pdf": (415, lambda: b"%PDF-1.7\n"),
    "zip": (415, lambda: zipped_behind(b"")),
    "pickle": (415, lambda: b"\x80\x04\x95\x10\x00\x00\x00"),
    "postscript": (415, lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "truncated": (422, lambda: picture(9, (60, 60))[:-40]),
    "sign alone": (422, lambda: b"\x89PNG\r\n\x1a\n"),
    "bomb": (413, bomb),
    "gif": (422, lambda: animated("GIF")),
    "apng": (422, lambda: animated("PNG")),
    "webp": (422, lambda: animated("WEBP")),
    "tiff": (422, lambda: animated("TIFF")),
    "picture and zip": (422, lambda: zipped_behind(picture())),
    "picture and page": (422, lambda: picture() + b"<script>alert(1)</script>"),
    "jpeg with a page inside": (422, lambda: with_comment(b"<html><script>alert(1)</script>")),
    "jpeg with php inside": (422, lambda: with_comment(b"<?php phpinfo(); ?>")),
    "picture and pdf": (422, lambda: b"BM%PDF-1.4" + bytes(100)),
}


@pytest.mark.parametrize("name", WRONG)
def test_fault_42_what_is_no_plain_picture_is_refused(get: Get, name: str, tmp_path: Path) -> None:
    status, make = WRONG[name]
    reply = get("/segment", make())
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    words = reply.json["error"]
    assert "\n" not in words
    assert not any(leak in words for leak in ("/", "Traceback", ".py", " at 0x", "PIL", str(tmp_path))), words


def test_fault_42_pictures_of_a_phone_are_no_animations(get: Get) -> None:
    data = io.BytesIO()
    frames = [Image.new("RGB", (16, 8), color) for color in ("white", "grey")]
    frames[0].save(data, format="MPO", save_all=True, append_images=frames[1:])  # a JPEG with a preview behind it
    assert get("/segment", data.getvalue()).picture.size == (16, 8)


def test_fault_42_the_answer_holds_nothing_of_the_upload(get: Get) -> None:
    content = with_comment(b"a secret of mine")
    for query in ("", "?format=overlay", "?format=json&picture=jpeg"):
        assert b"secret" not in get(f"/segment{query}", content).body


# 43


def test_fault_43_a_slow_head_is_cut(started: Start) -> None:
    server = started(Limits(header_seconds=0.3))
    with server.connect() as connection:
        connection.sendall(b"POST /segment HTTP/1.1\r\nHost: ")
        assert rest_of(connection) == b""
    with server.connect() as connection:  # and one that says nothing at all
        assert rest_of(connection) == b""


def test_fault_43_a_slow_body_is_answered_408(started: Start) -> None:
    server = started(Limits(upload_seconds=0.3))
    with server.connect() as connection:
        connection.sendall(head(server.port, 1000) + b"x")
        assert rest_of(connection).startswith(b"HTTP/1.1 408")
    assert server.app.metrics.admitted == 0


def test_fault_43_a_client_that_takes_no_answer_is_cut(started: Start) -> None:
    async def much(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(bytes(LONG))(scope, receive, send)

    server = started(Limits(header_seconds=0.3), Guard(much, Hosts(True), Metrics(), lambda: None))
    with server.connect() as connection:
        connection.sendall(head(server.port, 0))
        assert b"200 OK" in connection.recv(4096)
        time.sleep(1)
        assert len(rest_of(connection)) < LONG


# 44


def test_fault_44_one_more_than_the_queue_is_sent_away(app: Guard, network: Brightness) -> None:
    gate = threading.Event()

    def hold() -> None:
        gate.wait(30)

    network.before = hold

    async def crowd() -> list[Reply]:
        waiting = [asyncio.create_task(ask(app, Asked("POST", "/segment", picture(level)))) for level in range(4)]
        while app.metrics.admitted < 4:
            await asyncio.sleep(0.01)
        away, health = await ask(app, Asked("POST", "/segment", picture())), await ask(app, Asked("GET", "/health"))
        gate.set()
        return [away, health, *await asyncio.gather(*waiting)]

    away, health, *served = asyncio.run(crowd())
    assert away.status == 503
    assert 1 <= int(away.headers["retry-after"]) <= 60
    assert health.json == {"status": "ok", "queue": 4}
    assert [int(np.asarray(reply.picture)[0, 0]) for reply in served] == [0, 1, 2, 3]
    assert app.metrics.admitted == 0


def load_benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serve_benchmark", ROOT / "benchmarks" / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve_benchmark"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def toy_server(seconds: float) -> tuple[subprocess.Popen[str], str]:
    environment = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    started: tuple[subprocess.Popen[str], str] = load_benchmark().start(
        [sys.executable, str(Path(__file__).with_name("toy.py")), str(seconds)], environment
    )
    return started


def clients_for(seconds: float) -> Any:
    """32 clients of a server in a process of its own; what became of them."""
    process, url = toy_server(0.0)
    try:
        told = asyncio.run(load_benchmark().load(url, picture(9, (64, 96)), 32, seconds))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stdout.read() == "ended\n"
        process.stdout.close()
    assert told.lost == []
    assert told.busy == 0
    assert told.answered >= 32
    assert told.growth(seconds) < 1.1
    return told


def test_fault_44_thirty_two_clients_lose_nothing(scale: Callable[[int, int], int], record_property: Callable[[str, object], None]) -> None:
    seconds = scale(1800, 3)
    told = clients_for(seconds)
    grown = f"memory {told.memory[0][1] >> 20} to {told.memory[-1][1] >> 20} MiB"
    record_property("figure", f"{told.answered} answers to 32 clients in {seconds} s, 0 lost, {grown}")


@pytest.mark.slow
def test_thirty_two_clients_lose_nothing_in_five_minutes() -> None:
    clients_for(300)


# 45


WATCHED: list[tuple[str, Any]] = []
IS_WATCHING = threading.Event()


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if IS_WATCHING.is_set() and event in (
        "open",
        "os.mkdir",
        "os.rename",
        "tempfile.mkstemp",
        "tempfile.mkdtemp",
        "socket.connect",
        "socket.getaddrinfo",
    ):
        WATCHED.append((event, arguments))


sys.addaudithook(_watch)  # for the life of the process; it looks only while a test asks it to


@pytest.fixture
def watched() -> Iterator[list[tuple[str, Any]]]:
    """Files opened and connections made while the test runs."""
    WATCHED.clear()
    IS_WATCHING.set()
    yield WATCHED
    IS_WATCHING.clear()


def test_fault_45_the_clients_file_name_touches_nothing(model: Model, watched: list[tuple[str, Any]]) -> None:
    app, padding, data = make_app(model, Limits()), PngInfo(), io.BytesIO()
    padding.add(b"prVt", bytes(1 << 21))
    Image.new("RGB", (8, 8)).save(data, format="PNG", pnginfo=padding)  # starlette puts what is larger than 1 MiB into a file
    asyncio.run(ask(app, Asked("POST", "/segment", picture())))  # imports what is imported once
    for name in ("../../evil.png", "/etc/evil.png", "C:\\evil.png", "evil\x00.png", "\u202egnp.evil", "con", ""):
        body, headers = form(name, data.getvalue())
        watched.clear()
        reply = asyncio.run(ask(app, Asked("POST", "/segment", body, headers)))
        seen = [entry for entry in watched if "statm" not in str(entry)]
        assert reply.status in (200, 400)
        assert seen == []
        assert b"evil" not in reply.body
    app.close()


# 46


@pytest.mark.parametrize(
    ("target", "body", "kind"),
    [
        ("/segment?url=http://127.0.0.1:9/x.png", b"", ""),
        ("/segment?picture=http://127.0.0.1:9/x.png", b"", ""),
        ("/segment", b"http://127.0.0.1:9/x.png", "text/plain"),
        ("/segment", b"http://127.0.0.1:9/x.png", ""),
        ("/segment", b'{"url": "http://127.0.0.1:9/x.png"}', "application/json"),
        ("/segment", b"url=http%3A%2F%2F127.0.0.1%3A9%2Fx.png", "application/x-www-form-urlencoded"),
        (
            "/segment",
            b'--b\r\nContent-Disposition: form-data; name="url"\r\n\r\nhttp://127.0.0.1:9/\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        ("/segment", b"file:///etc/passwd", ""),
        ("http://127.0.0.1:9/segment", picture(), ""),
    ],
)
def test_fault_46_a_url_is_no_picture(get: Get, watched: list[tuple[str, Any]], target: str, body: bytes, kind: str) -> None:
    watched.clear()
    assert get(target, body, {"content-type": kind}).status in (400, 404, 415)
    assert [event for event, _ in watched if event.startswith("socket.")] == []


# 47


def test_fault_47_it_listens_to_this_machine_alone_unless_told() -> None:
    _, arguments, _ = parse(["serve", "runs/demo"])
    assert arguments.host == "127.0.0.1"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "user@localhost", "localhost, evil", "", "["]
)
def test_fault_47_another_host_is_refused_everywhere(get: Get, host: str) -> None:
    for target, body in (("/", None), ("/info", None), ("/segment", picture())):
        assert get(target, body, {"host": host}).status == 421


def test_fault_47_other_pages_are_refused_and_get_no_permission(get: Get) -> None:
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:81"},
        {"sec-fetch-site": "cross-site"},
    ):
        reply = get("/segment", picture(), headers)
        assert reply.status == 403, headers
    preflight = get("/segment", method="OPTIONS", headers={"origin": "http://localhost", "access-control-request-method": "POST"})
    assert preflight.status == 405
    for reply in (preflight, get("/info", headers={"origin": "http://localhost"})):
        assert not [name for name in reply.headers if name.startswith("access-control")]
    assert get("/segment", picture(), {"origin": "http://localhost", "sec-fetch-site": "same-origin"}).status == 200
    assert get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status == 200  # a link that was followed


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/page.css/../../app.py", "//etc/passwd", "/page.html", "/app.py", "/page/", "/..\\x", "/segment/", "/\x00"],
)
def test_fault_47_no_path_leads_to_a_file(get: Get, path: str) -> None:
    assert get(path).status in (404, 405)


@pytest.mark.parametrize("query", ["checkpoint=/x", "run=other", "stage=source", "path=/etc/passwd", "format=../x", "weights=model"])
def test_fault_47_no_parameter_names_a_path_or_checkpoint(get: Get, query: str) -> None:
    assert get(f"/segment?{query}", picture()).status == 400


# 48


def test_fault_48_who_has_left_is_not_segmented(app: Guard, network: Brightness) -> None:
    seen = []
    gate = threading.Event()

    def hold() -> None:
        gate.wait(30)
        seen.append(1)

    network.before = hold

    async def crowd() -> list[Reply]:
        asked = [Asked("POST", "/segment", picture(), leaves=number == 3) for number in range(4)]
        waiting = [asyncio.create_task(ask(app, one)) for one in asked]
        while app.metrics.admitted < 4:
            await asyncio.sleep(0.01)
        gate.set()
        return await asyncio.gather(*waiting)

    replies = asyncio.run(crowd())
    assert [reply.status for reply in replies[:3]] == [200] * 3
    assert len(seen) == 3
    assert (app.metrics.abandoned, app.metrics.admitted, app.metrics.failures) == (1, 0, 0)


def test_fault_48_half_an_upload_leaves_no_place_taken(started: Start) -> None:
    server = started(Limits())
    with server.connect() as connection:
        connection.sendall(head(server.port, 1000) + b"x")
        while server.app.metrics.admitted == 0:
            time.sleep(0.01)
    end = time.monotonic() + 30
    while server.app.metrics.admitted and time.monotonic() < end:
        time.sleep(0.01)
    assert (server.app.metrics.admitted, server.app.metrics.failures) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_fault_48_a_signal_lets_the_pictures_at_hand_finish(number: signal.Signals) -> None:
    process, url = toy_server(0.6)
    assert process.stdout is not None
    port = int(url.rpartition(":")[2])
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(2)]
    for connection in connections:
        body = picture(9, (64, 64))
        connection.sendall(head(port, len(body)) + body)
    time.sleep(0.3)
    process.send_signal(number)
    assert all(rest_of(connection).startswith(b"HTTP/1.1 200") for connection in connections)
    assert process.wait(30) == 0
    assert process.stdout.read() == "ended\n"
    process.stdout.close()
    for connection in connections:
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


# 49


@pytest.mark.parametrize(
    "error", [RuntimeError("secret at /root/model.py, line 3"), NumericError("the logits are not finite"), MemoryError()]
)
def test_fault_49_a_failing_model_is_a_500_with_a_number_and_the_service_goes_on(
    get: Get, network: Brightness, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail() -> None:
        network.before = None
        raise error

    network.before = fail
    reply = get("/segment", picture())
    if isinstance(error, MemoryError):  # answered with smaller windows first, which needs no failure
        assert reply.status in (200, 500)
        return
    assert reply.status == 500
    assert reply.json["id"] in reply.json["error"]
    assert "secret" not in reply.body.decode()
    log = capsys.readouterr().err
    assert f"error {reply.json['id']}" in log
    assert str(error) in log
    assert get("/segment", picture()).status == 200


def test_fault_49_a_picture_too_large_for_memory_is_told(get: Get, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise DataError("out of memory for a 24x32 picture even in windows of 8x8; free memory or shrink it")

    monkeypatch.setattr(model, "segment", fail)
    assert (get("/segment", picture()).status, get("/health").status) == (413, 200)
