"""Read any video file: frames in display order with true timestamps, and a verdict on what was wrong with it.

Frames are converted only when their pixels are asked for, so a frame that nobody looks at costs its decoding alone.
Memory does not grow with the length of the video. FFmpeg's own messages stay silent (PyAV's default).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av

from streampose.errors import VideoError
from streampose.video.frame import Converter, Frame, read_orientation
from streampose.video.verdict import Notes, Verdict

__all__ = ["VIDEO_SUFFIXES", "Frame", "Probe", "Verdict", "Video", "find_videos", "open_video"]

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        "mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "ts", "mts", "m2ts", "wmv", "flv", "ogv", "3gp",
        "mxf", "gif", "mjpeg", "mjpg", "h264", "h265", "y4m",
    )
)  # fmt: skip
MAX_PIXELS = 8192 * 8192  # a frame that claims more is refused before anything is allocated
OPTIONS = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}  # a file may not make us open other addresses
ATTACHED = av.stream.Disposition.attached_pic  # cover art of music
PLAYLISTS = frozenset(("hls", "concat", "dash", "tty", "imf", "sdp", "rtsp"))  # text that names other files, or is text
SEQUENTIAL = frozenset(("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v"))  # where seeking is not exact
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
        rotation_degrees: how far the stored picture is turned clockwise to be shown upright.
    """

    width: int
    height: int
    fps: float
    duration_seconds: float | None
    frames_estimate: int | None
    codec: str
    pixel_format: str
    rotation_degrees: int


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
    found: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            inside = (f for f in path.rglob("*") if f.suffix.lower() in VIDEO_SUFFIXES and not f.name.startswith("."))
            found.update(f for f in inside if f.is_file())
        else:
            found.add(path)
    return sorted(found)


class Video:
    """An open video; use it as a context manager. Made by `open_video`."""

    def __init__(self, path: Path, size: tuple[int, int] | None, threads: int):
        self.path, self._threads = path, threads
        self._notes = Notes()
        self._container, self._stream = self._open()
        self._rest = self._pictures()
        first = next(self._rest, None)
        if first is None:
            self.close()
            raise VideoError(f"{path}: no frame can be decoded ({self._notes.first_error or 'no data'}); skipped")
        self._pending: av.VideoFrame | None = first
        self._coded_size = (first.width, first.height)
        orientation = read_orientation(first)
        shown = self._coded_size[::-1] if orientation.transposed else self._coded_size
        self._converter = Converter(size or shown, orientation)
        self.probe = self._describe(first, shown, orientation.degrees)

    @property
    def verdict(self) -> Verdict:
        """What was wrong with the video; complete once the frames have been read to the end."""
        return self._notes.verdict()

    def frames(self, start_seconds: float = 0.0) -> Iterator[Frame]:
        """Decode in display order, from the first frame at or after `start_seconds` of the container's time.

        Timestamps never decrease; a frame without one gets the time at which it is expected. `index` counts from the
        start of the video also where decoding starts later; a damaged frame is left out but keeps its number.
        """
        everything = start_seconds <= 0
        pictures: Iterator[av.VideoFrame]
        if self._pending is not None and everything:
            pictures, index = itertools.chain([self._pending], self._rest), 0
        else:
            pictures, index = self._restart(start_seconds)
        self._pending = None
        frame_seconds = 1 / self.probe.fps
        clock = _Clock(frame_seconds, self._notes)
        for picture in pictures:
            pts_seconds = clock.read(picture)
            if everything or pts_seconds >= start_seconds:
                if picture.is_corrupt:
                    self._notes.lose("damaged picture", pts_seconds)
                else:
                    self._notes.keep(pts_seconds)
                    if (picture.width, picture.height) != self._coded_size:
                        self._notes.change_size(pts_seconds, picture.width, picture.height)
                    yield Frame(None, pts_seconds, index, picture=picture, converter=self._converter)
            index += 1
        self._notes.end(clock.expected, self._end_seconds(), frame_seconds)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> tuple[av.container.InputContainer, av.VideoStream]:
        try:
            container = av.open(str(self.path), options=OPTIONS, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{self.path}: {_explain(error)}; skipped") from None
        try:
            if PLAYLISTS.intersection(container.format.name.split(",")):
                raise VideoError(f"{self.path}: text, not a video ({container.format.long_name}); skipped")
            stream = choose_stream(str(self.path), container)
        except VideoError:
            container.close()
            raise
        stream.codec_context.thread_type = "AUTO"  # type: ignore[assignment]  # the stub knows the flag only
        stream.codec_context.thread_count = self._threads
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # pictures may grow later on
        return container, stream

    def _describe(self, first: av.VideoFrame, shown: tuple[int, int], degrees: int) -> Probe:
        stream = self._stream
        fps = float(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
        duration = None
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        elif self._container.duration is not None:
            duration = self._container.duration / av.time_base
        frames = stream.frames or (round(duration * fps) if duration else None)
        return Probe(*shown, fps, duration, frames, stream.codec_context.name, first.format.name, degrees)

    def _restart(self, start_seconds: float) -> tuple[Iterator[av.VideoFrame], int]:
        """Open the file anew, at a key frame before `start_seconds`: the pictures from there, the first one's index."""
        self.close()
        self._container, self._stream = self._open()
        self._notes = Notes()
        time_base, back_off = self._stream.time_base, 0.0
        if self._container.format.name in SEQUENTIAL or time_base is None:
            return self._pictures(), 0
        while back_off < start_seconds:
            self._container.seek(int((start_seconds - back_off) / time_base), stream=self._stream)
            pictures = self._pictures()
            first = next(pictures, None)
            if first is None or first.pts is None:
                break
            if first.pts * time_base <= start_seconds:
                return itertools.chain([first], pictures), self._count_packets(before=first.pts)
            back_off = max(1.0, 2 * back_off)  # the container went too far: try from earlier on
        self.close()
        self._container, self._stream = self._open()
        return self._pictures(), 0

    def _count_packets(self, before: int) -> int:
        with av.open(str(self.path), options=OPTIONS, metadata_errors="replace") as container:
            packets = container.demux(container.streams[self._stream.index])
            return sum(packet.pts is not None and packet.pts < before and not packet.is_discard for packet in packets)

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """Decoded pictures in display order, damaged ones too; what cannot be decoded is noted and left out."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                return self._notes.stop(message_of(error))
            if packet.is_corrupt and self._container.format.name not in SEQUENTIAL:
                self._notes.lose("cut off packet", _packet_seconds(packet))  # decoding it costs good pictures
                continue
            try:
                yield from self._stream.decode(packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                self._notes.lose(message_of(error), _packet_seconds(packet))

    def _end_seconds(self) -> float | None:
        stream = self._stream
        if stream.duration is None or stream.time_base is None:
            return None
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


class _Clock:
    """Gives every picture a time: the container's, or the expected one where that is missing or falls back."""

    def __init__(self, frame_seconds: float, notes: Notes):
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
            self._notes.mend_time()
            if pts_seconds < self._last - JUMP_SECONDS:
                self._shift += self.expected - pts_seconds
                pts_seconds = self.expected
            else:
                pts_seconds = self._last
        self._last, self.expected = pts_seconds, pts_seconds + duration
        return pts_seconds


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
        raise VideoError(f"{path}: cannot be read ({message_of(error)}); skipped") from None


def choose_stream(name: str, container: av.container.InputContainer) -> av.VideoStream:
    """The largest video stream that is not cover art; `name` is what a VideoError calls the source."""
    streams = [s for s in container.streams.video if not s.disposition & ATTACHED]
    if not streams:
        what = "audio only" if container.streams.audio else "nothing that can be shown"
        raise VideoError(f"{name}: no video stream ({what}); skipped")
    streams = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise VideoError(f"{name}: no decoder for its codec; convert it to h264 first; skipped")
    stream = max(streams, key=lambda s: (s.width or 0) * (s.height or 0))
    width, height = stream.width, stream.height
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{name}: claims frames of {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million; skipped"
        )
    return stream


def _explain(error: Exception) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "not a video, or its header is damaged or missing (an mp4 whose recording was cut off has no 'moov')"
    return f"cannot be opened ({message_of(error)})"


def _packet_seconds(packet: av.Packet) -> float | None:
    return None if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)


def message_of(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
