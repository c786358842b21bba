"""A small RTSP server for tests: plays a transport stream over and over, over TCP, and can be killed and restarted."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

PACKET, PACKETS = 188, 7
SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"


class RtspServer:
    """Serves `rtsp://127.0.0.1:PORT/camera`.

    Args:
        data: of an MPEG transport stream.
        seconds: that it lasts, at its own pace.
        port: 0 for any free one.
        damage: changes each payload before it is sent; b"" loses it.
    """

    def __init__(
        self, data: bytes, seconds: float, port: int = 0, damage: Callable[[int, bytes], bytes] = lambda n, data: data
    ):
        self._payloads = [data[i : i + PACKET * PACKETS] for i in range(0, len(data), PACKET * PACKETS)]
        self._pause, self._damage = seconds / len(self._payloads), damage
        self._stop = threading.Event()
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.sessions = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/camera"
        self._start(self._accept)

    def kill(self) -> None:
        """End at once, as a process that is killed: connections are reset."""
        self._stop.set()
        for client in (*self._clients, self._listener):
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.shutdown(socket.SHUT_RDWR)
            client.close()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            self._start(self._answer, client)

    def _answer(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            buffer = b""
            while not self._stop.is_set():
                received = client.recv(4096)
                if not received:
                    return
                buffer += received
                while b"\r\n\r\n" in buffer:
                    request, _, buffer = buffer.partition(b"\r\n\r\n")
                    self._reply(client, request.decode("latin-1"))

    def _reply(self, client: socket.socket, request: str) -> None:
        method = request.split()[0] if request.split() else ""
        if method not in ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN", "GET_PARAMETER"):
            return
        number = next(line.split(":")[1].strip() for line in request.split("\r\n") if line.lower().startswith("cseq"))
        head = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1\r\n"
        body = SDP if method == "DESCRIBE" else ""
        more = {
            "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Base: {self.url}/\r\n"
            f"Content-Length: {len(body)}\r\n",
            "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
        }.get(method, "")
        client.sendall((head + more + "\r\n" + body).encode())
        if method == "PLAY":
            self.sessions += 1
            self._start(self._play, client)

    def _play(self, client: socket.socket) -> None:
        number = 0
        with contextlib.suppress(OSError):
            while not self._stop.wait(self._pause):
                payload = self._damage(number, self._payloads[number % len(self._payloads)])
                rtp = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, (number * 900) & 0xFFFFFFFF, 1) + payload
                if payload:
                    client.sendall(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
                number += 1
