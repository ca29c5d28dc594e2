"""Requests with random damage: each gets an answer that HTTP knows, none a 500, and the server goes on (600; FAULTS=full sends 50,000)."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable

from iccld.serve.guard import Guard

from ..faults.conftest import scale
from .conftest import Asked, ask, picture

__all__ = ["scale"]

EXPECTED = {200, 400, 403, 404, 405, 406, 408, 413, 415, 421, 422}
FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
TARGETS = (
    "/segment",
    "/segment?format=json",
    "/segment?format=json&mask=rle&confidence=png",
    "/segment?format=overlay",
    "/info",
    "/",
    "/metrics",
)
WORDS = (
    b"\x00",
    b"\r\n",
    b"--b",
    b"%2e%2e/",
    b"\xff" * 9,
    b"filename*=utf-8''%00",
    b";" * 50,
    b"=",
    b'"',
    b"\xe2\x80\xae",
    b"9" * 40,
    b"-1",
    b"{}",
)
HEADERS = {
    "content-type": (
        *("image/png", "application/json", "text/html", "; ;", "multipart/form-data"),
        *("multipart/form-data; boundary=b", "multipart/form-data; boundary="),
    ),
    "accept": ("*/*", "application/json", "image/*;q=nan", "a/b;q=-1, image/png;q=2", ",,;", "image/jpeg;q=1e309"),
    "host": ("localhost", "127.0.0.1:80", "evil.example", "[::1", "localhost:99999999"),
    "origin": ("http://localhost", "null", "http://evil.example", "://"),
    "content-length": ("0", "12", "99999999999", "+3", "1_0", "٣"),
    "content-encoding": ("identity", "gzip", "br, gzip"),
    "expect": ("100-continue", "200-maybe"),
    "sec-fetch-site": ("cross-site", "none", "?"),
}  # fmt: skip


def damaged(data: bytes, draw: random.Random) -> bytes:
    """One to three wounds: bytes changed, cut out, doubled or put in."""
    content = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randint(0, len(content))
        kind = draw.randrange(5)
        if kind == 0 and content:
            content[at % len(content)] = draw.randrange(256)
        elif kind == 1:
            del content[at : at + draw.randint(1, 40)]
        elif kind == 2:
            content[at:at] = content[at : at + draw.randint(1, 60)]
        elif kind == 3:
            content[at:at] = draw.choice(WORDS)
        else:
            del content[at:]
    return bytes(content)


def mutated(draw: random.Random, bodies: list[bytes]) -> Asked:
    """A request that was good before one or more of its parts were damaged."""
    target = draw.choice((*TARGETS[:4], *TARGETS))
    method = draw.choice(("POST" if target.startswith("/segment") else "GET",) * 15 + ("GET", "HEAD", "PUT", "OPTIONS", ""))
    headers = {name: draw.choice(values) for name, values in HEADERS.items() if draw.random() < 0.04}
    body = draw.choice(bodies)
    if body.startswith(b"--b"):
        headers.setdefault("content-type", "multipart/form-data; boundary=b")
    if draw.random() < 0.8:
        body = damaged(body, draw)
    if draw.random() < 0.15:
        target = damaged(target.encode(), draw).decode("latin-1")
    for name in list(headers):
        if draw.random() < 0.3:
            headers[name] = damaged(headers[name].encode("utf-8"), draw).decode("latin-1")
        else:
            headers[name] = headers[name].encode("utf-8").decode("latin-1")
    cuts = sorted(draw.randint(0, len(body)) for _ in range(draw.randint(0, 3)))
    chunks = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    return Asked(method, target, chunks, headers, leaves=draw.random() < 0.05)


def test_fault_42_mutated_requests_are_answered(
    app: Guard, scale: Callable[[int, int], int], record_property: Callable[[str, object], None]
) -> None:
    count, draw = scale(50_000, 600), random.Random(0)
    files = [picture(9, (16, 16), format) for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]
    bodies = [*files, FORM + files[0] + b"\r\n--b--\r\n", b"", b"{}"]

    async def send() -> Counter[int]:
        told: Counter[int] = Counter()
        for number in range(count):
            asked = mutated(draw, bodies)
            async with asyncio.timeout(60):
                reply = await ask(app, asked)
            told[reply.status] += 1
            assert reply.status in EXPECTED, (number, asked, reply)
            assert reply.headers["x-content-type-options"] == "nosniff"
            if reply.status >= 400:
                assert json.loads(reply.body).keys() == {"error"} or asked.method == "HEAD"
        assert (await ask(app, Asked("POST", "/segment", files[0]))).status == 200
        return told

    told = asyncio.run(send())
    assert app.metrics.failures == 0
    assert app.metrics.admitted == 0
    assert told[200] > count / 10
    assert told[422] > count / 10
    record_property("figure", f"{count} mutated requests: " + ", ".join(f"{status} {told[status]}" for status in sorted(told)))
