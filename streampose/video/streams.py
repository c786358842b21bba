"""Cameras and network streams through FFmpeg: opened, read as they come, and opened again when they are lost."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import VideoError
from streampose.video.container import choose_stream, message_of
from streampose.video.frame import Converter, read_orientation
from streampose.video.pace import Backlog, Clock, Pacer

if TYPE_CHECKING:
    from streampose.video.live import LiveSource

RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)  # pauses before a lost stream is opened again; the last one repeats
TIMEOUT_SECONDS = (10.0, 5.0)  # to open a stream, to wait for its next data
HURRY_SECONDS = (
    0.25,
    1.0,
)  # behind a live stream from which pictures are left out, and from which only keys are decoded
LEAST_OFTEN = 0.5  # seconds between pictures, however far behind
URL_OPTIONS = {"flags": "low_delay"}
SCHEME_OPTIONS = {
    "rtsp": {"rtsp_transport": "tcp"},
    "rtsps": {"rtsp_transport": "tcp"},
    "udp": {"overrun_nonfatal": "1", "fifo_size": "50000"},
}
UNTIMED_FORMATS = frozenset(("mjpeg", "mpjpeg"))  # their timestamps are made up
CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
DEVICE_FORMATS = frozenset(CAMERA_FORMATS.values())
CAMERA_OPTIONS: tuple[dict[str, str], ...] = ({"video_size": "640x480", "framerate": "30"}, {"framerate": "30"}, {})

Pictures = Generator[tuple[np.ndarray, float, float], None, None]  # RGB, pts_seconds, monotonic time of the capture


def open_url(url: str, reconnect: bool) -> Callable[[LiveSource], Pictures]:
    """A stream from the network; it is opened now.

    Raises:
        VideoError: the address does not answer, or not with a video.
    """
    name = shown(url)
    options = {**URL_OPTIONS, **SCHEME_OPTIONS.get(url.partition("://")[0].lower(), {})}

    def open_it() -> av.container.InputContainer:
        try:
            return av.open(url, options=options, timeout=TIMEOUT_SECONDS, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{name}: cannot be opened ({_message(error)}); check the address and the network"
            ) from None

    return _stream(name, open_it, reconnect)


def open_device(name: str, device: str, device_format: str, reconnect: bool) -> Callable[[LiveSource], Pictures]:
    """A camera as FFmpeg names it.

    Raises:
        VideoError: it cannot be opened.
    """

    def open_it() -> av.container.InputContainer:
        return _open_device(name, device, device_format)

    return _stream(name, open_it, reconnect)


def open_camera(number: int, reconnect: bool) -> Callable[[LiveSource], Pictures]:
    """A camera through FFmpeg, else through OpenCV."""

    def open_it() -> av.container.InputContainer:
        return _open_device(f"camera {number}", *camera_address(number))

    try:
        return _stream(f"camera {number}", open_it, reconnect)
    except VideoError as error:
        capture = _open_with_cv2(number)
        if capture is None:
            there = list_cameras()
            raise VideoError(
                f"camera {number}: cannot be opened ({_reason(error)}); "
                f"{'there are ' + ', '.join(there) if there else 'no camera was found'}; "
                "try another --camera, a file or URL with --source, or --source test"
            ) from None
        logger.info("camera %d: opened with OpenCV, because FFmpeg cannot (%s)", number, error)
        return lambda source: _read_cv2(source, number, capture)


def _open_device(name: str, device: str, device_format: str) -> av.container.InputContainer:
    error: Exception | None = None
    for options in CAMERA_OPTIONS:
        try:
            return av.open(device, format=device_format, options=options, timeout=TIMEOUT_SECONDS)
        except (av.error.FFmpegError, OSError, ValueError) as failure:
            error = failure
    assert error is not None
    raise VideoError(f"{name}: cannot be opened ({_message(error)})")


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
        attempt, clock = 0, Clock()
        while not source.closed.is_set():
            try:
                if current is None:
                    current = open_it()
                    logger.info("%s: connected again", name)
                finite = bool(current.duration)  # a recording; it is played at its own pace, as segments (HLS) are
                with current:
                    for picture in _decode(source, current, clock, paced=finite or "hls" in current.format.name):
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


def _decode(source: LiveSource, container: av.container.InputContainer, clock: Clock, paced: bool) -> Pictures:
    """Read a container as its pictures come; a damaged packet is left out, and so is what there is no time for.

    Frames come at the size that the stream has at the moment. Where decoding cannot keep up with a live stream, first
    no pictures are made of what is decoded, then only key frames are decoded, until it has caught up; all are counted.
    """
    stream = choose_stream(source.name, container)
    context = stream.codec_context
    context.thread_type = "AUTO" if paced else "SLICE"  # type: ignore[assignment]  # frame threads add delay
    pacer, backlog = Pacer(source.closed), Backlog()
    told = container.format.name not in UNTIMED_FORMATS
    converter: Converter | None = None
    behind, shown_at, shape = 0.0, 0.0, (0, 0)
    for packet in _packets(source, container, stream):
        came = time.monotonic()
        if told and not paced and packet.dts is not None and packet.time_base is not None:
            behind = backlog.behind(float(packet.dts * packet.time_base), came)
            if behind > HURRY_SECONDS[1]:
                context.skip_frame = "NONKEY"
            elif behind < HURRY_SECONDS[0] and packet.is_keyframe:  # others would be decoded from what was left out
                context.skip_frame = "DEFAULT"
        try:
            pictures = stream.decode(packet)
        except av.error.InvalidDataError:
            continue
        if not pictures and context.skip_frame == "NONKEY":
            source.skip()
        for picture in pictures:
            if picture.is_corrupt:
                continue
            if behind > HURRY_SECONDS[0] and came - shown_at < LEAST_OFTEN:
                source.skip()
                continue
            shown_at = came
            if converter is None or shape != (picture.width, picture.height):
                orientation, shape = read_orientation(picture), (picture.width, picture.height)
                converter = Converter(shape[::-1] if orientation.transposed else shape, orientation)
            image = converter.convert(picture, converter.size, "rgb24")
            own = float(picture.time) if told and picture.time is not None else None
            pts_seconds = clock.tell(own, came, behind)
            yield image, pts_seconds, pacer.wait(pts_seconds) if paced else came


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
            came = time.monotonic()
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), came - begun, came
    finally:
        capture.release()


def _reason(error: VideoError) -> str:
    """What is in the brackets of "cannot be opened (...)", else all after the name."""
    text = str(error).partition(": ")[2]
    return text.removeprefix("cannot be opened (").removesuffix(")")


def _message(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return "no data came in time"
    return message_of(error)


def shown(url: str) -> str:
    """A URL as it may be shown: without the name and password before the @."""
    scheme, _, rest = url.partition("://")
    address, slash, path = rest.partition("/")
    return f"{scheme}://{address.rpartition('@')[2]}{slash}{path}"
