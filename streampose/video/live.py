"""Live pictures: a camera, a file at its own pace, a URL, or a drawn person; the newest one wins.

A capture thread keeps reading, so that a slow reader sees the present and never a growing queue; what it
missed is counted.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import VideoError
from streampose.video.container import choose_stream, message_of
from streampose.video.decode import open_video
from streampose.video.frame import Converter, read_orientation
from streampose.video.walker import FPS as WALKER_FPS
from streampose.video.walker import SIZE as WALKER_SIZE
from streampose.video.walker import draw_walker

RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)  # pauses before a lost stream is opened again; the last one repeats
TIMEOUT_SECONDS = (10.0, 5.0)  # to open a stream, to wait for its next data
LATE_SECONDS = 1.0  # a player that is further behind gives up catching up
URL_OPTIONS = {"flags": "low_delay", "rtsp_transport": "tcp"}
CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
CAMERA_OPTIONS: tuple[dict[str, str], ...] = ({"video_size": "640x480", "framerate": "30"}, {"framerate": "30"}, {})

Pictures = Generator[tuple[np.ndarray, float], None, None]  # RGB and pts_seconds


@dataclass(frozen=True)
class LiveFrame:
    """One captured picture.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        captured_at: `time.monotonic()` when it left the camera, decoder or player.
        number: counts all captured pictures from 1, dropped ones too.
        pts_seconds: the source's own time.
    """

    image: np.ndarray
    captured_at: float
    number: int
    pts_seconds: float


class LiveSource:
    """A running source, made by `open_source`; close it, or use it as a context manager.

    Args:
        name: how messages call it.
        pictures: yields (image, pts_seconds) in the capture thread; gets this source to ask whether it was closed.

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
                for image, pts_seconds in running:
                    if self.closed.is_set():
                        break
                    self._publish(image, pts_seconds)
        except (av.error.FFmpegError, OSError, VideoError) as error:
            self.error = message_of(error)
        except Exception as error:  # a fault of ours: the reader must learn of it, in its own thread
            logger.exception("%s: capturing failed", self.name)
            self.error = f"{type(error).__name__}: {error}"
        finally:
            with self._news:
                self.ended = True
                self._news.notify_all()

    def _publish(self, image: np.ndarray, pts_seconds: float) -> None:
        with self._news:
            if self._frame is not None and self._taken < self._frame.number:
                self._dropped += 1
            self._captured += 1
            self._frame = LiveFrame(image, time.monotonic(), self._captured, pts_seconds)
            self.error = None
            self._news.notify_all()


def open_source(spec: str | int, *, loop: bool = False, reconnect: bool = True) -> LiveSource:
    """Open a live source; it captures from now on.

    Args:
        spec: camera number, file, URL (rtsp, http, udp, ...), or `test` for a drawn person who walks and waves.
        loop: begin a file again when it is over.
        reconnect: open a lost camera or stream again, with growing pauses; else it ends with `error`.

    Raises:
        VideoError: there is no such camera or file, or the address does not answer.
    """
    text = str(spec)
    if text == "test":
        return LiveSource("test", _walk)
    if text.removeprefix("/dev/video").isdecimal():
        number = int(text.removeprefix("/dev/video"))
        return LiveSource(f"camera {number}", _open_camera(number, reconnect))
    if "://" in text and not text.startswith("file://"):
        return LiveSource(_shown(text), _open_url(text, reconnect))
    path = Path(text.removeprefix("file://"))
    open_video(path).close()  # raises here, not in the thread
    return LiveSource(str(path), lambda source: _play(source, path, loop))


class _Pacer:
    """Holds pictures back until their time has come."""

    def __init__(self, source: LiveSource):
        self._source = source
        self._zero: float | None = None  # monotonic time of pts 0

    def wait(self, pts_seconds: float) -> None:
        now = time.monotonic()
        if self._zero is None or now - (self._zero + pts_seconds) > LATE_SECONDS:
            self._zero = now - pts_seconds
        self._source.closed.wait(max(0.0, self._zero + pts_seconds - now))


def _walk(source: LiveSource) -> Pictures:
    pacer = _Pacer(source)
    for i in itertools.count():
        pts_seconds = i / WALKER_FPS
        image = draw_walker(pts_seconds, WALKER_SIZE)
        pacer.wait(pts_seconds)
        yield image, pts_seconds


def _play(source: LiveSource, path: Path, loop: bool) -> Pictures:
    """A file at its own pace; the time goes on where it begins again."""
    pacer, shift = _Pacer(source), 0.0
    while True:
        pts_seconds = 0.0
        with open_video(path) as video:
            for frame in video.frames():
                pts_seconds = frame.pts_seconds + shift
                image = frame.image
                pacer.wait(pts_seconds)
                yield image, pts_seconds
            frame_seconds = 1 / video.probe.fps
        if not loop:
            return
        shift = pts_seconds + frame_seconds


def _open_url(url: str, reconnect: bool) -> Callable[[LiveSource], Pictures]:
    name = _shown(url)

    def open_it() -> av.container.InputContainer:
        try:
            return av.open(url, options=URL_OPTIONS, timeout=TIMEOUT_SECONDS, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{name}: cannot be opened ({_message(error)}); check the address and the network"
            ) from None

    return _stream(name, open_it, reconnect)


def _open_camera(number: int, reconnect: bool) -> Callable[[LiveSource], Pictures]:
    """A camera through FFmpeg, else through OpenCV."""

    def open_it() -> av.container.InputContainer:
        device, device_format = camera_address(number)
        error: Exception | None = None
        for options in CAMERA_OPTIONS:
            try:
                return av.open(device, format=device_format, options=options, timeout=TIMEOUT_SECONDS)
            except (av.error.FFmpegError, OSError, ValueError) as failure:
                error = failure
        assert error is not None
        raise VideoError(f"camera {number}: {_message(error)}")

    try:
        return _stream(f"camera {number}", open_it, reconnect)
    except VideoError as error:
        capture = _open_with_cv2(number)
        if capture is None:
            there = list_cameras()
            raise VideoError(
                f"camera {number}: cannot be opened ({str(error).partition(': ')[2]}); "
                f"{'there are ' + ', '.join(there) if there else 'no camera was found'}; "
                "try another --camera, a file or URL with --source, or --source test"
            ) from None
        logger.info("camera %d: opened with OpenCV, because FFmpeg cannot (%s)", number, error)
        return lambda source: _read_cv2(source, number, capture)


def camera_address(number: int) -> tuple[str, str]:
    """(device, FFmpeg input format) of a camera on this platform.

    Raises:
        VideoError: there is no such camera.
    """
    device_format = CAMERA_FORMATS.get(sys.platform, "v4l2")
    if device_format == "v4l2":
        if not Path(f"/dev/video{number}").exists():
            raise VideoError(f"camera {number}: no device /dev/video{number}")
        return f"/dev/video{number}", device_format
    if device_format == "avfoundation":
        return str(number), device_format
    names = list_cameras()
    if number >= len(names):
        raise VideoError(f"camera {number}: there are {len(names)} cameras")
    return f"video={names[number]}", device_format


def list_cameras() -> list[str]:
    """The cameras that this machine has, as a person would name them."""
    device_format = CAMERA_FORMATS.get(sys.platform, "v4l2")
    if device_format == "v4l2":
        numbers = sorted(int(f.name.removeprefix("video")) for f in Path("/dev").glob("video[0-9]*"))
        return [f"camera {number}" for number in numbers]
    try:
        devices = av.device.enumerate_input_devices(device_format)
    except (av.error.FFmpegError, OSError, ValueError):  # this FFmpeg was built without it
        return []
    return [device.description for device in devices if "video" in device.media_types or not device.media_types]


def _stream(
    name: str, open_it: Callable[[], av.container.InputContainer], reconnect: bool
) -> Callable[[LiveSource], Pictures]:
    """Open now, so that an error is raised here; then read, and open again when the stream is lost."""
    container = open_it()
    try:
        choose_stream(name, container)
    except VideoError:
        container.close()
        raise

    def pictures(source: LiveSource) -> Pictures:
        current: av.container.InputContainer | None = container
        attempt = 0
        while not source.closed.is_set():
            try:
                if current is None:
                    current = open_it()
                    logger.info("%s: connected again", name)
                finite = bool(current.duration)  # a recording; it is played at its own pace, as segments (HLS) are
                with current:
                    for picture in _decode(source, current, paced=finite or "hls" in current.format.name):
                        attempt = 0
                        yield picture
                if finite:
                    return
                problem = f"{name}: the stream ended"
            except (av.error.FFmpegError, OSError, VideoError) as error:
                problem = f"{name}: lost ({_message(error)})"
            current = None
            if source.closed.is_set():
                return
            if not reconnect:
                raise VideoError(problem)
            if source.error is None:
                logger.warning("%s; trying to connect again", problem)
            source.error = problem
            source.closed.wait(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1

    return pictures


def _decode(source: LiveSource, container: av.container.InputContainer, paced: bool) -> Pictures:
    """Read a container as its pictures come; a damaged packet is left out."""
    stream = choose_stream(source.name, container)
    stream.codec_context.thread_type = "AUTO" if paced else "SLICE"  # type: ignore[assignment]  # frame threads add delay
    pacer, converter, begun = _Pacer(source), None, time.monotonic()
    for packet in _packets(source, container, stream):
        try:
            pictures = stream.decode(packet)
        except av.error.InvalidDataError:
            continue
        for picture in pictures:
            if picture.is_corrupt:
                continue
            if converter is None:
                orientation = read_orientation(picture)
                size = (picture.width, picture.height)
                converter = Converter(size[::-1] if orientation.transposed else size, orientation)
            image = converter.convert(picture, converter.size, "rgb24")
            pts_seconds = time.monotonic() - begun if picture.time is None else float(picture.time)
            if paced:
                pacer.wait(pts_seconds)
            yield image, pts_seconds


def _packets(source: LiveSource, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Packets until the end or until the source is closed."""
    packets = container.demux(stream)
    while not source.closed.is_set():
        try:
            yield next(packets)
        except StopIteration:
            return
        except av.error.BlockingIOError:  # some cameras say "not yet" instead of waiting
            source.closed.wait(0.002)
            packets = container.demux(stream)


def _open_with_cv2(number: int) -> cv2.VideoCapture | None:
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(number)
        if capture.isOpened() and capture.read()[0]:
            return capture
        capture.release()
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)


def _read_cv2(source: LiveSource, number: int, capture: cv2.VideoCapture) -> Pictures:
    begun = time.monotonic()
    try:
        while not source.closed.is_set():
            sound, image = capture.read()
            if not sound:
                raise VideoError(f"camera {number}: lost (it gives no more pictures)")
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), time.monotonic() - begun
    finally:
        capture.release()


def _message(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return "no data came in time"
    return message_of(error)


def _shown(url: str) -> str:
    """A URL as it may be shown: without the name and password before the @."""
    scheme, _, rest = url.partition("://")
    address, slash, path = rest.partition("/")
    return f"{scheme}://{address.rpartition('@')[2]}{slash}{path}"
