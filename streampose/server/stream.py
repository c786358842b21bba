"""The stream: one broadcast gives each result to all clients; each takes the newest when it can, and slows nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from typing import Literal, NamedTuple

import anyio
import numpy as np
from fastapi import WebSocket, WebSocketDisconnect

import streampose
from streampose.server.messages import HelloMessage, LatencyMessage, StatsMessage, describe_skeleton
from streampose.server.packing import pack_compact, pack_frame
from streampose.server.results import Result, Timings
from streampose.server.session import Session
from streampose.server.stage import Stage

UNDER_WAY = 2  # frames sent and not yet acknowledged by a client that acknowledges
SEND_SECONDS = 10.0  # a client that takes nothing for so long is cut off
TICK_SECONDS = 0.25  # between looks after the clients
STATS_SECONDS = 0.5  # for so long the numbers are good for all clients
MESSAGES_A_SECOND = 500  # of a client; one that sends more is cut off
LATENCY_BUCKETS = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 75.0, 100.0, 150.0, 250.0, 500.0, 1000.0)  # ms


class Options(NamedTuple):
    """What a client asked for: `fps` is the most frames a second, `camera` None for all of them."""

    video: Literal["jpeg", "none"] = "none"
    format: Literal["json", "compact"] = "json"
    ack: bool = False
    fps: float | None = None
    camera: int | None = None


class Encoded:
    """A result in the forms that clients ask for; each is made once, however many clients there are."""

    def __init__(self, result: Result, pictures: bool):
        self.result = result
        self._pictures = pictures
        self._made: dict[tuple[str, str], asyncio.Future[str | bytes]] = {}

    async def message(self, video: str, form: str) -> str | bytes:
        """Text for JSON without a picture, else bytes."""
        key = (video if self._pictures else f"no {video}", form)
        if key not in self._made:
            self._made[key] = asyncio.ensure_future(self._make(video, form))
        return await asyncio.shield(self._made[key])

    async def _make(self, video: str, form: str) -> str | bytes:
        jpeg = b""
        if video == "jpeg" and self._pictures:
            jpeg = await anyio.to_thread.run_sync(self.result.jpeg)
        if form == "compact":
            return compact(self.result, jpeg)
        return pack_frame(self.result.message(), jpeg) if video == "jpeg" else self.result.message()


def compact(result: Result, jpeg: bytes = b"") -> bytes:
    """A result as a compact frame; see `packing`."""
    keypoints, scene = result.keypoints, result.scene
    z = np.zeros_like(keypoints.confidence) if keypoints.z is None else keypoints.z
    height, width = result.image.shape[:2]
    return pack_compact(
        number=result.number,
        pts_seconds=result.pts_seconds,
        latency_ms=result.latency_ms,
        size=(width, height),
        state=result.state,
        camera=result.camera,
        ids=result.ids,
        boxes=result.boxes,
        keypoints=np.concatenate([keypoints.xy, z[..., None], keypoints.confidence[..., None]], -1),
        visibility=result.visibility,
        scene_ids=() if scene is None else scene.ids,
        points=None if scene is None else scene.points,
        errors_px=None if scene is None else scene.errors_px,
        jpeg=jpeg,
    )


class Counts:
    """What the server did since its start, for the metrics."""

    def __init__(self) -> None:
        self.frames_sent = self.bytes_sent = self.frames_skipped = self.refused = self.cut_off = 0
        self.latency_buckets = [0] * (len(LATENCY_BUCKETS) + 1)
        self.latency_ms = 0.0

    def add_latency(self, milliseconds: float) -> None:
        self.latency_buckets[bisect_left(LATENCY_BUCKETS, milliseconds)] += 1
        self.latency_ms += milliseconds


class Broadcast:
    """Takes each result from the session and wakes the clients; lives in the event loop.

    Attributes:
        session: the one that is on.
        latest: camera -> the newest result and how many there have been.
    """

    def __init__(self, stage: Stage):
        self.stage, self.counts = stage, Counts()
        self.clients: set[Client] = set()
        self.session: Session = stage.session
        self.latest: dict[int, tuple[Encoded, int]] = {}
        self._stats: tuple[float, StatsMessage] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._close: Callable[[], None] = lambda: None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Broadcast]:
        """Within this, in the event loop, results flow."""
        self._loop = asyncio.get_running_loop()
        self.stage.listeners.append(self._exchanged)
        self._subscribe()
        ticks = asyncio.create_task(self._tick())
        try:
            yield self
        finally:
            ticks.cancel()
            self.stage.listeners.remove(self._exchanged)
            self._close()
            self._loop = None

    def stats(self) -> StatsMessage:
        """The numbers, at most half a second old, so that many who ask cost no more than one."""
        now, session = time.monotonic(), self.session
        if self._stats is None or now - self._stats[0] > STATS_SECONDS or session.done.is_set():
            self._stats = (now, session.stats())
        return self._stats[1].model_copy(update={"clients": len(self.clients)})

    def _call(self, function: Callable[[], None]) -> None:
        """Call something in the event loop, from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it was closed this very moment
                loop.call_soon_threadsafe(function)

    def _exchanged(self) -> None:
        self._call(self._subscribe)

    def _subscribe(self) -> None:
        self._close()
        session = self.session = self.stage.session
        slot = session.subscribe(lambda: self._call(take))
        self._close = lambda: session.unsubscribe(slot)
        self.latest, self._stats = {}, None
        missed = 0  # results that were replaced before the event loop came to take them

        def take() -> None:
            nonlocal missed
            while session is self.session and (result := slot.take()) is not None:
                count = self.latest[result.camera][1] if result.camera in self.latest else 0
                count, missed = count + 1 + slot.skipped - missed, slot.skipped
                self.latest[result.camera] = (Encoded(result, not self.stage.private), count)
                self.counts.add_latency(result.latency_ms)
            self._wake()

        take()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for client in list(self.clients):
                client.look_after(now)

    def _wake(self) -> None:
        for client in self.clients:
            client.wake.set()


class Client:
    """One open stream: sends the newest result whenever the client can take one, and numbers once a second."""

    def __init__(self, socket: WebSocket, broadcast: Broadcast, options: Options):
        self._socket, self._broadcast, self._options = socket, broadcast, options
        self.wake = asyncio.Event()
        self._session: Session | None = None
        self.sending_since: float | None = None
        self._scope = anyio.CancelScope()
        self._under_way: dict[int, float] = {}
        self._sent: dict[int, int] = {}  # camera -> how many of its frames were there when one was sent last
        self._skipped = 0
        self._shown = Timings(keep=1000)

    async def run(self) -> None:
        """Serve until the client leaves, takes nothing any more, or the session ends."""
        self._broadcast.clients.add(self)
        try:
            await self._socket.accept()
            async with anyio.create_task_group() as group:

                async def until_left() -> None:
                    await self._receive()
                    group.cancel_scope.cancel()

                self._scope = group.cancel_scope
                group.start_soon(until_left)
                try:
                    await self._send()
                except (WebSocketDisconnect, RuntimeError) as error:
                    if isinstance(error, RuntimeError) and "close" not in str(error):
                        raise
                group.cancel_scope.cancel()
        finally:
            self._broadcast.clients.discard(self)

    def look_after(self, now: float) -> None:
        """Called now and then: wake up for the numbers, and cut off a client that takes nothing any more."""
        if self.sending_since is None:
            self.wake.set()
        elif now - self.sending_since > SEND_SECONDS:
            self._broadcast.counts.cut_off += 1
            self._scope.cancel()

    async def _receive(self) -> None:
        window, messages = time.monotonic(), 0
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            now = time.monotonic()
            if now - window > 1.0:
                window, messages = now, 0
            messages += 1
            if messages > MESSAGES_A_SECOND:
                self._broadcast.counts.cut_off += 1
                await self._socket.close(1008, f"more than {MESSAGES_A_SECOND} messages a second")
                return
            number, shown = _acknowledged(message.get("text"))
            captured_at = self._under_way.pop(number, None)
            if captured_at is not None:
                if shown:
                    self._shown.add(now, 1000.0 * (now - captured_at))
                self.wake.set()

    async def _send(self) -> None:
        stats_at = next_at = time.monotonic()
        gap = 0.0 if self._options.fps is None else 1.0 / self._options.fps
        while True:
            self.wake.clear()
            if self._session is not self._broadcast.session:
                await self._hello(self._broadcast.session)
                stats_at = time.monotonic()
            now = time.monotonic()
            if now >= next_at and (encoded := self._next()) is not None:
                next_at = max(next_at + gap, now)
                await self._frame(encoded)
                now = time.monotonic()
            ended = self._broadcast.stage.done
            if now >= stats_at or ended:
                stats_at = max(stats_at + 1.0, now)
                await self._put(self._stats().model_dump_json(exclude_none=True))
            if ended and self._session is self._broadcast.session:
                await self._socket.close(1001, "the session ended")
                return
            if gap and next_at > now:
                await asyncio.sleep(min(next_at - now, TICK_SECONDS))
            elif not self._waiting():
                await self.wake.wait()

    def _waiting(self) -> bool:
        """Whether a frame could be sent at once."""
        if self._options.ack and len(self._under_way) >= UNDER_WAY:
            return False
        return any(count > self._sent.get(camera, 0) for camera, (_, count) in self._wanted())

    def _wanted(self) -> list[tuple[int, tuple[Encoded, int]]]:
        camera = self._options.camera
        return [item for item in self._broadcast.latest.items() if camera is None or item[0] == camera]

    def _next(self) -> Encoded | None:
        """The newest frame that was not sent yet, of the camera that has waited longest."""
        if not self._waiting():
            return None
        fresh = [
            (encoded.result.number, camera, encoded, count)
            for camera, (encoded, count) in self._wanted()
            if count > self._sent.get(camera, 0)
        ]
        _, camera, encoded, count = min(fresh, key=lambda entry: entry[0])
        skipped = count - self._sent[camera] - 1 if camera in self._sent else 0
        self._skipped += skipped
        self._broadcast.counts.frames_skipped += skipped
        self._sent[camera] = count
        return encoded

    async def _hello(self, session: Session) -> None:
        self._session, self._under_way, self._sent = session, {}, {}
        broadcast = self._broadcast
        cameras = [camera.name for camera in broadcast.stats().cameras] or [session.names.source]
        hello = HelloMessage(
            version=streampose.__version__,
            skeleton=describe_skeleton(session.predictor.skeleton),
            cameras=cameras,
            pictures=not broadcast.stage.private,
            recordings=broadcast.stage.recordings is not None,
            **session.names._asdict(),
        )
        await self._put(hello.model_dump_json())

    async def _frame(self, encoded: Encoded) -> None:
        result = encoded.result
        if self._options.ack:
            self._under_way[result.number] = result.captured_at
        await self._put(await encoded.message(self._options.video, self._options.format))
        self._broadcast.counts.frames_sent += 1

    async def _put(self, message: str | bytes) -> None:
        self._broadcast.counts.bytes_sent += len(message)
        self.sending_since = time.monotonic()
        if isinstance(message, str):
            await self._socket.send_text(message)
        else:
            await self._socket.send_bytes(message)
        self.sending_since = None

    def _stats(self) -> StatsMessage:
        shown: LatencyMessage | None = None
        if self._options.ack:
            shown = self._shown.percentiles(time.monotonic() - 10.0)
        return self._broadcast.stats().model_copy(update={"shown_latency_ms": shown, "skipped": self._skipped})


def _acknowledged(text: str | None) -> tuple[int, bool]:
    """(frame number, whether it was shown) of an `ack` message; number -1 for anything else, which is ignored."""
    try:
        message = json.loads(text) if text is not None and len(text) <= 200 else None
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or message.get("type") != "ack" or not isinstance(message.get("number"), int):
        return -1, False
    return message["number"], message.get("shown") is not False
