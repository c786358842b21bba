"""The verb `serve`: live pose from a camera, a file or a stream, with a page to watch it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streampose.console import logger
from streampose.errors import StreamposeError
from streampose.runtime.bundle import default_bundle

SEND_BUFFER_BYTES = 1 << 17  # of each client: what lies there is old by the time a slow client reads it

if TYPE_CHECKING:
    from streampose.server.session import Session


def serve(
    *,
    source: str | int = 0,
    model: Path | None = None,
    runtime: str = "auto",
    precision: str = "f32",
    host: str = "127.0.0.1",
    port: int = 8765,
    max_subjects: int = 1,
    smooth: bool = True,
    open_browser: bool = False,
    seconds: float | None = None,
    loop: bool = True,
) -> dict[str, Any]:
    """Serve until Ctrl-C or SIGTERM, the end of the source, or for some seconds.

    Args:
        source: camera number, file, RTSP/HTTP URL, or `test`.
        model: a bundle; None for ./models/current, else the model shipped with the package.
        host: address to listen at; only loopback is safe on a network with strangers.
        port: 0 takes any free one.
        loop: play a file again when it ends.

    Returns:
        {'url', 'frames', 'published', 'dropped', 'latency_ms': {'p50', 'p95', 'p99'}, 'seconds', 'runtime'}

    Raises:
        StreamposeError: the port is in use, or the address is not this machine's.
        BundleError, ConfigError: the model or the runtime.
        VideoError: the source cannot be opened.
    """
    from streampose.server.guard import is_loopback
    from streampose.server.session import build_session

    if max_subjects < 1:
        raise StreamposeError(f"--max-subjects {max_subjects}: at least 1")
    listener = _listen(host, port)
    with contextlib.closing(listener):
        session = build_session(
            source, model or default_bundle(), runtime=runtime, precision=precision, max_subjects=max_subjects,
            smooth=smooth, loop=loop,
        )  # fmt: skip
        session.start()
        url = _url(host, listener.getsockname()[1])
        if not is_loopback(host):
            logger.warning("%s: anyone who can reach this machine can watch; leave --host out to keep it private", url)
        logger.info("%s: live at %s (Ctrl-C ends it)", session.names.source, url)
        with _server(session, host, listener), _end_on_signal() as ended:
            if open_browser:
                webbrowser.open(url)
            deadline = None if seconds is None else time.monotonic() + seconds
            while not (ended.is_set() or session.done.wait(0.1) or (deadline and time.monotonic() >= deadline)):
                continue
    if session.failure is not None:
        raise session.failure
    stats = session.stats(whole=True)
    logger.info(
        "%d frames published in %.1f s, %d dropped, latency p50 %s ms, p95 %s ms",
        stats.published, stats.seconds, stats.dropped, stats.latency_ms.p50, stats.latency_ms.p95,
    )  # fmt: skip
    return {
        "url": url,
        "frames": stats.captured,
        "published": stats.published,
        "dropped": stats.dropped,
        "latency_ms": stats.latency_ms.model_dump(),
        "seconds": stats.seconds,
        "runtime": stats.runtime,
    }


@contextlib.contextmanager
def _server(session: Session, host: str, listener: socket.socket) -> Iterator[None]:
    """Answer requests in a thread of its own; on leaving, end the session and the server and wait for both."""
    import uvicorn

    from streampose.server.app import create_app
    from streampose.server.stage import Stage

    config = uvicorn.Config(
        create_app(Stage(session), host), log_level="warning", access_log=False, timeout_graceful_shutdown=1,
        ws_max_size=1 << 16, ws_per_message_deflate=False, server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="streampose-http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        session.stop()  # its end closes the streams, so that the server has nothing left to wait for
        server.should_exit = True
        thread.join(timeout=5.0)


@contextlib.contextmanager
def _end_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; outside of the main thread, which alone gets signals, nothing sets it."""
    ended = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield ended
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: ended.set()) for number in signals]
    try:
        yield ended
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise StreamposeError(f"--port {port}: ports are 1 to 65535, or 0 for any free one")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family)
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


def _url(host: str, port: int) -> str:
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"
