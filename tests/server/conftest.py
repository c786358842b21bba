"""Fakes of a live source and a model, driven by the test, and a tiny real bundle."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.server.cameras import Camera
from streampose.server.follow import Follower
from streampose.server.session import Names, Session
from streampose.structures import Keypoints
from streampose.tracking.polish import Polish


class FakeSource:
    """Hands out what the test pushes; the newest frame wins, as in a real one."""

    name = "fake"

    def __init__(self):
        self._changed = threading.Condition()
        self._frame = None
        self._taken = True
        self.notify = lambda: None
        self.dropped, self.ended, self.error, self.closed = 0, False, None, False

    def push(self, image: np.ndarray) -> None:
        with self._changed:
            self.dropped += not self._taken
            number = 1 if self._frame is None else self._frame.number + 1
            now = time.monotonic()
            self._frame = SimpleNamespace(
                image=image, captured_at=now, number=number, pts_seconds=number / 25, ready_at=now
            )
            self._taken = False
            self._changed.notify_all()
        self.notify()

    def watch(self, notify) -> None:
        self.notify = notify

    def end(self, error: Exception | None = None) -> None:
        with self._changed:
            self.ended, self.error = True, error
            self._changed.notify_all()
        self.notify()

    def latest(self, after: int, timeout: float):
        with self._changed:
            self._changed.wait_for(lambda: self.ended or (self._frame and self._frame.number > after), timeout)
            if self._frame is None or self._frame.number <= after:
                return None
            self._taken = True
            return self._frame

    def close(self) -> None:
        self.closed = True


class FakePredictor:
    """Puts all joints of a subject at the brightest pixel of its box, or fails if told to."""

    def __init__(self):
        self.skeleton = load_skeleton("human17")
        self.confidence = 0.9
        self.failure: Exception | None = None
        self.batches: list[int] = []

    def predict_views(self, images, boxes) -> list[Keypoints]:
        self.batches.append(sum(len(some) for some in boxes))
        return [self.predict(image, some) for image, some in zip(images, boxes, strict=True)]

    def predict(self, image: np.ndarray, boxes: np.ndarray) -> Keypoints:
        if self.failure is not None:
            raise self.failure
        y, x = np.unravel_index(int(image[..., 0].argmax()), image.shape[:2])
        N, K = len(boxes), self.skeleton.num_joints
        xy = np.broadcast_to(np.array([x, y], np.float32), (N, K, 2)).copy()
        return Keypoints(xy, np.full((N, K), self.confidence, np.float32), np.zeros((N, K), np.float32))


def dot(x: int, y: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A black RGB picture with one white pixel."""
    image = np.zeros((height, width, 3), np.uint8)
    image[y, x] = 255
    return image


def box_around(xy: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    return np.concatenate([xy[0] - 50, xy[0] + 50])


@pytest.fixture
def make_session():
    """`make_session(source, ...)` -> a session over fakes, stopped when the test ends."""
    made = []

    def make(*sources: FakeSource, predictor: FakePredictor | None = None, smooth: bool = False, **more) -> Session:
        """One camera that opens these sources one after the other."""
        return make_of([list(sources)], predictor or FakePredictor(), smooth, **more)

    def make_of(cameras: list[list], predictor: FakePredictor, smooth: bool = False, **more) -> Session:
        """A camera for each list of sources."""
        names = Names("fake", "fake model", "fake runtime")
        made.append(Session([camera_of(sources, smooth) for sources in cameras], predictor, names=names, **more))
        return made[-1]

    def camera_of(waiting: list, smooth: bool) -> Camera:
        def open_source() -> FakeSource:
            source = waiting.pop(0)
            if isinstance(source, Exception):
                raise source
            return source

        follower = Follower(lambda image: None, box_around, padding=0.1)
        return Camera(open_source, follower, Polish(load_skeleton("human17")) if smooth else None)

    make.of = make_of
    yield make
    for session in made:
        session.stop()


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def fakes() -> SimpleNamespace:
    """The fakes themselves, for tests that build more than one."""
    return SimpleNamespace(Source=FakeSource, Predictor=FakePredictor, dot=dot, box_around=box_around)
