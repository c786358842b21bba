"""What a live session gives to those who watch: results, the slot through which each gets them, and timings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from streampose.server.messages import (
    FrameMessage,
    HypothesesMessage,
    LatencyMessage,
    SceneMessage,
    SceneSubjectMessage,
    State,
    SubjectMessage,
)
from streampose.structures import Keypoints

JPEG_WIDTH = 960  # pictures are sent at most so wide
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Hypotheses:
    """Several 3D poses that explain each subject of a frame; a lifter gives them.

    Attributes:
        poses: (N, H, K, 3) x, y in source pixels, z relative to the root in the same pixels; NaN where not lifted.
        weights: (N, H) that sum to 1 for each subject.
        spread: (N, K) how far off the joints in space may be, one standard deviation in source pixels.
    """

    poses: np.ndarray
    weights: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Subjects in space, triangulated from the newest frames of calibrated cameras.

    Attributes:
        ids: M numbers; those of the subjects in space, not those that they have in the cameras.
        points: (M, K, 3) metres in the world of the calibration; NaN where fewer than two cameras agree.
        errors_px: (M, K) mean distance between where the cameras see a joint and where it should be, NaN as `points`.
        views: for each of them, camera number -> its subject number there.
        skew_ms: between the oldest and the newest of the frames that were used.
        uncertainty: (M, K) metres, one standard deviation; None where it is not known.
    """

    ids: tuple[int, ...]
    points: np.ndarray
    errors_px: np.ndarray
    views: tuple[Mapping[int, int], ...]
    skew_ms: float
    uncertainty: np.ndarray | None = None


@dataclass(frozen=True)
class Result:
    """One published frame of one camera.

    Attributes:
        number: counts published frames from 1 through the whole session, over reconnects and all cameras.
        image: (H, W, 3) uint8 RGB, the very picture the keypoints were found in.
        boxes: (N, 4) what the network looked at, square edges in source pixels.
        ids: N subject numbers.
        keypoints: N subjects, smoothed.
        captured_at, published_at: `time.monotonic()` seconds.
        camera: which of the session's cameras, from 0.
        visibility: (N, K) uint8 as in COCO: 2 visible, 1 occluded, 0 absent (outside of the picture, or not to be seen
            anywhere); None where nobody judged it.
        stages_ms: how long each stage took for this frame.
        scene: the subjects in space where the cameras are calibrated.
        hypotheses: further poses, of bundles that give them.
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
    camera: int = 0
    visibility: np.ndarray | None = None
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    scene: Scene | None = None
    hypotheses: Hypotheses | None = None
    _encoded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def latency_ms(self) -> float:
        return 1000.0 * (self.published_at - self.captured_at)

    def message(self) -> str:
        """The `frame` message as JSON; made once, however many clients there are."""
        with self._lock:
            if "message" not in self._encoded:
                self._encoded["message"] = self._frame_message().model_dump_json(exclude_none=True)
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
        visibility = [None] * len(rows) if self.visibility is None else self.visibility.tolist()
        hypotheses = [self._hypotheses(i) for i in range(len(rows))]
        return FrameMessage(
            number=self.number,
            camera=self.camera,
            pts_seconds=round(self.pts_seconds, 4),
            latency_ms=round(self.latency_ms, 2),
            stages_ms={name: round(ms, 2) for name, ms in self.stages_ms.items()},
            size=(width, height),
            state=self.state,
            subjects=[
                SubjectMessage(
                    id=id_, box=np.round(box.astype(float), 1).tolist(), keypoints=points.tolist(), visibility=seen,
                    hypotheses=more,
                )
                for id_, box, points, seen, more in zip(
                    self.ids, self.boxes, rows, visibility, hypotheses, strict=True
                )
            ],
            scene=None if self.scene is None else _scene_message(self.scene),
        )  # fmt: skip

    def _hypotheses(self, subject: int) -> HypothesesMessage | None:
        if self.hypotheses is None or not np.isfinite(self.hypotheses.poses[subject]).any():
            return None
        return HypothesesMessage(
            poses=[_numbers(pose, 1) for pose in self.hypotheses.poses[subject]],
            weights=np.round(self.hypotheses.weights[subject].astype(float), 4).tolist(),
            spread=_numbers(self.hypotheses.spread[subject], 1),
        )


def _numbers(values: np.ndarray, digits: int) -> list[Any]:
    return [None if not np.isfinite(v).all() else np.round(v, digits).tolist() for v in values.astype(float)]


def _scene_message(scene: Scene) -> SceneMessage:
    return SceneMessage(
        subjects=[
            SceneSubjectMessage(id=id_, points=_numbers(points, 4), errors_px=_numbers(errors, 2), views=dict(views))
            for id_, points, errors, views in zip(scene.ids, scene.points, scene.errors_px, scene.views, strict=True)
        ],
        skew_ms=round(scene.skew_ms, 1),
    )


class Slot:
    """A subscriber's slot: of each camera the newest result replaces the one that was not taken, which is counted."""

    def __init__(self, notify: Callable[[], None] | None = None):
        self._notify = notify
        self._ready = threading.Condition()
        self._results: dict[int, Result] = {}
        self.skipped = 0

    def put(self, result: Result) -> None:
        with self._ready:
            self.skipped += self._results.pop(result.camera, None) is not None
            self._results[result.camera] = result
            self._ready.notify()
        self.wake()

    def wake(self) -> None:
        """Tell the subscriber to look: something was put, or the session ended."""
        if self._notify is not None:
            self._notify()

    def take(self, timeout: float | None = 0.0) -> Result | None:
        """A newest result that was not taken yet, of the camera that has waited longest.

        Args:
            timeout: seconds to wait for one; None for ever.
        """
        with self._ready:
            if not self._results and timeout != 0.0:
                self._ready.wait_for(lambda: self._results, timeout)
            return self._results.pop(next(iter(self._results))) if self._results else None


class Timings:
    """Recent durations with their percentiles; a ring of fixed size, so that hours cost no memory."""

    def __init__(self, keep: int = 20_000):
        self._at = np.full(keep, -np.inf)
        self._milliseconds = np.full(keep, np.nan, np.float32)  # zeros take memory page by page
        self._count = 0

    def add(self, now: float, milliseconds: float) -> None:
        """Note a duration that ended at `now` (`time.monotonic()`)."""
        slot = self._count % len(self._at)
        self._at[slot], self._milliseconds[slot] = now, milliseconds
        self._count += 1

    def percentiles(self, since: float = -np.inf) -> LatencyMessage:
        """Of the durations that ended after `since`."""
        values = self._milliseconds[np.isfinite(self._at) & (self._at >= since)]
        if not len(values):
            return LatencyMessage()
        p50, p95, p99 = (round(float(v), 2) for v in np.percentile(values, (50, 95, 99)))
        return LatencyMessage(p50=p50, p95=p95, p99=p99)

    @property
    def count(self) -> int:
        """How many were noted since the start."""
        return self._count

    def rate(self, now: float) -> float:
        """Events a second over the last two seconds."""
        recent = self._at[self._at >= now - 2.0]
        seconds = float(np.ptp(recent)) if len(recent) > 1 else 0.0
        return (len(recent) - 1) / seconds if seconds else 0.0
