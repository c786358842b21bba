"""One camera of a live session: its source, opened again when it is lost, and who is followed in its pictures."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from streampose.console import logger
from streampose.errors import VideoError
from streampose.server.follow import Follower
from streampose.server.lift import Lift
from streampose.server.messages import CameraMessage, State
from streampose.tracking.polish import Polish
from streampose.video.live import LiveFrame

RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 5.0)  # pauses between attempts to open a lost source again


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
    def watch(self, notify: Callable[[], None]) -> None: ...
    def close(self) -> None: ...


class Camera:
    """Gives its newest picture, and mends itself beside the others.

    Args:
        open_source: opens the source; called by `open` (its VideoError passes through) and again after a loss.
        follower, polish, lift: who is followed in the pictures, what is done to their keypoints, and what gives them
            their depth; used by the session.

    Attributes:
        state, error: how it is at present.
        size: (width, height) of its last picture.
        finished: nothing will come any more.
    """

    def __init__(
        self, open_source: Callable[[], Source], follower: Follower, polish: Polish | None, name: str = "",
        lift: Lift | None = None,
    ):  # fmt: skip
        self.name, self.follower, self.polish, self.lift = name, follower, polish, lift
        self.state: State = "starting"
        self.error: str | None = None
        self.size: tuple[int, int] | None = None
        self.finished = False
        self.published = self.reconnects = 0
        self._open_source = open_source
        self._source: Source | None = None
        self._notify: Callable[[], None] = _nothing
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._number = self._captured = self._dropped = 0
        self._captures: deque[tuple[float, int]] = deque(maxlen=200)
        self._mending: threading.Thread | None = None

    def open(self, notify: Callable[[], None]) -> None:
        """Open the source.

        Args:
            notify: called from another thread when there is something to look at; must not block.

        Raises:
            VideoError: it cannot be opened.
        """
        self._notify = notify
        self._source = self._begin()
        self.name = self._source.name

    def take(self) -> LiveFrame | None:
        """The newest picture that was not taken yet; looks after the source where there is none."""
        source = self._source
        if source is None:
            return None
        ended = source.ended  # asked first: what came before the end must not be missed
        frame = source.latest(after=self._number, timeout=0.0)
        if frame is not None:
            if self.state == "reconnecting":
                self.reconnects += 1
                self.state = "searching"
            self.error = None
            self._number = frame.number
            self._captures.append((frame.captured_at, frame.number))
            self.size = (frame.image.shape[1], frame.image.shape[0])
        elif ended and source.error is None:
            self.finished, self.state = True, "ended"
        elif ended:
            assert source.error is not None
            logger.warning("%s: lost (%s); opening it again", self.name, source.error)
            self._lose(source.error)
            self._mending = threading.Thread(target=self._mend, args=(source,), name=f"reopen {self.name}", daemon=True)
            self._source = None
            self._mending.start()
        elif source.error is not None:  # the source is opening itself again
            self._lose(source.error)
        return frame

    def close(self) -> None:
        """End the capture; may take as long as a network that hangs."""
        self._stop.set()
        if self._source is not None:
            self._source.close()
        if self._mending is not None:
            self._mending.join()

    def counts(self) -> tuple[int, int]:
        """(captured, dropped) since the start: pictures that came, and those that nobody looked at."""
        with self._lock:
            dropped = self._dropped + (self._source.dropped if self._source is not None else 0)
        return self.published + dropped, dropped

    def capture_rate(self, now: float) -> float:
        """Pictures a second over the last two seconds."""
        recent = [(at, n) for at, n in tuple(self._captures) if at >= now - 2.0]
        if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
            return 0.0
        return (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0])

    def message(self) -> CameraMessage:
        """How it is, for the status."""
        captured, dropped = self.counts()
        return CameraMessage(
            name=self.name, state=self.state, error=self.error, size=self.size,
            capture_fps=round(self.capture_rate(time.monotonic()), 2), captured=captured, published=self.published,
            dropped=dropped, reconnects=self.reconnects,
        )  # fmt: skip

    def forget(self) -> None:
        """Whoever was followed has moved on, or the picture shows something else."""
        self.follower.subjects.clear()
        if self.polish is not None:
            self.polish.reset()

    def _begin(self) -> Source:
        source = self._open_source()
        source.watch(self._notify)
        self._number = 0  # numbers begin anew with each opening
        self._captures.clear()
        return source

    def _lose(self, error: str) -> None:
        if self.state != "reconnecting":
            self.forget()
        self.state, self.error = "reconnecting", error

    def _mend(self, lost: Source) -> None:
        """Open the source again, with growing pauses, until it works or the session ends."""
        lost.close()
        with self._lock:
            self._dropped += lost.dropped
        attempt = 0
        while not self._stop.wait(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]):
            attempt += 1
            try:
                source = self._begin()
            except VideoError as error:
                self.error = str(error)
                continue
            logger.info("%s: open again after %d attempts", self.name, attempt)
            self._source = source
            self._notify()
            if self._stop.is_set():
                source.close()
            return


def _nothing() -> None:
    return
