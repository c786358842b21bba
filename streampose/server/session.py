"""The live path: capture -> find or follow the subjects -> infer -> smooth -> publish, always on the newest frame.

One thread per session infers; the source captures in its own. No queue grows anywhere: the source keeps only its newest
frame, and each subscriber has a slot of size one that is overwritten. What is skipped is counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from streampose.console import logger
from streampose.errors import VideoError
from streampose.runtime.predictor import box_from_keypoints, load_predictor
from streampose.server.follow import Follower
from streampose.server.messages import State, StatsMessage
from streampose.server.motion import MotionFinder
from streampose.server.results import Result, Slot, Timings
from streampose.structures import Keypoints, Skeleton
from streampose.tracking.one_euro import OneEuroFilter
from streampose.video.live import LiveFrame, open_source

WINDOW_SECONDS = 10.0  # the live numbers look back so far
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 5.0)  # pauses between attempts to open a lost source again
STOP_SECONDS = 2.0  # to end; a source that waits for its network may take longer and is left to end by itself
SMOOTHING_CUTOFF = 1.5  # Hz, of a joint that stands still
SMOOTHING_BETA = 12.0  # Hz per (box side per second)


class Source(Protocol):
    """A live source as `video.live.open_source` opens it."""

    name: str

    @property
    def dropped(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    @property
    def error(self) -> str | None: ...
    def latest(self, after: int, timeout: float) -> LiveFrame | None: ...
    def close(self) -> None: ...


class Predictor(Protocol):
    """A loaded bundle as `runtime.predictor.load_predictor` gives it."""

    @property
    def skeleton(self) -> Skeleton: ...
    def predict(self, image: np.ndarray, boxes: np.ndarray) -> Keypoints: ...


class Names(NamedTuple):
    """What a session works with, as people should read it."""

    source: str
    model: str
    runtime: str


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
        self.names = self.names._replace(source=self._source.name)
        self._started_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="streampose-infer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the session and wait for its threads, though not for a network that hangs; may be called twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=STOP_SECONDS)

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
            self.done.set()
            with self._lock:
                slots = list(self._slots)
            for slot in slots:  # wake those who wait, so that they see the end
                slot.wake()
            self._close_source()  # last: a source that waits for the network closes when that gives up

    def _drain(self) -> bool:
        """Process the open source until it ends; False when there is nothing more to come."""
        source, number = self._source, 0
        assert source is not None
        self._captures.clear()  # frame numbers begin anew with each opening
        while not self._stop.is_set():
            frame = source.latest(after=number, timeout=0.25)
            if frame is not None:
                number = frame.number
                if self._state == "reconnecting":
                    self._reconnects += 1
                self._captures.append((frame.captured_at, number))
                self._process(frame)
            elif source.ended:
                if source.error is None:
                    return False
                logger.warning("%s: lost (%s); opening it again", self.names.source, source.error)
                self._lose(source.error)
                self._close_source()
                return True
            elif source.error is not None:  # the source is opening itself again
                self._lose(source.error)
        return False

    def _process(self, frame: LiveFrame) -> None:
        begun = time.monotonic()
        boxes = self._follower.boxes(frame.image)
        found = time.monotonic()
        keypoints = self.predictor.predict(frame.image, boxes) if len(boxes) else self._nobody()
        inferred = time.monotonic()
        kept = self._follower.update(keypoints)
        ids = tuple(subject.id for subject in self._follower.subjects)
        keypoints = keypoints.pick(kept)
        if self._smooth:
            keypoints = self._smoothed(keypoints, ids, boxes[kept], frame.captured_at)
        self._state = "following" if any(subject.sure for subject in self._follower.subjects) else "searching"
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

    def _lose(self, error: str) -> None:
        """No pictures come for the time being; whoever was followed has moved on when they come again."""
        if self._state != "reconnecting":
            self._follower.subjects.clear()
            self._filters = {}
        self._state, self._error = "reconnecting", error

    def _reconnect(self) -> bool:
        """Open the lost source again, with growing pauses; False when the session was stopped meanwhile."""
        attempt = 0
        while not self._stop.wait(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]):
            attempt += 1
            try:
                self._source = self._open_source()
            except VideoError as error:
                self._error = str(error)
                continue
            logger.info("%s: open again after %d attempts", self.names.source, attempt)
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


def build_session(
    source: str | int,
    model: Path,
    *,
    runtime: str = "auto",
    precision: str = "f32",
    max_subjects: int = 1,
    smooth: bool = True,
    loop: bool = True,
    threads: int | None = None,
) -> Session:
    """A session that was not started yet; the bundle is loaded and has run once, the source is not open.

    Args:
        source: camera number, file, URL, or `test`.
        loop: play a file again when it ends.

    Raises:
        BundleError, ConfigError: the model or the runtime.
    """
    predictor = load_predictor(model, runtime, precision, threads)

    def next_box(xy: np.ndarray, confidence: np.ndarray) -> np.ndarray | None:
        return box_from_keypoints(xy, confidence, predictor.skeleton, predictor.padding)

    follower = Follower(MotionFinder(), next_box, padding=predictor.padding, max_subjects=max_subjects)
    bundle = predictor.bundle
    described = " ".join(part for part in (bundle.method, bundle.preset) if part)
    names = Names(str(source), described or Path(model).name, f"{predictor.runtime.name} {precision}")
    return Session(lambda: open_source(source, loop=loop), predictor, follower, names=names, smooth=smooth)


def run_burst(session: Session, seconds: float) -> dict[str, Any]:
    """Run a session for some seconds without a server, with one subscriber, and return its numbers.

    Returns:
        {'source', 'runtime', 'frames', 'published', 'dropped', 'seconds', 'fps', 'subjects' (mean number a frame),
        'latency_ms': {'p50', 'p95', 'p99'}, 'stages_ms': {stage: {'p50', 'p95', 'p99'}}}
    """
    slot = session.subscribe()
    session.start()
    end = time.monotonic() + seconds
    subjects = []
    try:
        while time.monotonic() < end and not session.done.is_set():
            result = slot.take(timeout=0.1)
            if result is not None:
                subjects.append(len(result.ids))
    finally:
        session.stop()
    if session.failure is not None:
        raise session.failure
    stats = session.stats(whole=True)
    return {
        "source": stats.source,
        "runtime": stats.runtime,
        "frames": stats.captured,
        "published": stats.published,
        "dropped": stats.dropped,
        "seconds": stats.seconds,
        "fps": stats.inference_fps,
        "subjects": round(float(np.mean(subjects)), 2) if subjects else 0.0,
        "latency_ms": stats.latency_ms.model_dump(),
        "stages_ms": {name: timing.model_dump() for name, timing in stats.stages_ms.items()},
    }
