"""Live pictures: a camera, a file or a folder of images at its own pace, a URL, or a drawn person; the newest one wins.

A capture thread keeps reading, so that a slow reader sees the present and never a growing queue; what it
missed is counted.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import VideoError
from streampose.video.container import message_of
from streampose.video.decode import open_video
from streampose.video.pace import Pacer
from streampose.video.streams import DEVICE_FORMATS, open_camera, open_device, open_url, shown
from streampose.video.walker import FPS as WALKER_FPS
from streampose.video.walker import SIZE as WALKER_SIZE
from streampose.video.walker import draw_walker

FOLDER_FPS = 25.0  # of a folder of images, which has no rate of its own
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))

Pictures = Generator[tuple[np.ndarray, float, float], None, None]  # RGB, pts_seconds, monotonic time of the capture


@dataclass(frozen=True)
class LiveFrame:
    """One captured picture.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        captured_at: `time.monotonic()` when it came from the camera or the network, not decoded yet, or was due.
        number: counts all captured pictures from 1, dropped ones too.
        pts_seconds: the source's own time; it always rises.
        ready_at: `time.monotonic()` when it was decoded.
    """

    image: np.ndarray
    captured_at: float
    number: int
    pts_seconds: float
    ready_at: float


class LiveSource:
    """A running source, made by `open_source`; close it, or use it as a context manager.

    Args:
        name: how messages call it.
        pictures: yields (image, pts_seconds, captured_at) in the capture thread; gets this source to ask whether it was
            closed.

    Attributes:
        ended: nothing more will come: the file is over, the source was closed, or `error` says what went wrong.
        error: what is wrong at present, one line; while `ended` is False the source is being opened again.
    """

    def __init__(self, name: str, pictures: Callable[[LiveSource], Pictures]):
        self.name = name
        self.error: str | None = None
        self.ended = False
        self.closed = threading.Event()
        self._news = threading.Condition()
        self._frame: LiveFrame | None = None
        self._captured = self._taken = self._dropped = 0
        self._watchers: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._capture, args=(pictures,), name=f"capture {name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Pictures that were replaced by a newer one before anybody asked for them."""
        return self._dropped

    def latest(self, after: int, timeout: float) -> LiveFrame | None:
        """The newest picture whose number is greater than `after`.

        Args:
            after: the number of the last picture that the caller has; 0 for none.
            timeout: seconds to wait for one.

        Returns:
            None where none came in time, or none will ever come (`ended`).
        """
        with self._news:
            self._news.wait_for(lambda: self._captured > after or self.ended, timeout)
            if self._frame is None or self._frame.number <= after:
                return None
            self._taken = self._frame.number
            return self._frame

    def watch(self, notify: Callable[[], None]) -> None:
        """Call `notify` in the capture thread at each new picture and at the end; it must not block."""
        self._watchers.append(notify)

    def skip(self) -> None:
        """Count a picture that was not made because reading is behind the source."""
        with self._news:
            self._captured += 1
            self._dropped += 1

    def close(self) -> None:
        """Stop capturing and wait for the thread; may be called twice."""
        self.closed.set()
        self._thread.join()

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _capture(self, pictures: Callable[[LiveSource], Pictures]) -> None:
        try:
            with contextlib.closing(pictures(self)) as running:
                for image, pts_seconds, captured_at in running:
                    if self.closed.is_set():
                        break
                    self._publish(image, pts_seconds, captured_at)
        except (av.error.FFmpegError, OSError, VideoError) as error:
            self.error = message_of(error)
        except Exception as error:  # a fault of ours: the reader must learn of it, in its own thread
            logger.exception("%s: capturing failed", self.name)
            self.error = f"{type(error).__name__}: {error}"
        finally:
            with self._news:
                self.ended = True
                self._news.notify_all()
            self._tell()

    def _publish(self, image: np.ndarray, pts_seconds: float, captured_at: float) -> None:
        with self._news:
            if self._frame is not None and self._taken < self._frame.number:
                self._dropped += 1
            self._captured += 1
            self._frame = LiveFrame(image, captured_at, self._captured, pts_seconds, time.monotonic())
            self.error = None
            self._news.notify_all()
        self._tell()

    def _tell(self) -> None:
        for notify in self._watchers:
            notify()


def open_source(spec: str | int, *, loop: bool = False, reconnect: bool = True) -> LiveSource:
    """Open a live source; it captures from now on.

    Args:
        spec: camera number, file, folder of images, URL (rtsp, http, udp, ...), a device as FFmpeg names it
            (`v4l2:/dev/v4l/by-id/...`, `avfoundation:FaceTime HD Camera`, `dshow:video=USB Camera`), or `test` for a
            drawn person who walks and waves.
        loop: begin a file or a folder again when it is over.
        reconnect: open a lost camera or stream again, with growing pauses; else it ends with `error`.

    Raises:
        VideoError: there is no such camera or file, or the address does not answer.
    """
    text = str(spec)
    if text == "test":
        return LiveSource("test", _walk)
    if text.removeprefix("/dev/video").isdecimal():
        number = int(text.removeprefix("/dev/video"))
        return LiveSource(f"camera {number}", open_camera(number, reconnect))
    device_format, _, device = text.partition(":")
    if device_format in DEVICE_FORMATS and device:
        return LiveSource(text, open_device(text, device, device_format, reconnect))
    if "://" in text and not text.startswith("file://"):
        return LiveSource(shown(text), open_url(text, reconnect))
    path = Path(text.removeprefix("file://"))
    if path.is_dir():
        images = find_images(path)
        return LiveSource(str(path), lambda source: _leaf_through(source, images, loop))
    open_video(path).close()  # raises here, not in the thread
    return LiveSource(str(path), lambda source: _play(source, path, loop))


def find_images(folder: Path) -> list[Path]:
    """The images in a folder, numbers in their names in the order of their values.

    Raises:
        VideoError: there are none.
    """
    images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise VideoError(f"{folder}: no images in this folder; name one with {', '.join(sorted(IMAGE_SUFFIXES))} files")
    return sorted(images, key=lambda path: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", path.name)])


def _walk(source: LiveSource) -> Pictures:
    pacer = Pacer(source.closed)
    for i in itertools.count():
        pts_seconds = i / WALKER_FPS
        image = draw_walker(pts_seconds, WALKER_SIZE)
        yield image, pts_seconds, pacer.wait(pts_seconds)


def _play(source: LiveSource, path: Path, loop: bool) -> Pictures:
    """A file at its own pace; the time goes on where it begins again."""
    pacer, shift = Pacer(source.closed), 0.0
    while True:
        pts_seconds = 0.0
        with open_video(path) as video:
            for frame in video.frames():
                pts_seconds = frame.pts_seconds + shift
                image = frame.image
                yield image, pts_seconds, pacer.wait(pts_seconds)
            frame_seconds = 1 / video.probe.fps
        if not loop:
            return
        shift = pts_seconds + frame_seconds


def _leaf_through(source: LiveSource, images: list[Path], loop: bool) -> Pictures:
    """A folder of images; those that cannot be read are said and left out."""
    pacer, number, shown_before = Pacer(source.closed), 0, -1
    while shown_before < number:
        shown_before = number
        for path in images:
            picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
            if picture is None:
                logger.warning("%s: not an image; left out", path)
                continue
            image, pts_seconds = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), number / FOLDER_FPS
            yield image, pts_seconds, pacer.wait(pts_seconds)
            number += 1
        if not loop:
            break
    if not number:
        raise VideoError(f"{source.name}: none of the {len(images)} images can be read")
