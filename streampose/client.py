"""Read the stream of a live server from Python: arrays for each frame, reconnecting by itself.

    from streampose.client import connect

    with connect("http://127.0.0.1:8765") as stream:
        for frame in stream:
            print(frame.number, stream.joints[0], frame.keypoints[:, 0])

Needs numpy and websockets only. A reader that is slower than the server gets the newest frame each time, never a queue
of old ones.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket

from streampose.errors import StreamposeError
from streampose.server.packing import unpack_compact

URL = "http://127.0.0.1:8765"
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)  # pauses before a lost stream is opened again; the last one repeats
OPEN_SECONDS = 10.0
SILENT_SECONDS = 15.0  # a server says something each second; one that is silent for so long is lost
MAX_MESSAGE_BYTES = 16 << 20


class ServerError(StreamposeError):
    """The server cannot be reached, or refuses."""


@dataclass(frozen=True)
class PoseFrame:
    """One frame of the stream.

    Attributes:
        number: counts the session's frames; begins anew when the source or model is exchanged.
        camera: which of the session's cameras.
        pts_seconds: the source's own time.
        latency_ms: from capture to publication.
        size: (width, height) of the source in pixels.
        state: `searching`, `following`, ...
        ids: N subject numbers.
        boxes: (N, 4) what the model looked at, edges in source pixels.
        keypoints: (N, K, 4) x, y, z in source pixels (z relative to the root joint), confidence.
        visibility: (N, K) 2 visible, 1 occluded, 0 absent; None where nobody judged it.
        scene_ids, points, errors_px: M subjects in space, of calibrated cameras: (M, K, 3) metres, (M, K).
        jpeg: the very picture that the keypoints were found in, empty unless it was asked for.
    """

    number: int
    camera: int
    pts_seconds: float
    latency_ms: float
    size: tuple[int, int]
    state: str
    ids: tuple[int, ...]
    boxes: np.ndarray
    keypoints: np.ndarray
    visibility: np.ndarray | None
    scene_ids: tuple[int, ...]
    points: np.ndarray
    errors_px: np.ndarray
    jpeg: bytes = b""


class PoseStream:
    """An open stream; iterate over it, and use it as a context manager. Made by `connect`.

    Attributes:
        hello: what the server said first; begins anew with each connection and each exchange of source or model.
        stats: the server's numbers, about a second old at most; None before the first ones.
    """

    def __init__(self, url: str, options: dict[str, Any], *, token: str | None, certificate: Path | None,
                 reconnect: bool):  # fmt: skip
        self._address = stream_address(url, options)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._tls = tls_for(url, certificate)
        self._reconnect = reconnect
        self._closed = False
        self._open_socket = contextlib.ExitStack()
        self.hello: dict[str, Any] = {}
        self.stats: dict[str, Any] | None = None
        self._socket: ClientConnection | None = self._open()

    @property
    def joints(self) -> list[str]:
        """Names of the K joints."""
        return self.hello["skeleton"]["joints"]

    @property
    def bones(self) -> list[tuple[int, int]]:
        """Pairs of joints between which bones are drawn."""
        return [(parent, child) for parent, child in self.hello["skeleton"]["bones"]]

    def __iter__(self) -> Iterator[PoseFrame]:
        while not self._closed:
            try:
                frame = self._read()
            except (ConnectionClosed, TimeoutError, OSError) as error:
                self._drop()
                if self._closed or not self._reconnect or _refused(error):
                    return
                self._open_again()
                continue
            if frame is not None:
                yield frame

    def close(self) -> None:
        """End the stream; may be called twice and from another thread."""
        self._closed = True
        self._drop()

    def __enter__(self) -> PoseStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> PoseFrame | None:
        """The next frame; None for any other message."""
        socket = self._socket
        if socket is None:
            raise TimeoutError
        received = socket.recv(timeout=SILENT_SECONDS)
        if isinstance(received, str):
            message = json.loads(received)
            if message["type"] == "hello":
                self.hello = message
            elif message["type"] == "stats":
                self.stats = message
            return None
        fields, jpeg = unpack_compact(received)
        socket.send(json.dumps({"type": "ack", "number": fields["number"]}))
        return PoseFrame(**fields, jpeg=jpeg)

    def _open(self) -> ClientConnection:
        try:
            socket = self._open_socket.enter_context(
                open_websocket(
                    self._address, additional_headers=self._headers, ssl=self._tls, open_timeout=OPEN_SECONDS,
                    max_size=MAX_MESSAGE_BYTES, compression=None, proxy=None, max_queue=4,
                )
            )  # fmt: skip
            self.hello = json.loads(socket.recv(timeout=OPEN_SECONDS))
            return socket
        except InvalidStatus as error:
            status = error.response.status_code
            hint = {401: "give its token", 403: "it refuses; give its token, or call it by its address"}.get(status, "")
            raise ServerError(f"{self._shown()}: answered {status}{f'; {hint}' if hint else ''}") from None
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ServerError(f"{self._shown()}: cannot be reached ({error}); is `streampose serve` running?") from None

    def _open_again(self) -> None:
        attempt = 0
        while not self._closed:
            time.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1
            try:
                self._socket = self._open()
                return
            except ServerError:
                continue

    def _drop(self) -> None:
        self._socket = None
        with contextlib.suppress(WebSocketException, OSError):
            self._open_socket.close()

    def _shown(self) -> str:
        return self._address.partition("?")[0]


def connect(
    url: str = URL,
    *,
    token: str | None = None,
    pictures: bool = False,
    camera: int | None = None,
    fps: float | None = None,
    certificate: Path | None = None,
    reconnect: bool = True,
) -> PoseStream:
    """Open the stream of a server.

    Args:
        url: where its page is.
        token: what it printed when it started, where it needs one.
        pictures: also get the JPEG of each frame.
        camera: only this one; None for all of them.
        fps: the most frames a second; None for all.
        certificate: PEM file of the authority, or of the server itself, to trust; None for those of the system.
        reconnect: open a lost stream again, with growing pauses; else iteration ends there.

    Raises:
        ServerError: it cannot be reached, or refuses.
    """
    options = {"format": "compact", "ack": 1, "video": "jpeg" if pictures else "none", "camera": camera, "fps": fps}
    return PoseStream(url, options, token=token, certificate=certificate, reconnect=reconnect)


def find_poses(
    data: bytes | Path,
    url: str = URL,
    *,
    token: str | None = None,
    model: str | None = None,
    certificate: Path | None = None,
    timeout_seconds: float = 120.0,
) -> dict[str, Any]:
    """Send a picture or a short video and get its poses: the `PoseMessage` of `server/messages.py`.

    Raises:
        ServerError: it cannot be reached, or refuses; the text says why.
    """
    address = f"{url.rstrip('/')}/v1/pose" + (f"?model={quote(model)}" if model else "")
    headers = {"Content-Type": "application/octet-stream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    body = data if isinstance(data, bytes) else Path(data).read_bytes()
    request = urllib.request.Request(address, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds, context=tls_for(url, certificate)) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ServerError(f"{address}: {error.code}: {_detail(error.read())}") from None
    except (urllib.error.URLError, OSError) as error:
        raise ServerError(f"{address}: cannot be reached ({error}); is `streampose serve` running?") from None


def stream_address(url: str, options: dict[str, Any]) -> str:
    """The WebSocket address of the server whose page is at `url`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.netloc:
        raise ServerError(f"{url}: not an address of a server, such as {URL}")
    scheme = "wss" if parts.scheme in ("https", "wss") else "ws"
    query = urlencode({name: value for name, value in options.items() if value is not None})
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/v1/stream?{query}"


def tls_for(url: str, certificate: Path | None) -> ssl.SSLContext | None:
    """What to trust; None where the address is not encrypted."""
    if not url.startswith(("https:", "wss:")):
        return None
    return ssl.create_default_context(cafile=None if certificate is None else str(certificate))


def _refused(error: Exception) -> bool:
    """Whether the server does not want this client; trying again would not help."""
    return isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == 1008


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
