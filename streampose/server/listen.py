"""Run the application on a socket of this machine: address, token, TLS, and an orderly end."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from streampose.console import logger
from streampose.errors import StreamposeError
from streampose.runtime.predictor import Predictor
from streampose.server.guard import LEAST_TOKEN, Limits, is_loopback
from streampose.server.stage import Stage

SEND_BUFFER_BYTES = 1 << 17  # of each client: what lies there is old by the time a slow client reads it
CONNECTIONS = 1024  # at once, over all clients; more are told to come again
HEADER_BYTES = 32 << 10


class Access(NamedTuple):
    """Who may come in and how; made by `check_access`."""

    host: str
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def secure(self) -> bool:
        return self.certificate is not None


def check_access(host: str, token: str | None, certificate: Path | None, key: Path | None) -> Access:
    """Refuse what is not safe, and make a token where one is needed and none is given.

    Args:
        token: None for no token on a loopback address, and for a random one on any other.
        certificate, key: PEM files for TLS; the certificate file may hold the key too.

    Raises:
        StreamposeError: a token that can be guessed, or files that are no certificate with its key.
    """
    if token is not None and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise StreamposeError(
            f"--token: at least {LEAST_TOKEN} printable ASCII characters, so that it cannot be guessed; "
            "`openssl rand -hex 16` makes one"
        )
    if key is not None and certificate is None:
        raise StreamposeError("--key needs --certificate")
    if certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            raise StreamposeError(
                f"{certificate}{f' with {key}' if key else ''}: not a certificate with its key in PEM ({reason}); "
                "name the files with --certificate and --key"
            ) from None
    if not is_loopback(host):
        token = token or secrets.token_urlsafe(24)
    return Access(host, token, certificate, key)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        StreamposeError: the port is in use, needs rights, or the address is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise StreamposeError(f"--port {port}: ports are 1 to 65535, or 0 for any free one")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=512)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StreamposeError(f"port {port} on {host} is in use; choose another with --port {port + 1}") from None
        if error.errno == errno.EACCES:
            raise StreamposeError(
                f"port {port} needs administrator rights; choose one above 1023 with --port"
            ) from None
        reason = error.strerror or os.strerror(error.errno or 0)
        raise StreamposeError(f"{host}: cannot listen at this address ({reason}); choose another with --host") from None


def page_address(access: Access, port: int) -> str:
    """Where people open the page; the token is not part of it."""
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(access.host, access.host)
    scheme = "https" if access.secure else "http"
    return f"{scheme}://[{name}]:{port}/" if ":" in name else f"{scheme}://{name}:{port}/"


def warn(access: Access, given: bool) -> None:
    """Say what others on the network need, and what they could see.

    Args:
        given: the user chose the token.
    """
    if access.token is not None and not given:
        logger.warning("whoever opens the page needs this token: %s", access.token)
    if not is_loopback(access.host) and not access.secure:
        logger.warning(
            "%s: the token and the pictures travel unencrypted; give --certificate and --key, or leave --host out",
            access.host,
        )


@contextlib.contextmanager
def running(
    stage: Stage,
    access: Access,
    listener: socket.socket,
    *,
    limits: Limits,
    load_predictor: Callable[[Path], Predictor],
    max_subjects: int,
) -> Iterator[None]:
    """Answer requests in a thread of its own; on leaving, end the session and the server and wait for both."""
    import uvicorn

    from streampose.server.app import create_app

    app = create_app(
        stage, access.host, token=access.token, secure=access.secure, limits=limits, load_predictor=load_predictor,
        max_subjects=max_subjects,
    )  # fmt: skip
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=1, ws_max_size=1 << 16,
        ws_per_message_deflate=False, server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES, ssl_certfile=access.certificate, ssl_keyfile=access.key,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="streampose-http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stage.stop()  # its end closes the streams, so that the server has nothing left to wait for
        server.should_exit = True
        thread.join(timeout=5.0)
