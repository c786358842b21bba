"""The live path: capture -> find or follow the subjects -> infer -> polish -> publish, always on the newest frames.

One thread per session infers; each source captures in its own. All subjects of all cameras that have something new go
through the network in one batch. No queue grows anywhere: a source keeps only its newest frame, and each subscriber has
a slot that keeps only the newest result of each camera. What is skipped is counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError
from streampose.runtime.lifter import load_lifter
from streampose.runtime.predictor import box_from_keypoints, load_predictor
from streampose.server.cameras import Camera
from streampose.server.follow import Follower
from streampose.server.lift import Lift
from streampose.server.lookout import Lookout
from streampose.server.messages import RecordingMessage, State, StatsMessage
from streampose.server.motion import MotionFinder
from streampose.server.recorder import Recorder
from streampose.server.results import Hypotheses, Result, Scene, Slot, Timings
from streampose.structures import Keypoints, Skeleton
from streampose.tracking.detectors import open_detector
from streampose.tracking.identities import Identities
from streampose.tracking.polish import Polish, Polished
from streampose.video.live import LiveFrame, open_source

if TYPE_CHECKING:
    from streampose.server.collect import Collector
    from streampose.server.space import Space

WINDOW_SECONDS = 10.0  # the live numbers look back so far
WAIT_SECONDS = 0.25  # for news, before the sources are looked after anyway
STOP_SECONDS = 2.0  # to end; a source that waits for its network may take longer and is left to end by itself
STAGES = ("decode", "wait", "find", "infer", "smooth", "lift", "space")


class Predictor(Protocol):
    """A loaded bundle as `runtime.predictor.load_predictor` gives it."""

    @property
    def skeleton(self) -> Skeleton: ...
    def predict_views(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[Keypoints]: ...


class Names(NamedTuple):
    """What a session works with, as people should read it."""

    source: str
    model: str
    runtime: str


class Session:
    """Runs the live path in a thread and hands its results to subscribers.

    Args:
        cameras: one or more, not opened yet.
        predictor: the loaded model.
        space: gives the subjects in space, of calibrated cameras.
        recorder: records on demand; None refuses.
        collector: keeps hard moments; None keeps nothing.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        predictor: Predictor,
        *,
        names: Names,
        space: Space | None = None,
        recorder: Recorder | None = None,
        collector: Collector | None = None,
    ):
        self.cameras, self.predictor, self.names = tuple(cameras), predictor, names
        self._space, self._recorder, self._collector = space, recorder or Recorder(None), collector
        self._slots: list[Slot] = []
        self._lock = threading.Lock()
        self._stop, self._news = threading.Event(), threading.Event()
        self.done = threading.Event()
        self.failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._error: str | None = None
        self._started_at = self._ended_at = time.monotonic()
        self._published = 0
        self._latency = Timings()
        self._stages = {name: Timings() for name in STAGES}

    def start(self) -> None:
        """Open the sources and begin.

        Raises:
            VideoError: a source cannot be opened.
        """
        try:
            for camera in self.cameras:
                camera.open(self._news.set)
        except BaseException:
            self._close_cameras()
            raise
        self.names = self.names._replace(source=", ".join(camera.name for camera in self.cameras))
        self._started_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="streampose-infer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the session and wait for its threads, though not for a network that hangs; may be called twice."""
        self._stop.set()
        self._news.set()
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

    def start_recording(self) -> RecordingMessage:
        """Record what the cameras show, with the poses, until `stop_recording` or the end.

        Raises:
            RecordingError: recordings are not allowed, one is running, or the disk cannot take it.
        """
        return self._recorder.start()

    def stop_recording(self) -> RecordingMessage:
        """Finish the recording; its files are complete when this returns."""
        return self._recorder.stop()

    @property
    def published(self) -> int:
        return self._published

    @property
    def state(self) -> State:
        """The session's state: that of its cameras together; one that works is enough."""
        if self.failure is not None:
            return "failed"
        if self.done.is_set():
            return "ended"
        states = [camera.state for camera in self.cameras]
        order: tuple[State, ...] = ("following", "searching", "starting", "reconnecting", "ended")
        return next(state for state in order if state in states)

    @property
    def ready(self) -> bool:
        """True when a frame was published and a source is not lost."""
        return self._published > 0 and self.state in ("searching", "following")

    def stats(self, *, whole: bool = False) -> StatsMessage:
        """Numbers of the last ten seconds, or of the whole session (its last 20,000 frames)."""
        now = self._ended_at if self.done.is_set() else time.monotonic()
        since = -np.inf if whole else now - WINDOW_SECONDS
        seconds = max(now - self._started_at, 1e-6)
        counts = [camera.counts() for camera in self.cameras]
        captured, dropped = sum(count[0] for count in counts), sum(count[1] for count in counts)
        fps = self._published / seconds if whole else self._latency.rate(now)
        capture_fps = captured / seconds if whole else sum(camera.capture_rate(now) for camera in self.cameras)
        error = self._error or next((camera.error for camera in self.cameras if camera.error is not None), None)
        with self._lock:
            clients = len(self._slots)
        return StatsMessage(
            state=self.state, error=error, **self.names._asdict(),
            capture_fps=round(capture_fps, 2), inference_fps=round(fps, 2),
            latency_ms=self._latency.percentiles(since),
            stages_ms={name: timings.percentiles(since) for name, timings in self._stages.items() if timings.count},
            captured=captured, published=self._published, dropped=dropped,
            reconnects=sum(camera.reconnects for camera in self.cameras), clients=clients, seconds=round(seconds, 2),
            cameras=[camera.message() for camera in self.cameras], recording=self._recorder.message(),
            collected=None if self._collector is None else self._collector.kept,
        )  # fmt: skip

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._news.wait(WAIT_SECONDS)
                self._news.clear()
                frames = {
                    number: frame
                    for number, camera in enumerate(self.cameras)
                    if (frame := camera.take()) is not None
                }  # fmt: skip
                if frames:
                    self._process(frames)
                    self._news.set()  # there may be more already
                elif all(camera.finished for camera in self.cameras):
                    break
        except BaseException as failure:
            self.failure, self._error = failure, str(failure) or type(failure).__name__
            logger.exception("the live session ended")
        finally:
            self._ended_at = time.monotonic()
            self.done.set()
            with self._lock:
                slots = list(self._slots)
            for slot in slots:  # wake those who wait, so that they see the end
                slot.wake()
            self._recorder.stop()
            if self._collector is not None:
                self._collector.close()
            self._close_cameras()  # last: a source that waits for the network closes when that gives up

    def _process(self, frames: dict[int, LiveFrame]) -> None:
        """One round: the newest frames of the cameras that have one."""
        begun = time.monotonic()
        cameras = [self.cameras[number] for number in frames]
        images = [frame.image for frame in frames.values()]
        boxes = [camera.follower.boxes(image) for camera, image in zip(cameras, images, strict=True)]
        found = time.monotonic()
        if any(len(some) for some in boxes):
            answers = self.predictor.predict_views(images, boxes)
        else:
            answers = [self._nobody()] * len(images)
        inferred = time.monotonic()
        done = []
        for camera, frame, some, answer in zip(cameras, frames.values(), boxes, answers, strict=True):
            kept = camera.follower.update(answer, frame.image)
            ids = tuple(subject.id for subject in camera.follower.subjects)
            done.append((ids, some[kept], *self._polish(camera, answer.pick(kept), ids, some[kept], frame)))
            camera.state = "following" if any(subject.sure for subject in camera.follower.subjects) else "searching"
        smoothed = time.monotonic()
        in_depth = [
            (found_points, None) if camera.lift is None else camera.lift.apply(found_points, ids, frame.captured_at)
            for camera, frame, (ids, _, found_points, _) in zip(cameras, frames.values(), done, strict=True)
        ]
        lifted = time.monotonic()
        scene = self._scene(frames, done)
        for (number, frame), (ids, some, _, polished), (keypoints, more) in zip(
            frames.items(), done, in_depth, strict=True
        ):
            marks = (frame.captured_at, frame.ready_at, begun, found, inferred, smoothed, lifted)
            self._publish(number, frame, ids, some, keypoints, polished, more, scene, marks)
        for camera, frame in zip(cameras, frames.values(), strict=True):
            camera.follower.learn(frame.image)

    def _polish(
        self, camera: Camera, keypoints: Keypoints, ids: tuple[int, ...], boxes: np.ndarray, frame: LiveFrame
    ) -> tuple[Keypoints, Polished | None]:
        if camera.polish is None:
            return keypoints, None
        size = (frame.image.shape[1], frame.image.shape[0])
        polished = camera.polish.apply(keypoints, ids, boxes, size, frame.captured_at)
        return polished.keypoints, polished

    def _scene(self, frames: dict[int, LiveFrame], done: list[Any]) -> Scene | None:
        if self._space is None:
            return None
        for (number, frame), (ids, _, keypoints, polished) in zip(frames.items(), done, strict=True):
            size = (frame.image.shape[1], frame.image.shape[0])
            visibility = None if polished is None else polished.visibility
            self._space.see(number, ids, keypoints, visibility, size, frame.captured_at)
        return self._space.scene()

    def _publish(
        self, number: int, frame: LiveFrame, ids: tuple[int, ...], boxes: np.ndarray, keypoints: Keypoints,
        polished: Polished | None, hypotheses: Hypotheses | None, scene: Scene | None, marks: tuple[float, ...],
    ) -> None:  # fmt: skip
        """Hand one camera's frame to all who wait for it; `marks` are the times at which its stages began."""
        camera = self.cameras[number]
        now = time.monotonic()
        self._published += 1
        camera.published += 1
        ends = (*marks[1:], now)
        stages = {name: 1000.0 * (end - start) for name, start, end in zip(STAGES, marks, ends, strict=True)}
        for name, there in (("lift", camera.lift), ("space", self._space)):
            if there is None:
                stages["smooth"] += stages.pop(name)
        result = Result(
            self._published, frame.pts_seconds, frame.image, boxes, ids, keypoints, camera.state, frame.captured_at,
            now, camera=number, visibility=None if polished is None else polished.visibility, stages_ms=stages,
            scene=scene, hypotheses=hypotheses,
        )  # fmt: skip
        with self._lock:
            slots = list(self._slots)
        for slot in slots:
            slot.put(result)
        self._latency.add(now, result.latency_ms)
        for name, milliseconds in stages.items():
            self._stages[name].add(now, milliseconds)
        self._recorder.offer(result)
        if self._collector is not None:
            self._collector.offer(result, polished, camera.follower.motion)

    def _nobody(self) -> Keypoints:
        K = self.predictor.skeleton.num_joints
        return Keypoints(np.zeros((0, K, 2)), np.zeros((0, K)), np.zeros((0, K)))

    def _close_cameras(self) -> None:
        for camera in self.cameras:
            camera.close()


def build_session(
    source: str | int | Sequence[str | int],
    model: Path,
    *,
    runtime: str = "auto",
    precision: str = "f32",
    max_subjects: int = 1,
    smooth: bool = True,
    loop: bool = True,
    threads: int | None = None,
    smoothing: str = "one-euro",
    detector: str = "motion",
    detect_every: int = 10,
    calibration: Path | None = None,
    recordings: Path | None = None,
    collect: Path | None = None,
    lifter: Path | None = None,
) -> Session:
    """A session that was not started yet; the bundle is loaded and has run once, the sources are not open.

    Args:
        source: camera number, file, folder of images, URL, or `test`; several for several cameras.
        smooth: False gives what the model says, without any of `tracking.polish`.
        loop: play a file again when it ends.
        smoothing: one of `tracking.polish.SMOOTHINGS`.
        detector: `motion`, or one of `tracking.detectors`; it runs beside the live path.
        detect_every: frames between looks for further subjects.
        calibration: of the cameras, in the order of the sources or by their names; gives the subjects in space.
        recordings: folder for what is recorded on demand; None refuses recordings.
        collect: store for hard moments; None keeps nothing.
        lifter: a bundle that lifts 2D joints; gives depth, and several poses of each subject with their spread.

    Raises:
        BundleError, ConfigError: the model, the lifter, the runtime, or an option.
        StoreError: the store of `collect` is another's.
    """
    sources = [source] if isinstance(source, str | int) else list(source)
    if not sources:
        raise ConfigError("--source: name one or more")
    predictor = load_predictor(model, runtime, precision, threads)
    skeleton = predictor.skeleton
    lifting = None if lifter is None else load_lifter(lifter)

    def next_box(xy: np.ndarray, confidence: np.ndarray) -> np.ndarray | None:
        return box_from_keypoints(xy, confidence, skeleton, predictor.padding)

    def camera(spec: str | int) -> Camera:
        detect = open_detector(detector)
        follower = Follower(
            MotionFinder() if detect is None else Lookout(detect), next_box, padding=predictor.padding,
            max_subjects=max_subjects, look_every=detect_every, whole_frame=detect is None,
            identities=Identities(skeleton),
        )  # fmt: skip
        polish = Polish(skeleton, smoothing=smoothing) if smooth else None
        lift = None if lifting is None else Lift(lifting, skeleton)
        return Camera(lambda: open_source(spec, loop=loop), follower, polish, name=str(spec), lift=lift)

    bundle = predictor.bundle
    described = " ".join(part for part in (bundle.method, bundle.preset) if part)
    runs_with = f"{predictor.runtime.name} {predictor.precision}"
    names = Names(", ".join(map(str, sources)), described or Path(model).name, runs_with)
    space, collector = None, None
    if calibration is not None:
        from streampose.server.space import Space, read_cameras

        space = Space(read_cameras(calibration, sources), skeleton)
    if collect is not None:
        from streampose.server.collect import Collector  # the store's libraries take their time

        collector = Collector(collect, skeleton)
    return Session(
        [camera(spec) for spec in sources], predictor, names=names, space=space, recorder=Recorder(recordings),
        collector=collector,
    )  # fmt: skip


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
