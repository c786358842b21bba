"""The HTTP and WebSocket face of a live session: the page, the stream, status and health."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any, Literal

import anyio
from fastapi import FastAPI, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

import streampose
from streampose.server.guard import Guard
from streampose.server.messages import (
    FrameMessage,
    HelloMessage,
    LatencyMessage,
    SkeletonMessage,
    StatsMessage,
    describe_skeleton,
    pack_frame,
)
from streampose.server.results import Result, Timings
from streampose.server.session import Session

WEB = Path(__file__).parent / "web"
MAX_CLIENTS = 256
UNDER_WAY = 2  # frames sent and not yet acknowledged by a client that acknowledges
SEND_SECONDS = 10.0  # a client that takes nothing for so long is cut off


def create_app(session: Session, host: str = "127.0.0.1") -> FastAPI:
    """The application around a started session.

    Args:
        host: the address it will be bound to; decides which Host headers are welcome.
    """
    app = FastAPI(title="streampose", version=streampose.__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, host=host)
    clients: set[Client] = set()

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(WEB / "index.html")

    app.mount("/static", StaticFiles(directory=WEB), name="static")

    @app.get("/v1/status")
    def status() -> StatsMessage:
        """State, rates, latencies and counts."""
        return session.stats()

    @app.get("/v1/skeleton")
    def skeleton() -> SkeletonMessage:
        """Joints and bones of the model being served."""
        return describe_skeleton(session.predictor.skeleton)

    @app.get("/v1/schema")
    def schema() -> dict[str, Any]:
        """JSON Schema of the messages of `WS /v1/stream`, which OpenAPI has no place for."""
        return {model.__name__: model.model_json_schema() for model in (HelloMessage, FrameMessage, StatsMessage)}

    @app.get("/healthz")
    def healthy(response: Response) -> dict[str, str]:
        """200 while the process does its work, 503 once the session has failed."""
        if session.failure is not None:
            response.status_code = 503
            return {"status": "failed", "error": str(session.failure)}
        return {"status": "ok"}

    @app.get("/readyz")
    def ready(response: Response) -> dict[str, str]:
        """200 while poses are being published, 503 before the first one and while the source is lost."""
        response.status_code = 200 if session.ready else 503
        return {"status": "ready" if session.ready else session.stats().state}

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket, video: Literal["jpeg", "none"] = "none", ack: bool = False) -> None:
        if len(clients) >= MAX_CLIENTS:
            await socket.close(1013, f"{MAX_CLIENTS} clients are connected already")
            return
        await socket.accept()
        client = Client(socket, session, video=video == "jpeg", ack=ack)
        clients.add(client)
        try:
            await client.run()
        finally:
            clients.discard(client)

    return app


class Client:
    """One open stream: sends the newest result whenever the client can take one, and numbers once a second."""

    def __init__(self, socket: WebSocket, session: Session, *, video: bool, ack: bool):
        self._socket, self._session, self._video, self._ack = socket, session, video, ack
        self._wake = asyncio.Event()
        self._under_way: dict[int, float] = {}
        self._shown = Timings(keep=1000)
        loop = asyncio.get_running_loop()

        def notify() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake.set)

        self._slot = session.subscribe(notify)

    async def run(self) -> None:
        """Serve until the client leaves, takes nothing any more, or the session ends."""
        try:
            async with anyio.create_task_group() as group:

                async def until_left() -> None:
                    await self._receive()
                    group.cancel_scope.cancel()

                group.start_soon(until_left)
                with contextlib.suppress(WebSocketDisconnect, TimeoutError):
                    await self._send()
                group.cancel_scope.cancel()
        finally:
            self._session.unsubscribe(self._slot)

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            number, shown = _acknowledged(message.get("text"))
            captured_at = self._under_way.pop(number, None)
            if captured_at is not None:
                now = time.monotonic()
                if shown:
                    self._shown.add(now, 1000.0 * (now - captured_at))
                self._wake.set()

    async def _send(self) -> None:
        session = self._session
        hello = HelloMessage(
            version=streampose.__version__,
            skeleton=describe_skeleton(session.predictor.skeleton),
            **session.names._asdict(),
        )
        await self._text(hello.model_dump_json())
        stats_at = time.monotonic()
        while True:
            self._wake.clear()
            may_send = not self._ack or len(self._under_way) < UNDER_WAY
            result = self._slot.take() if may_send else None
            if result is not None:
                await self._frame(result)
            if time.monotonic() >= stats_at or session.done.is_set():
                stats_at += 1.0
                await self._text(self._stats().model_dump_json())
            if session.done.is_set():
                await self._socket.close(1001, "the session ended")
                return
            with anyio.move_on_after(max(0.0, stats_at - time.monotonic())):
                await self._wake.wait()

    async def _frame(self, result: Result) -> None:
        if self._ack:
            self._under_way[result.number] = result.captured_at
        if not self._video:
            await self._text(result.message())
            return
        jpeg = await anyio.to_thread.run_sync(result.jpeg)
        with anyio.fail_after(SEND_SECONDS):
            await self._socket.send_bytes(pack_frame(result.message(), jpeg))

    async def _text(self, text: str) -> None:
        with anyio.fail_after(SEND_SECONDS):
            await self._socket.send_text(text)

    def _stats(self) -> StatsMessage:
        shown: LatencyMessage | None = self._shown.percentiles(time.monotonic() - 10.0) if self._ack else None
        return self._session.stats().model_copy(update={"shown_latency_ms": shown, "skipped": self._slot.skipped})


def _acknowledged(text: str | None) -> tuple[int, bool]:
    """(frame number, whether it was shown) of an `ack` message; number -1 for anything else, which is ignored."""
    try:
        message = json.loads(text) if text is not None and len(text) <= 200 else None
    except ValueError:
        message = None
    if not isinstance(message, dict) or message.get("type") != "ack" or not isinstance(message.get("number"), int):
        return -1, False
    return message["number"], message.get("shown") is not False
