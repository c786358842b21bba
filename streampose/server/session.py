"""The live path: capture -> find or follow the subjects -> infer -> smooth -> publish, always on the newest frame.

One thread per session infers; the source captures in its own. No queue grows anywhere: the source keeps only its newest
frame, and each subscriber has a slot of size one that is overwritten. What is skipped is counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import VideoError
from streampose.server.follow import Follower
from streampose.server.messages import FrameMessage, LatencyMessage, State, StatsMessage, SubjectMessage
from streampose.structures import Keypoints, Skeleton
from streampose.tracking.one_euro import OneEuroFilter

JPEG_WIDTH = 960  # pictures are sent at most so wide
JPEG_QUALITY = 80
WINDOW_SECONDS = 10.0  # the live numbers look back so far
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 5.0)  # pauses between attempts to open a lost source again
SMOOTHING_CUTOFF = 1.5  # Hz, of a joint that stands still
SMOOTHING_BETA = 12.0  # Hz per (box side per second)


class LiveFrame(Protocol):
    """What a source gives: the picture and when it was captured (`time.monotonic()`)."""

    image: np.ndarray
    captured_at: float
    number: int
    pts_seconds: float


class Source(Protocol):
    """A live source as `video.live.open_source` opens it."""

    @property
    def dropped(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    @property
    def error(self) -> Any: ...
    def latest(self, after: int, timeout: float) -> Any: ...
    def close(self) -> None: ...


class Predictor(Protocol):
    """A loaded bundle as `runtime.predictor.load_predictor` gives it."""

    skeleton: Skeleton

    def predict(self, image: np.ndarray, boxes: np.ndarray) -> Keypoints: ...


@dataclass(frozen=True)
class Result:
    """One published frame.

    Attributes:
        number: counts published frames from 1 through the whole session, over reconnects.
        image: (H, W, 3) uint8 RGB, the very picture the keypoints were found in.
        boxes: (N, 4) what the network looked at, square edges in source pixels.
        ids: N subject numbers.
        keypoints: N subjects, smoothed.
        captured_at, published_at: `time.monotonic()` seconds.
    """

    number: int
    pts_seconds: float
    image: np.ndarray
    boxes: np.ndarray
    ids: tuple[int, ...]
    keypoints: Keypoints
    state: State
    captured_at: float
    published_at: float
    _encoded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def latency_ms(self) -> float:
        return 1000.0 * (self.published_at - self.captured_at)

    def message(self) -> str:
        """The `frame` message as JSON; made once, however many clients there are."""
        with self._lock:
            if "message" not in self._encoded:
                self._encoded["message"] = self._frame_message().model_dump_json()
            return self._encoded["message"]

    def jpeg(self) -> bytes:
        """The picture, at most `JPEG_WIDTH` wide; made once, and only if a client wants it."""
        with self._lock:
            if "jpeg" not in self._encoded:
                image = self.image
                height, width = image.shape[:2]
                if width > JPEG_WIDTH:
                    size = (JPEG_WIDTH, max(1, round(height * JPEG_WIDTH / width)))
                    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                self._encoded["jpeg"] = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
            return self._encoded["jpeg"]

    def _frame_message(self) -> FrameMessage:
        keypoints = self.keypoints
        z = np.zeros_like(keypoints.confidence) if keypoints.z is None else keypoints.z
        rows = np.concatenate([keypoints.xy, z[..., None], keypoints.confidence[..., None]], -1).astype(float)
        rows[..., :3], rows[..., 3] = np.round(rows[..., :3], 2), np.round(rows[..., 3], 3)
        height, width = self.image.shape[:2]
        return FrameMessage(
            number=self.number,
            pts_seconds=round(self.pts_seconds, 4),
            latency_ms=round(self.latency_ms, 2),
            size=(width, height),
            state=self.state,
            subjects=[
                SubjectMessage(id=id_, box=np.round(box.astype(float), 1).tolist(), keypoints=points.tolist())
                for id_, box, points in zip(self.ids, self.boxes, rows, strict=True)
            ],
        )


class Names(NamedTuple):
    """What a session works with, as people should read it."""

    source: str
    model: str
    runtime: str


class Slot:
    """A subscriber's slot of size one: the newest result replaces the one that was not taken, which is counted."""

    def __init__(self, notify: Callable[[], None] | None = None):
        self._notify = notify
        self._ready = threading.Condition()
        self._result: Result | None = None
        self.skipped = 0

    def put(self, result: Result) -> None:
        with self._ready:
            self.skipped += self._result is not None
            self._result = result
            self._ready.notify()
        self.wake()

    def wake(self) -> None:
        """Tell the subscriber to look: something was put, or the session ended."""
        if self._notify is not None:
            self._notify()

    def take(self, timeout: float | None = 0.0) -> Result | None:
        """The newest result that was not taken yet; waits up to `timeout` seconds for one (None: for ever)."""
        with self._ready:
            if self._result is None and timeout != 0.0:
                self._ready.wait_for(lambda: self._result is not None, timeout)
            result, self._result = self._result, None
            return result


class Timings:
    """Recent durations by name, with their percentiles; bounded, so that hours cost no memory."""

    def __init__(self, keep: int = 20_000):
        self._values: deque[tuple[float, float]] = deque(maxlen=keep)

    def add(self, now: float, milliseconds: float) -> None:
        self._values.append((now, milliseconds))

    def percentiles(self, since: float = -np.inf) -> LatencyMessage:
        values = [value for at, value in tuple(self._values) if at >= since]
        if not values:
            return LatencyMessage()
        p50, p95, p99 = (round(float(v), 2) for v in np.percentile(values, (50, 95, 99)))
        return LatencyMessage(p50=p50, p95=p95, p99=p99)

    def rate(self, now: float) -> float:
        """Events a second over the last two seconds."""
        recent = [at for at, _ in tuple(self._values)[-500:] if at >= now - 2.0]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0


class Session:
    """Runs the live path in a thread and hands its results to subscribers.

    Args:
        open_source: opens the source; called once by `start` (its VideoError passes through) and again after a loss.
        predictor: the loaded model.
        follower: chooses the boxes.
        smooth: apply the one-euro filter.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        predictor: Predictor,
        follower: Follower,
        *,
        names: Names,
        smooth: bool = True,
    ):
        self.predictor, self.names = predictor, names
        self._open_source, self._follower, self._smooth = open_source, follower, smooth
        self._filters: dict[int, OneEuroFilter] = {}
        self._slots: list[Slot] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.done = threading.Event()
        self.failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._source: Source | None = None
        self._state: State = "starting"
        self._error: str | None = None
        self._started_at = self._ended_at = time.monotonic()
        self._captures: deque[tuple[float, int]] = deque(maxlen=200)
        self._published = self._captured = self._dropped = self._reconnects = 0
        self._latency = Timings()
        self._stages = {name: Timings() for name in ("wait", "find", "infer", "smooth")}

    def start(self) -> None:
        """Open the source and begin.

        Raises:
            VideoError: the source cannot be opened.
        """
        self._source = self._open_source()
        self._started_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="streampose-infer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the session and wait for its threads; may be called twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def subscribe(self, notify: Callable[[], None] | None = None) -> Slot:
        """A new slot for results; `notify` is called from the inference thread after each put and must not block."""
        slot = Slot(notify)
        with self._lock:
            self._slots.append(slot)
        return slot

    def unsubscribe(self, slot: Slot) -> None:
        with self._lock:
            if slot in self._slots:
                self._slots.remove(slot)

    @property
    def published(self) -> int:
        return self._published

    @property
    def ready(self) -> bool:
        """True when a frame was published and the source is not lost."""
        return self._published > 0 and self._state in ("searching", "following")

    def stats(self, *, whole: bool = False) -> StatsMessage:
        """Numbers of the last ten seconds, or of the whole session (its last 20,000 frames)."""
        now = self._ended_at if self.done.is_set() else time.monotonic()
        since = -np.inf if whole else now - WINDOW_SECONDS
        seconds = max(now - self._started_at, 1e-6)
        with self._lock:
            clients = len(self._slots)
            captured, dropped = self._captured, self._dropped
            if self._source is not None:
                captured, dropped = captured + self._source.dropped, dropped + self._source.dropped
        fps = self._published / seconds if whole else self._latency.rate(now)
        return StatsMessage(
            state=self._state, error=self._error, **self.names._asdict(),
            capture_fps=round(captured / seconds if whole else self._capture_rate(now), 2), inference_fps=round(fps, 2),
            latency_ms=self._latency.percentiles(since),
            stages_ms={name: timings.percentiles(since) for name, timings in self._stages.items()},
            captured=captured, published=self._published, dropped=dropped, reconnects=self._reconnects,
            clients=clients, seconds=round(seconds, 2),
        )  # fmt: skip

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self._source is None and not self._reconnect():
                    break
                if not self._drain():
                    break
            self._state = "ended"
        except BaseException as failure:
            self.failure, self._state, self._error = failure, "failed", str(failure) or type(failure).__name__
            logger.exception("the live session ended")
        finally:
            self._ended_at = time.monotonic()
            self._close_source()
            self.done.set()
            with self._lock:
                slots = list(self._slots)
            for slot in slots:  # wake those who wait, so that they see the end
                slot.wake()

    def _drain(self) -> bool:
        """Process the open source until it ends; False when there is nothing more to come."""
        source, number = self._source, -1
        assert source is not None
        self._captures.clear()  # frame numbers begin anew with each opening
        while not self._stop.is_set():
            frame = source.latest(after=number, timeout=0.25)
            if frame is not None:
                number = frame.number
                self._captures.append((frame.captured_at, number))
                self._process(frame)
            elif source.ended:
                if source.error is None:
                    return False
                self._error = str(source.error)
                self._close_source()
                return True
        return False

    def _process(self, frame: Any) -> None:
        begun = time.monotonic()
        boxes = self._follower.boxes(frame.image)
        found = time.monotonic()
        keypoints = self.predictor.predict(frame.image, boxes) if len(boxes) else self._nobody()
        inferred = time.monotonic()
        kept = self._follower.update(keypoints)
        ids = tuple(subject.id for subject in self._follower.subjects)
        keypoints = _select(keypoints, kept)
        if self._smooth:
            keypoints = self._smoothed(keypoints, ids, boxes[kept], frame.captured_at)
        self._state = "following" if ids else "searching"
        self._error = None
        now = time.monotonic()
        self._published += 1
        self._captured += 1
        result = Result(
            self._published, frame.pts_seconds, frame.image, boxes[kept], ids, keypoints, self._state,
            frame.captured_at, now,
        )  # fmt: skip
        with self._lock:
            slots = list(self._slots)
        for slot in slots:
            slot.put(result)
        self._latency.add(now, result.latency_ms)
        marks = (frame.captured_at, begun, found, inferred, now)
        for timings, start, end in zip(self._stages.values(), marks, marks[1:], strict=False):
            timings.add(now, 1000.0 * (end - start))
        self._follower.learn(frame.image)

    def _nobody(self) -> Keypoints:
        K = self.predictor.skeleton.num_joints
        return Keypoints(np.zeros((0, K, 2)), np.zeros((0, K)), np.zeros((0, K)))

    def _smoothed(self, keypoints: Keypoints, ids: tuple[int, ...], boxes: np.ndarray, at: float) -> Keypoints:
        xy, z = keypoints.xy.astype(float), None if keypoints.z is None else keypoints.z.astype(float)
        for i, id_ in enumerate(ids):
            if id_ not in self._filters:
                side = float(boxes[i][2] - boxes[i][0])
                self._filters[id_] = OneEuroFilter(min_cutoff=SMOOTHING_CUTOFF, beta=SMOOTHING_BETA / side)
            points = xy[i] if z is None else np.concatenate([xy[i], z[i][:, None]], -1)
            points = self._filters[id_].apply(points, at)
            xy[i] = points[:, :2]
            if z is not None:
                z[i] = points[:, 2]
        self._filters = {id_: self._filters[id_] for id_ in ids}
        return Keypoints(xy, keypoints.confidence, z)

    def _capture_rate(self, now: float) -> float:
        recent = [(at, n) for at, n in tuple(self._captures) if at >= now - 2.0]
        if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
            return 0.0
        return (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0])

    def _reconnect(self) -> bool:
        """Open the lost source again, with growing pauses; False when the session was stopped meanwhile."""
        self._state = "reconnecting"
        logger.warning("%s: lost (%s); trying to reconnect", self.names.source, self._error)
        attempt = 0
        while not self._stop.wait(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]):
            attempt += 1
            try:
                self._source = self._open_source()
            except VideoError as error:
                self._error = str(error)
                continue
            self._reconnects += 1
            self._filters = {}
            self._follower.subjects.clear()
            logger.info("%s: back after %d attempts", self.names.source, attempt)
            return True
        return False

    def _close_source(self) -> None:
        source = self._source
        if source is None:
            return
        source.close()
        with self._lock:
            self._source = None
            self._dropped += source.dropped
            self._captured += source.dropped


def _select(keypoints: Keypoints, kept: np.ndarray) -> Keypoints:
    z = None if keypoints.z is None else keypoints.z[kept]
    return Keypoints(keypoints.xy[kept], keypoints.confidence[kept], z)
