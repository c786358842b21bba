"""Keep other web sites out: checks of the Host and Origin headers against DNS rebinding and cross-site WebSockets."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws: wss:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]


def is_loopback(host: str) -> bool:
    """Whether an address to bind to is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: answers 403 to a foreign Host or Origin, and adds headers that keep the page to itself.

    A page of another site whose name resolves to this machine (DNS rebinding) sends its own name as Host. Bound to
    loopback only the loopback names are accepted; bound to another address also that name, this machine's name and
    addresses as numbers, which cannot be rebound. A request with an Origin must come from the page of this very server.
    """

    def __init__(self, app: Any, host: str):
        self.app = app
        self.loopback_only = is_loopback(host)
        self.names = LOOPBACK_NAMES | {host.lower()}
        if not self.loopback_only:
            self.names |= {socket.gethostname().lower()}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        problem = self.problem(headers.get(b"host", ""), headers.get(b"origin"))
        if problem is None:
            await self.app(scope, receive, send if scope["type"] == "websocket" else _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": problem[:120]})
        else:
            start = {
                "type": "http.response.start",
                "status": 403,
                "headers": [(b"content-type", b"text/plain"), *HEADERS],
            }
            await send(start)
            await send({"type": "http.response.body", "body": (problem + "\n").encode()})

    def problem(self, host: str, origin: str | None) -> str | None:
        """Why a request with these headers is refused; None when it is welcome."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = ""
        if not (name in self.names or (not self.loopback_only and _is_address(name))):
            return f"refused: this server does not answer to the name {name!r}; open it as localhost or by its address"
        if origin is not None and origin.split("://")[-1].lower() != host.lower():
            return f"refused: a page of {origin} may not talk to this server"
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_headers(send: Any) -> Any:
    async def send_with_headers(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return send_with_headers
