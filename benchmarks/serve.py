"""Many clients of one server: what they wait for, how much is answered, and whether memory stays.

    python benchmarks/serve.py RUN PICTURE [--clients 32] [--seconds 60]

Starts `iccld serve RUN` on a free port of this machine, sends the picture from every client again and again over its own connection, and
compares each answer with the first.  A 503 is obeyed and counted; anything else but the same mask is lost.  Memory is the server's own
figure (`/metrics`), at a tenth of the time and at the end: what is loaded and cached at first is no leak.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Told:
    """Counts over all clients."""

    answered: int = 0
    busy: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of each answer, as its client waited for it."""
    memory: list[tuple[float, int]] = field(default_factory=list)
    """(time since the start, resident bytes)."""
    slowest_health: float = 0.0
    """Longest wait for /health meanwhile."""

    def growth(self, whole: float) -> float:
        """Resident memory at the end over that at a tenth of the time."""
        early = next(size for when, size in self.memory if when >= whole / 10)
        return self.memory[-1][1] / early


class Connection:
    """One client's keep-alive connection."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url)
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body); a connection that the server closed while it idled is opened anew."""
        head = f"{method} {target} HTTP/1.1\r\nHost: {self.address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        if self.writer is None or self.writer.is_closing() or (self.reader is not None and self.reader.at_eof()):
            self.close()
            self.reader, self.writer = await asyncio.open_connection(self.address.hostname, self.address.port)
        assert self.reader is not None
        self.writer.write(head.encode() + body)
        await self.writer.drain()
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(status.split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    def close(self) -> None:
        """Let the connection go."""
        if self.writer is not None:
            self.writer.close()


async def client(url: str, picture: bytes, expected: bytes, end: float, told: Told) -> None:
    """Ask until the time is over."""
    connection = Connection(url)
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            status, headers, body = await connection.ask("POST", "/segment", picture)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            told.lost.append(repr(error))
            connection.close()
            connection = Connection(url)
            continue
        if status == 503:
            told.busy += 1
            await asyncio.sleep(float(headers["retry-after"]))
        elif status != 200 or body != expected:
            told.lost.append(f"{status} {body[:80]!r}")
        else:
            told.answered += 1
            told.seconds.append(time.monotonic() - began)
    connection.close()


async def watch(url: str, end: float, told: Told) -> None:
    """Ask for health and memory about twenty times."""
    connection, start = Connection(url), time.monotonic()
    pause = (end - start) / 20
    while time.monotonic() < end:
        began = time.monotonic()
        status, _, _ = await connection.ask("GET", "/health")
        told.slowest_health = max(told.slowest_health, time.monotonic() - began)
        if status != 200:
            told.lost.append(f"/health {status}")
        text = (await connection.ask("GET", "/metrics"))[2].decode()
        found = re.search(r"^process_resident_memory_bytes (\d+)$", text, re.MULTILINE)
        told.memory.append((time.monotonic() - start, int(found[1]) if found else 0))
        await asyncio.sleep(pause)
        connection.close()  # idle connections are closed after 5 s
        connection = Connection(url)
    connection.close()


async def load(url: str, picture: bytes, clients: int, seconds: float) -> Told:
    """`clients` at once for so many seconds."""
    first = Connection(url)
    status, _, expected = await first.ask("POST", "/segment", picture)
    first.close()
    if status != 200:
        raise SystemExit(f"the picture is answered {status}: {expected.decode(errors='replace')}")
    told, end = Told(), time.monotonic() + seconds
    await asyncio.gather(watch(url, end, told), *(client(url, picture, expected, end, told) for _ in range(clients)))
    return told


def start(command: list[str], environment: dict[str, str] | None = None) -> tuple[subprocess.Popen[str], str]:
    """A server's process and the address that it prints."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    if not url.startswith("http"):
        raise SystemExit(f"the server did not start: {' '.join(command)}")
    return process, url


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    process, url = start([sys.executable, "-m", "iccld", "serve", str(arguments.run), "--port", "0"])
    try:
        told = asyncio.run(load(url, arguments.picture.read_bytes(), arguments.clients, arguments.seconds))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    waits = sorted(told.seconds)
    result: dict[str, Any] = {
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "answered": told.answered,
        "a_second": round(told.answered / arguments.seconds, 2),
        "busy": told.busy,
        "lost": told.lost[:5],
        "wait": {f"p{share}": round(waits[len(waits) * share // 100], 3) for share in (50, 95, 99)} | {"most": round(waits[-1], 3)},
        "slowest_health": round(told.slowest_health, 3),
        "memory_mib": [round(size / 2**20) for _, size in told.memory],
        "growth": round(told.growth(arguments.seconds), 4),
        "exit": code,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
