"""What stands before every request: the Host that it names, the page that it comes from, headers on the way out, and one answer to errors.

A page from elsewhere can make a browser ask a server on this machine (DNS rebinding: its name resolves to 127.0.0.1).  Such a request
names a foreign Host, and one from a foreign page a foreign Origin; both are refused.  Without CORS headers, no other page reads answers.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
import traceback
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iccld.progress import say
from iccld.serve.metrics import Metrics
from iccld.serve.work import Gone

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
LOOPBACK_NAMES = frozenset({"localhost"})


class Hosts:
    """Whom a request may name as its Host.

    On loopback: localhost and loopback addresses.  Elsewhere: any address, since rebinding needs a name; this machine's name; and `names`.
    """

    def __init__(self, is_loopback: bool, names: Collection[str] = ()) -> None:
        self.is_loopback = is_loopback
        own = set() if is_loopback else {socket.gethostname().lower()}
        self.names = LOOPBACK_NAMES | own | {name.lower() for name in names}

    def allows(self, host: str) -> bool:
        """Whether `name`, `name:port`, `address` or `[address]:port` may be asked for."""
        name = host_name(host)
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.is_loopback


def host_name(host: str) -> str:
    """A Host header without its port, in lower case; empty when it is none."""
    name, bracket, rest = host.strip().lower().partition("]")
    if bracket:
        return name[1:] if name.startswith("[") and (not rest or _is_port(rest)) else ""
    name, colon, port = name.partition(":")
    return name if not colon or _is_port(f":{port}") else ""


def _is_port(text: str) -> bool:
    return text[:1] == ":" and text[1:].isascii() and text[1:].isdigit() and len(text) <= 6


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, hosts: Hosts, metrics: Metrics, close: Callable[[], None]) -> None:
        self.app, self.hosts, self.metrics, self.close = app, hosts, metrics, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            return
        is_begun = False

        async def guarded(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                self.metrics.answers[message["status"]] += 1
                set_already = {name.lower() for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in set_already]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        try:
            self._refuse_foreign(scope["method"], Headers(scope=scope))
            await self.app({**scope, "app": self}, receive, guarded)
        except HTTPException as error:
            await _error(error.status_code, error.detail, error.headers)(scope, receive, guarded)
        except (Gone, ClientDisconnect):
            await _error(400, "the connection ended early", None)(scope, receive, guarded)
        except Exception:
            self.metrics.failures += 1
            number = secrets.token_hex(4)
            say(f"error {number}: {traceback.format_exc().rstrip()}")
            if is_begun:
                raise  # the server cuts the connection, so that half an answer is not taken for a whole one
            await _error(500, f"the server failed; its log has the reason under {number}", None, number)(scope, receive, guarded)

    def _refuse_foreign(self, method: str, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.hosts.allows(hosts[0]):
            remedy = "use localhost" if self.hosts.is_loopback else "use the address, or allow the name with --allow_hosts"
            raise HTTPException(421, f"this server does not answer to that Host; {remedy}")
        origin = headers.get("origin")
        is_foreign = origin is not None and origin.partition("://")[2].lower() != hosts[0].strip().lower()
        is_followed_link = headers.get("sec-fetch-mode") == "navigate" and method == "GET"
        if is_foreign or (headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_followed_link):
            raise HTTPException(403, "asked by a page from elsewhere; open this server's own page")


def _error(status: int, words: str, headers: object, number: str | None = None) -> Response:
    content = {"error": words} | ({"id": number} if number else {})
    kept = dict(headers) if isinstance(headers, dict) else {}
    return Response(json.dumps(content) + "\n", status, kept, "application/json")
