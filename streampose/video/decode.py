"""Read any video file: frames in display order with true timestamps, and a verdict on what was wrong with it.

Frames are converted only when their pixels are asked for, so a frame that nobody looks at costs its decoding alone.
Memory does not grow with the length of the video.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from streampose.errors import VideoError

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv")
    + (".3gp", ".mxf", ".gif", ".mjpeg", ".mjpg", ".h264", ".h265", ".y4m")
)
ATTACHED = av.stream.Disposition.attached_pic
MAX_PIXELS = 8192 * 8192  # a frame that claims more is refused before anything is allocated
OPTIONS = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}  # a file may not make us open other addresses
PLAYLISTS = ("hls", "concat", "dash", "tty", "imf", "sdp", "rtsp")  # text that names other files, or is just text
SEQUENTIAL = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v")  # seeking in these is not exact
JUMP_SECONDS = 1.0  # a timestamp that falls back further than this starts a new time line


@dataclass(frozen=True)
class Probe:
    """What the container and the first frame say.

    Attributes:
        width, height: pixels as displayed, after rotation.
        fps: average frame rate.
        duration_seconds: None where the container does not say.
        frames_estimate: number of frames, None where nobody knows before decoding.
        codec, pixel_format: FFmpeg's names.
        rotation_degrees: how far the stored picture was turned clockwise to be shown upright.
    """

    width: int
    height: int
    fps: float
    duration_seconds: float | None
    frames_estimate: int | None
    codec: str
    pixel_format: str
    rotation_degrees: int


@dataclass(frozen=True)
class Verdict:
    """How a video came through decoding.

    Attributes:
        verdict: `ok`; `repaired` where something was lost or mended; `quarantined` where it should not be used.
        reason: what happened, for a person; empty where all is well.
        lost_spans: (start, end) seconds in which frames are missing.
    """

    verdict: str
    reason: str = ""
    lost_spans: tuple[tuple[float, float], ...] = ()


class Frame:
    """One decoded frame. Its pixels are converted when asked for; treat the arrays as read-only.

    Attributes:
        pts_seconds: when it is shown, in the container's time.
        index: number of the frame in the video, in display order.
        size: (width, height) of `image`.
    """

    __slots__ = ("_converter", "_image", "_picture", "_small", "index", "pts_seconds", "size")

    def __init__(
        self,
        image: np.ndarray | None,
        pts_seconds: float,
        index: int,
        *,
        picture: av.VideoFrame | None = None,
        converter: _Converter | None = None,
    ):
        self._image, self._picture, self._converter = image, picture, converter
        self._small: dict[tuple[int, int], np.ndarray] = {}
        self.pts_seconds, self.index = pts_seconds, index
        if image is not None:
            self.size = (image.shape[1], image.shape[0])
        else:
            assert converter is not None and picture is not None
            self.size = converter.size

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        if self._image is None:
            assert self._converter is not None and self._picture is not None
            self._image = self._converter.convert(self._picture, self.size)
        return self._image

    def small(self, size: tuple[int, int]) -> np.ndarray:
        """The whole frame at (width, height), straight from the decoder's picture: (height, width, 3) uint8 RGB."""
        if size == self.size:
            return self.image
        if size not in self._small:
            if self._picture is None or self._converter is None:
                self._small[size] = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA)
            else:
                self._small[size] = self._converter.convert(self._picture, size)
        return self._small[size]


class Video:
    """An open video; use it as a context manager. Made by `open_video`."""

    def __init__(self, path: Path, size: tuple[int, int] | None, threads: int):
        self.path, self._threads = path, threads
        self._open()
        self._notes = _Notes()
        self._rest = self._pictures()
        first = next(self._rest, None)
        if first is None:
            self.close()
            raise VideoError(
                f"{path}: no frame can be decoded ({self._notes.first_error or 'the stream is empty'}); skipped"
            )
        self._coded_size, self._orientation = (first.width, first.height), _orientation(first)
        self.probe = self._describe(first)
        self._converter = _Converter(size or (self.probe.width, self.probe.height), self._orientation)
        self._pending: av.VideoFrame | None = first

    @property
    def verdict(self) -> Verdict:
        """What was wrong with the video; complete once the frames have been read to the end."""
        return self._notes.verdict()

    def frames(self, start_seconds: float = 0.0) -> Iterator[Frame]:
        """Decode in display order, from the first frame at or after `start_seconds` of the container's time.

        Timestamps never decrease; frames without one get the time at which they are expected. `index` counts from the
        start of the video also where decoding starts later.
        """
        if self._pending is None or start_seconds > 0:
            self._container.close()
            self._open()
            self._notes = _Notes()
            pictures = self._pictures()
        else:
            pictures = itertools.chain([self._pending], self._rest)
        self._pending, index = None, 0
        if start_seconds > 0 and self._container.format.name not in SEQUENTIAL:
            pictures, index = self._seek(start_seconds)
        clock = _Clock(1 / self.probe.fps, self._notes)
        for picture in pictures:
            pts_seconds = clock.read(picture)
            if pts_seconds >= start_seconds or start_seconds <= 0:
                self._notes.see(picture, pts_seconds, self._coded_size)
                if not picture.is_corrupt:
                    yield Frame(None, pts_seconds, index, picture=picture, converter=self._converter)
            index += 1
        self._notes.end(clock.expected, self._end_seconds(), 1 / self.probe.fps)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        path = self.path
        try:
            self._container = av.open(str(path), options=OPTIONS, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{path}: {_explain(error)}; skipped") from None
        try:
            self._stream = self._choose_stream()
        except VideoError:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO"  # type: ignore[assignment]
        self._stream.codec_context.thread_count = self._threads

    def _choose_stream(self) -> av.VideoStream:
        container, path = self._container, self.path
        if any(name in PLAYLISTS for name in container.format.name.split(",")):
            raise VideoError(f"{path}: not a video but text ({container.format.long_name}); skipped")
        if container.streams.video and all(s.codec_context is None for s in container.streams.video):
            raise VideoError(
                f"{path}: no decoder for its codec; convert it with `ffmpeg -i {path.name} out.mp4`; skipped"
            )
        streams = [s for s in container.streams.video if s.codec_context and not s.disposition & ATTACHED]
        if not streams:
            what = "audio only" if container.streams.audio else "nothing that can be shown"
            raise VideoError(f"{path}: no video stream ({what}); skipped")
        stream = max(streams, key=lambda s: (s.width or 0) * (s.height or 0))
        width, height = stream.width, stream.height
        if not width or not height:
            raise VideoError(f"{path}: the size of its pictures is not known (damaged header?); skipped")
        if width * height > MAX_PIXELS:
            raise VideoError(
                f"{path}: claims frames of {width} x {height} pixels, more than the {MAX_PIXELS / 1e6:.0f} million that "
                "are read; skipped"
            )
        return stream

    def _describe(self, first: av.VideoFrame) -> Probe:
        stream, container = self._stream, self._container
        width, height = first.width, first.height
        if self._orientation.transposed:
            width, height = height, width
        fps = float(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
        duration = None
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            duration = container.duration / av.time_base
        frames = stream.frames or (round(duration * fps) if duration else None)
        return Probe(
            width,
            height,
            fps,
            duration,
            frames,
            stream.codec_context.name,
            first.format.name,
            self._orientation.degrees,
        )

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """Decoded pictures as they are shown, corrupt ones included; what cannot be read is noted and skipped."""
        demuxer = self._container.demux(self._stream)
        while True:
            try:
                packet = next(demuxer)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                self._notes.unreadable(error)
                return
            try:
                yield from self._stream.decode(packet)
            except av.error.FFmpegError as error:
                if isinstance(error, av.error.EOFError):
                    return
                self._notes.damaged(error)

    def _seek(self, start_seconds: float) -> tuple[Iterator[av.VideoFrame], int]:
        """Go to a key frame before `start_seconds`: the pictures from there, and the index of the first of them."""
        time_base = self._stream.time_base
        back_off = 0.0
        while time_base is not None and back_off < start_seconds:
            self._container.seek(int((start_seconds - back_off) / time_base), stream=self._stream)
            pictures = self._pictures()
            first = next(pictures, None)
            if first is None or first.pts is None:
                break
            if first.pts * time_base <= start_seconds:
                return itertools.chain([first], pictures), self._count_packets(before=first.pts)
            back_off = max(1.0, 2 * back_off)  # the container went too far: try from earlier on
        self._container.close()
        self._open()
        return self._pictures(), 0

    def _count_packets(self, before: int) -> int:
        with av.open(str(self.path), options=OPTIONS, metadata_errors="replace") as container:
            packets = container.demux(container.streams[self._stream.index])
            return sum(packet.pts is not None and packet.pts < before and not packet.is_discard for packet in packets)

    def _end_seconds(self) -> float | None:
        stream = self._stream
        if stream.duration is None or stream.time_base is None:
            return None
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


def open_video(path: str | Path, *, size: tuple[int, int] | None = None, threads: int = 0) -> Video:
    """Open a video file.

    Args:
        path: the file.
        size: (width, height) of the frames that are given; None for the video's own.
        threads: decoder threads, 0 for as many as there are processors.

    Raises:
        VideoError: not a file, no permission, empty, not a video, audio only, or not one frame of it can be decoded.
    """
    path = Path(path)
    _check_file(path)
    return Video(path, size, threads)


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """The videos under files and folders, sorted, each once.

    Folders are searched with all that they contain for `VIDEO_SUFFIXES`; a file that is named itself is returned
    whatever its suffix, so that it gets its verdict.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = (f for f in path.rglob("*") if f.suffix.lower() in VIDEO_SUFFIXES and not f.name.startswith("."))
            found.update(dict.fromkeys(sorted(f for f in inside if f.is_file())))
        else:
            found[path] = None
    return list(found)


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise VideoError(f"{path}: a folder, not a video; name the files in it; skipped")
        if not path.exists():
            raise VideoError(f"{path}: no such file; skipped")
        if not path.is_file():
            raise VideoError(f"{path}: not an ordinary file; skipped")
        with path.open("rb") as file:
            if not file.read(1):
                raise VideoError(f"{path}: empty (0 bytes); skipped")
    except PermissionError:
        raise VideoError(f"{path}: no permission to read it; skipped") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror or error}); skipped") from None


def _explain(error: Exception) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "not a video, or its header is damaged or missing (an mp4 whose recording was cut off has no 'moov')"
    return f"cannot be opened ({getattr(error, 'strerror', None) or error})"


@dataclass(frozen=True)
class _Orientation:
    """The turn and mirroring that a display matrix asks for: transpose first, then flip."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def degrees(self) -> int:
        """Clockwise turn of the picture, mirroring left out."""
        if self.transposed:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    def apply(self, image: np.ndarray) -> np.ndarray:
        if self.transposed:
            image = cv2.transpose(image)
        if self.flip_x or self.flip_y:
            image = cv2.flip(image, -1 if self.flip_x and self.flip_y else int(self.flip_x))
        return image


def _orientation(picture: av.VideoFrame) -> _Orientation:
    """Read the display matrix (x' = a x + c y, y' = b x + d y) that the container gave this picture."""
    try:
        side_data = cast(Mapping[SideDataType, bytes], picture.side_data)
        matrix = np.frombuffer(bytes(side_data[SideDataType.DISPLAYMATRIX]), "=i4").reshape(3, 3)
    except (KeyError, ValueError):
        return _Orientation()
    a, b, c, d = (int(v) for v in matrix[:2, :2].reshape(-1))
    if abs(b) > abs(a):
        return _Orientation(transposed=True, flip_x=c < 0, flip_y=b < 0)
    return _Orientation(flip_x=a < 0, flip_y=d < 0)


class _Converter:
    """Turns the decoder's pictures into upright RGB; one reused reformatter for each size."""

    def __init__(self, size: tuple[int, int], orientation: _Orientation):
        self.size, self._orientation = size, orientation
        self._reformatters: dict[tuple[int, int], VideoReformatter] = {}
        self._lock = threading.Lock()  # frames may be converted in another thread than they are decoded in

    def convert(self, picture: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        width, height = size[::-1] if self._orientation.transposed else size
        with self._lock:
            reformatter = self._reformatters.setdefault(size, VideoReformatter())
            image = reformatter.reformat(picture, width, height, "rgb24").to_ndarray()
        return self._orientation.apply(image)


class _Clock:
    """Gives every picture a time: the container's, or the expected one where that is missing or falls back."""

    def __init__(self, frame_seconds: float, notes: _Notes):
        self._frame_seconds, self._notes = frame_seconds, notes
        self._shift = 0.0
        self._last: float | None = None
        self.expected = 0.0

    def read(self, picture: av.VideoFrame) -> float:
        duration = self._frame_seconds
        if picture.duration and picture.time_base:
            duration = float(picture.duration * picture.time_base)
        if picture.pts is None or picture.time_base is None:
            pts_seconds = self.expected
        else:
            pts_seconds = float(picture.pts * picture.time_base) + self._shift
        if self._last is not None and pts_seconds < self._last:
            if pts_seconds < self._last - JUMP_SECONDS:
                self._shift += self.expected - pts_seconds
                pts_seconds = self.expected
            else:
                pts_seconds = self._last
            self._notes.time_fell_back()
        self._last, self.expected = pts_seconds, pts_seconds + duration
        return pts_seconds


class _Notes:
    """Collects what goes wrong while a video is read."""

    def __init__(self) -> None:
        self.first_error: str | None = None
        self._kept = self._lost = self._damaged = self._fell_back = 0
        self._read_error: str | None = None
        self._cut_short: tuple[float, float] | None = None
        self._size_change: tuple[float, int, int] | None = None
        self._spans: list[tuple[float, float]] = []
        self._last_seconds = 0.0
        self._gap_start: float | None = None

    def damaged(self, error: Exception) -> None:
        self.first_error = self.first_error or str(getattr(error, "strerror", None) or error)
        self._damaged += 1
        if self._gap_start is None:
            self._gap_start = self._last_seconds

    def unreadable(self, error: Exception) -> None:
        self._read_error = str(getattr(error, "strerror", None) or error)
        self.first_error = self.first_error or self._read_error

    def see(self, picture: av.VideoFrame, pts_seconds: float, size: tuple[int, int]) -> None:
        if picture.is_corrupt:
            self._lost += 1
            if self._gap_start is None:
                self._gap_start = pts_seconds
            return
        if self._gap_start is not None:
            self._spans.append((self._gap_start, max(pts_seconds, self._gap_start)))
            self._gap_start = None
        if (picture.width, picture.height) != size and self._size_change is None:
            self._size_change = (pts_seconds, picture.width, picture.height)
        self._kept += 1
        self._last_seconds = pts_seconds

    def time_fell_back(self) -> None:
        self._fell_back += 1

    def end(self, decoded_end: float, claimed_end: float | None, frame_seconds: float) -> None:
        if claimed_end is not None and claimed_end - decoded_end > max(3 * frame_seconds, 0.1):
            self._cut_short = (decoded_end, claimed_end)
            self._spans.append(self._cut_short)
        elif self._gap_start is not None:
            self._spans.append((self._gap_start, max(decoded_end, self._gap_start)))

    def verdict(self) -> Verdict:
        reasons = []
        if self._damaged or self._lost:
            reasons.append(f"{self._damaged + self._lost} damaged frames were left out")
        if self._cut_short:
            end, claimed = self._cut_short
            reasons.append(f"ends at {end:.2f} s although it claims {claimed:.2f} s (cut off?)")
        if self._read_error:
            reasons.append(f"reading stopped early ({self._read_error})")
        if self._fell_back:
            reasons.append(f"{self._fell_back} timestamps fell back and were mended")
        if self._size_change:
            at, width, height = self._size_change
            reasons.append(f"the picture size changes to {width} x {height} at {at:.2f} s; scaled to the first size")
        broken = self._damaged + self._lost
        verdict = "quarantined" if broken > self._kept else "repaired" if reasons else "ok"
        return Verdict(verdict, "; ".join(reasons), tuple(self._spans))
