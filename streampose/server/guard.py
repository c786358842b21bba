"""Who may talk to the server, and how much: Host and Origin headers, the token, rates, and the size of bodies."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import socket
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import anyio

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/login"})  # without a token; they tell nothing of what is seen
OPEN_PREFIX = "/static/"  # the page's own files, which are public
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws: wss:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]
LEAST_TOKEN = 16  # characters
COOKIE_SECONDS = 30 * 24 * 3600
MAX_ADDRESSES = 4096  # whose rates are remembered

LOGIN_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>streampose</title><link rel="icon" href="/static/icon.svg">
<link rel="stylesheet" href="/static/style.css"></head>
<body class="login"><form class="panel" method="post" action="/login">
<h1><img src="/static/icon.svg" alt="" width="22" height="22">streampose</h1>
<label for="token">Token, as the server printed it when it started</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<p role="alert">{problem}</p><button type="submit">Watch</button></form></body></html>
"""


class Limits(NamedTuple):
    """What one server accepts.

    Attributes:
        body_bytes: of a request, but for uploads.
        upload_bytes: of a picture or video.
        body_seconds: for a body to arrive.
        requests_per_second, burst: of one address; a stream counts as one.
        clients: streams at once.
        uploads: uploads at once; those that come meanwhile are told to come again.
    """

    body_bytes: int = 64 << 10
    upload_bytes: int = 32 << 20
    body_seconds: float = 30.0
    requests_per_second: float = 50.0
    burst: float = 500.0
    clients: int = 256
    uploads: int = 2


def is_loopback(host: str) -> bool:
    """Whether an address to bind to is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Rates:
    """A bucket of tokens for each address, filled at a constant rate."""

    def __init__(self, per_second: float, burst: float):
        self._per_second, self._burst = per_second, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> tokens left, when

    def allow(self, address: str) -> bool:
        """Take one token; False where none is left."""
        now = time.monotonic()
        tokens, at = self._buckets.pop(address, (self._burst, now))
        tokens = min(self._burst, tokens + self._per_second * (now - at))
        self._buckets[address] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return tokens >= 1


class Guard:
    """ASGI middleware: answers what is not welcome, and adds headers that keep the page to itself.

    A page of another site whose name resolves to this machine (DNS rebinding) sends its own name as Host. Bound to
    loopback only the loopback names are accepted; bound to another address also that name, this machine's name and
    addresses as numbers, which cannot be rebound. A request with an Origin must come from the page of this very server:
    there is no cross-origin access.

    With a token, all but the health checks and the page's own files needs it: as `Authorization: Bearer TOKEN`, as
    `?token=TOKEN` of the page (which becomes a cookie) or of the stream, or as that cookie. It is compared in constant
    time.

    Args:
        host: the address that the server is bound to.
        token: None where no token is needed.
        secure: the server speaks TLS, so that cookies travel over it only.
    """

    def __init__(
        self, app: Any, host: str, token: str | None = None, limits: Limits | None = None, secure: bool = False
    ):
        self.app = app
        self.limits = limits or Limits()
        self.loopback_only = is_loopback(host)
        self.names = LOOPBACK_NAMES | {host.lower()}
        if not self.loopback_only:
            self.names |= {socket.gethostname().lower()}
        self._token, self._secure = token, secure
        digest = hashlib.sha256(b"streampose cookie " + (token or "").encode()).hexdigest()
        self._cookie_name, self._cookie_value = f"streampose-{digest[:8]}", digest[8:]
        self._rates = Rates(self.limits.requests_per_second, self.limits.burst)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] == "http":
            send = _with_headers(send)
        address = (scope.get("client") or ("",))[0]
        problem = self.problem(headers.get(b"host", ""), headers.get(b"origin"))
        if problem is not None:
            await _refuse(scope, receive, send, 403, problem)
        elif not self._rates.allow(address):
            await _refuse(scope, receive, send, 429, "too many requests; slow down", [(b"retry-after", b"1")])
        elif self._token is not None and scope["type"] == "http" and scope["path"] == "/login":
            await self._login(scope, receive, send)
        elif not self._known(scope, headers):
            if scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
                await _answer(send, 401, LOGIN_PAGE.format(problem="").encode(), b"text/html; charset=utf-8")
            else:
                detail = "this server needs its token: send the header `Authorization: Bearer TOKEN`"
                await _refuse(scope, receive, send, 401, detail, [(b"www-authenticate", b"Bearer")])
        elif scope["type"] == "http" and scope["path"] == "/" and self._token is not None and _query_token(scope):
            await _answer(send, 303, b"", b"text/plain", [(b"location", b"./"), self._cookie()])
        elif scope["type"] == "http":
            await self._bounded(scope, headers, receive, send)
        else:
            await self.app(scope, receive, send)

    def problem(self, host: str, origin: str | None) -> str | None:
        """Why a request with these headers is refused; None when it is welcome."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = ""
        if not (name in self.names or (not self.loopback_only and _is_address(name))):
            return f"refused: this server does not answer to the name {name!r}; open it as localhost or by its address"
        if origin is not None and origin.split("://")[-1].lower() != host.lower():
            return f"refused: a page of {origin[:200]} may not talk to this server"
        return None

    def _known(self, scope: dict[str, Any], headers: dict[bytes, str]) -> bool:
        """Whether a request needs no token, or shows it."""
        path = scope["path"]
        if self._token is None or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return True
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._matches(given.strip()):
            return True
        if path in ("/", "/v1/stream") and self._matches(_query_token(scope)):
            return True
        return _equal(_cookies(headers).get(self._cookie_name, ""), self._cookie_value)

    def _matches(self, given: str) -> bool:
        return self._token is not None and _equal(given, self._token)

    def _cookie(self) -> tuple[bytes, bytes]:
        secure = "; Secure" if self._secure else ""
        text = f"{self._cookie_name}={self._cookie_value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={COOKIE_SECONDS}"
        return b"set-cookie", (text + secure).encode()

    async def _login(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        if scope["method"] == "POST":
            with anyio.move_on_after(self.limits.body_seconds):
                message = {"more_body": True}
                while message.get("more_body") and len(body) <= 4096:
                    message = await receive()
                    if message.get("type") == "http.disconnect":
                        return
                    body += message.get("body", b"")
        given = parse_qs(body[:4096].decode("latin-1")).get("token", [""])[0]
        if self._matches(given.strip()):
            await _answer(send, 303, b"", b"text/plain", [(b"location", b"./"), self._cookie()])
        else:
            problem = "This is not the token." if given else ""
            await _answer(send, 401, LOGIN_PAGE.format(problem=problem).encode(), b"text/html; charset=utf-8")

    async def _bounded(self, scope: dict[str, Any], headers: dict[bytes, str], receive: Any, send: Any) -> None:
        """Pass a request on; its body may neither be larger nor come slower than the limits say."""
        most = self.limits.upload_bytes if scope["path"] == "/v1/pose" else self.limits.body_bytes
        too_large = f"the body is larger than {most} bytes"
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length[:20]) > most:
            await _refuse(scope, receive, send, 413 if length.isdecimal() else 400, too_large)
            return
        received, complete, begun = 0, False, time.monotonic()

        async def bounded_receive() -> dict[str, Any]:
            nonlocal received, complete
            if complete:
                return await receive()
            left = self.limits.body_seconds - (time.monotonic() - begun)
            message: dict[str, Any] | None = None
            with anyio.move_on_after(max(left, 0.0)):
                message = await receive()
            if message is None:
                raise BodyError(408, f"the body took longer than {self.limits.body_seconds:.0f} s to arrive")
            received += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if received > most:
                raise BodyError(413, too_large)
            return message

        await self.app(scope, bounded_receive, send)


class BodyError(Exception):
    """A body that is too large or too slow; raised where it is read."""

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status


async def _refuse(
    scope: dict[str, Any],
    receive: Any,
    send: Any,
    status: int,
    detail: str,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": detail[:120]})
    else:
        await _answer(send, status, json.dumps({"detail": detail}).encode(), b"application/json", headers)


async def _answer(
    send: Any, status: int, body: bytes, kind: bytes, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    length = str(len(body)).encode()
    all_headers = [(b"content-type", kind), (b"content-length", length), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _query_token(scope: dict[str, Any]) -> str:
    return parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]


def _cookies(headers: dict[bytes, str]) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get(b"cookie", "")).items()}
    except CookieError:
        return {}


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
