"""Read any video: frames in display order with true timestamps, and a verdict on what was wrong with it.

Frames are converted only when their pixels are asked for, so a frame that nobody looks at costs its decoding alone.
Memory does not grow with the length of the video. FFmpeg's own messages stay silent (PyAV's default).

Gaps: a frame that is damaged, missing, or builds on a damaged one is never given out, but keeps its `index` and its
time. Readers see a gap as a jump of `index`; `Video.index.sound` and `Video.index.gaps()` list what cannot be had, and
`Video.verdict.lost_spans` says it in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av

from streampose.errors import VideoError
from streampose.video.access import Cursor
from streampose.video.container import OPTIONS, VIDEO_SUFFIXES, check_file, choose_stream, message_of
from streampose.video.decode_decord import DecordReader, import_decord, open_decord
from streampose.video.folder import AnimatedWebp, ImageFolder, is_animated_webp
from streampose.video.frame import Converter, Frame, read_orientation
from streampose.video.index import IndexBuilder, TimestampIndex
from streampose.video.interlace import deinterlace
from streampose.video.ledger import Entry
from streampose.video.media import MediaFile
from streampose.video.rhythm import Rhythm
from streampose.video.sources import find_videos
from streampose.video.verdict import Notes, Verdict

__all__ = [
    "DECODERS", "OPTIONS", "VIDEO_SUFFIXES", "Frame", "Probe", "TimestampIndex", "Verdict", "Video", "choose_stream",
    "find_videos", "message_of", "open_video",
]  # fmt: skip

DECODERS = ("pyav", "decord")
NO_FRAME = "no frame can be decoded"
BACK_OFFS = (0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0)  # seconds that a seek starts earlier when it went too far


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


def open_video(
    path: str | Path, *, size: tuple[int, int] | None = None, threads: int = 0, decoder: str = "pyav"
) -> Video:
    """Open a video file, a folder of numbered frames or an animated picture.

    Args:
        path: the file or folder.
        size: (width, height) of the frames that are given; None for the video's own.
        threads: decoder threads, 0 for as many as there are processors.
        decoder: what `Video.read` uses, one of DECODERS. `decord` is checked against PyAV first, for every file, and
            left where it errs. Frames in sequence always come from PyAV.

    Raises:
        VideoError: not a file, no permission, empty, not a video, audio only, not one frame of it can be decoded, or
            the decoder is unknown or not installed.
    """
    if decoder not in DECODERS:
        raise VideoError(f"--decoder {decoder}: unknown; choose one of {', '.join(DECODERS)}")
    if decoder == "decord":
        import_decord()
    path = Path(path)
    if path.is_dir():
        return Video(ImageFolder(path), size, decoder)
    check_file(path)
    if is_animated_webp(path):
        return Video(AnimatedWebp(path), size, decoder)
    try:
        return Video(MediaFile(path, threads), size, decoder)
    except VideoError as error:
        if NO_FRAME not in str(error):
            raise
    return Video(MediaFile(path, threads, strict=False), size, decoder)  # its encoder may have been careless


@dataclass(frozen=True)
class PassedOver:
    """A frame that was not decoded, since nobody asked for it and no other frame builds on it."""

    pts_seconds: float
    index: int


class Video:
    """An open video; use it as a context manager. Made by `open_video`.

    Attributes:
        path: the file or folder.
        probe: what the container and the first frame say.
        interlaced: whether the first frame is woven of two fields; such frames are deinterlaced.
    """

    def __init__(self, source: MediaFile | ImageFolder | AnimatedWebp, size: tuple[int, int] | None, decoder: str):
        self.path, self._source, self._decoder = source.path, source, decoder
        self._index: TimestampIndex | None = None
        self._cursor: Cursor | None = None
        self._decord: DecordReader | None = None
        self._facts = source.facts()
        self._notes = Notes(self._facts.note)
        entries = source.entries()
        self._begun: list[Entry] = []
        self._rest: Iterator[Entry] | None = entries
        for entry in entries:
            self._begun.append(entry)
            if entry.picture is not None:
                break
        else:
            problem = next((e.problem for e in self._begun if e.problem), source.read_error or "no data")
            source.close()
            raise VideoError(f"{self.path}: {NO_FRAME} ({problem}); skipped")
        first = entry.picture
        self._coded_size, self.interlaced = (first.width, first.height), first.interlaced_frame
        orientation = read_orientation(first)
        shown = self._coded_size[::-1] if orientation.transposed else self._coded_size
        self._converter = Converter(size or shown, orientation)
        facts = self._facts
        self.probe = Probe(
            *shown, facts.fps, facts.duration_seconds, facts.frames, facts.codec, first.format.name, orientation.degrees
        )

    @property
    def verdict(self) -> Verdict:
        """What was wrong with the video; complete once the frames have been read to the end."""
        return self._notes.verdict()

    @property
    def seekable(self) -> bool:
        """Whether `frames` reaches a later start without decoding all that lies before it."""
        return isinstance(self._source, MediaFile) and not self._source.sequential

    @property
    def index(self) -> TimestampIndex:
        """The times of all frames and which of them are sound. The first use decodes the video once, unless `frames`
        has been read from start to end already."""
        if self._index is None:
            with Video(self._source.again(), None, "pyav") as other:
                self._index = other.check()
        return self._index

    def check(self) -> TimestampIndex:
        """Decode the whole video without making pixels: its index, and `verdict` is complete."""
        for _ in self._rows(0.0):
            pass
        assert self._index is not None
        return self._index

    def frames(self, start_seconds: float = 0.0) -> Iterator[Frame]:
        """Decode in display order, from the first frame at or after `start_seconds` of the container's time.

        Timestamps never decrease; a frame without one gets the time at which it is expected. `index` counts from the
        start of the video also where decoding starts later; a frame that is lost is left out but keeps its number.
        """
        for entry, pts_seconds, index in self._rows(start_seconds):
            assert entry.picture is not None
            yield self._frame(entry.picture, pts_seconds, index)

    def frames_every(self, every: int, start_seconds: float = 0.0) -> Iterator[Frame | PassedOver]:
        """Like `frames`, but only those whose number is a multiple of `every` are sure to be decoded.

        Of the others those are passed over that no frame builds on, where that is known beforehand (h264 in mp4, mov).
        The frames that are given are the very ones that `frames` gives; damage in one that is passed over goes unseen.
        """
        for entry, pts_seconds, index in self._rows(start_seconds, every):
            if entry.picture is None:
                yield PassedOver(pts_seconds, index)
            else:
                yield self._frame(entry.picture, pts_seconds, index)

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """The frames of these numbers, in this order: the very frames that `frames` gives.

        Raises:
            VideoError: there is no frame of such a number, or it is damaged or missing.
        """
        index = self.index
        for i in indices:
            if not 0 <= i < len(index):
                raise VideoError(f"{self.path}: has no frame {i}; it has {len(index)} frames")
            if not index.sound[i]:
                raise VideoError(f"{self.path}: frame {i} at {index.pts_seconds[i]:.2f} s is damaged or missing")
        if self._decoder == "decord" and self._decord is None:
            self._decord = open_decord(self, self._source)
            self._decoder = "decord" if self._decord else "pyav"
        numbers = sorted(set(indices))
        if self._decord is not None:
            images = self._decord.read(numbers, self._converter.size)
            found = {i: Frame(image, float(index.pts_seconds[i]), i) for i, image in zip(numbers, images, strict=True)}
        else:
            found = dict(self._fetch(numbers))
        return [found[i] for i in indices]

    def frame_at(self, seconds: float | None = None, *, index: int | None = None) -> Frame:
        """One frame: the one on the screen at a time (the last sound one that began by then), or one by its number.

        Raises:
            VideoError: there is no such frame, or it is damaged or missing.
        """
        if (seconds is None) == (index is None):
            raise ValueError("frame_at needs either seconds or index")
        number = self.index.at(seconds) if seconds is not None else index
        assert number is not None
        return self.read([number])[0]

    def close(self) -> None:
        self._source.close()
        if self._cursor is not None:
            self._cursor.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fetch(self, numbers: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """(number, frame) for ascending numbers of sound frames, decoded by PyAV."""
        if self._cursor is None:
            self._cursor = Cursor(self._source, self.index)
        for number, picture in self._cursor.pictures(numbers):
            if picture is None:
                raise VideoError(f"{self.path}: frame {number} cannot be decoded a second time; has the file changed?")
            yield number, self._frame(picture, float(self.index.pts_seconds[number]), number)

    def _frame(self, picture: av.VideoFrame, pts_seconds: float, index: int) -> Frame:
        if picture.interlaced_frame:
            picture = deinterlace(picture)
        return Frame(None, pts_seconds, index, picture=picture, converter=self._converter)

    def _rows(self, start_seconds: float, every: int = 1) -> Iterator[tuple[Entry, float, int]]:
        """(entry with a picture, or one that was passed over, its seconds, its number) from a time on; takes notes, and
        makes the index where all are decoded."""
        everything = start_seconds <= 0
        entries, index, rhythm = self._start(start_seconds, 1 if self.interlaced else every)
        builder = IndexBuilder() if everything and self._index is None and every == 1 else None
        notes, frame_seconds = self._notes, 1 / self.probe.fps
        clock = _Clock(frame_seconds, notes)
        for entry in entries:
            pts_seconds = clock.read(entry)
            picture = entry.picture
            for seconds, pts in () if self._facts.complete else _absent(rhythm, entry, pts_seconds):
                if builder is not None:
                    builder.add(seconds, False, pts, listed=False)
                if everything or seconds >= start_seconds:
                    notes.miss(seconds)
                index += 1
            if builder is not None:
                builder.add(pts_seconds, picture is not None, entry.pts)
            if everything or pts_seconds >= start_seconds:
                if entry.passed_over:
                    notes.keep(pts_seconds)
                    yield entry, pts_seconds, index
                elif picture is None:
                    notes.lose(entry.problem, pts_seconds, entry.follows)
                else:
                    notes.keep(pts_seconds)
                    if picture.interlaced_frame:
                        notes.see_interlaced()
                    if (picture.width, picture.height) != self._coded_size:
                        notes.change_size(pts_seconds, picture.width, picture.height)
                    yield entry, pts_seconds, index
                entry.picture = None
            index += 1
        if self._source.read_error:
            notes.stop(self._source.read_error)
        if self._facts.missing_bytes:
            notes.miss_bytes(self._facts.missing_bytes)
        notes.end(clock.expected, self._facts.end_seconds, frame_seconds)
        if builder is not None:
            self._index = builder.build()

    def _start(self, start_seconds: float, every: int = 1) -> tuple[Iterator[Entry], int, Rhythm]:
        """Entries from a sound one at or before a time, the number of the first, and the rhythm of those before."""
        if self._rest is not None and start_seconds <= 0:
            begun, rest = self._begun, self._rest
            self._begun, self._rest = [], None
            if isinstance(self._source, MediaFile):
                self._source.pass_over(every)
            return _chain(begun, rest), 0, Rhythm()
        self._begun, self._rest = [], None
        self._reopen()
        source = self._source
        if isinstance(source, MediaFile):
            source.pass_over(every)
        if start_seconds <= 0 or source.sequential or source.time_base is None:
            return source.entries(), 0, Rhythm()
        for back_off in BACK_OFFS:
            if back_off >= start_seconds:
                break
            entries = source.seek(start_seconds, back_off)
            first = next(entries, None)
            if first is None or first.pts is None:
                break
            if float(first.pts * source.time_base) <= start_seconds:
                return _chain([first], entries), *source.count_before(first.pts)
        self._reopen()
        if isinstance(self._source, MediaFile):
            self._source.pass_over(every)
        return self._source.entries(), 0, Rhythm()

    def _reopen(self) -> None:
        self._source.close()
        self._source = self._source.again()
        self._notes = Notes(self._facts.note)


def _absent(rhythm: Rhythm, entry: Entry, pts_seconds: float) -> list[tuple[float, int | None]]:
    """(seconds, pts) of the frames that the container lost right before this one."""
    base = float(entry.time_base) if entry.time_base and entry.pts is not None else 0.0
    before = rhythm.last if rhythm.begun else (0.0, 0.0)
    count = rhythm.missing_before(pts_seconds, entry.duration * base)
    step = (pts_seconds - before[0]) / (count + 1)
    times = [pts_seconds - (count - i) * step for i in range(count)]
    return [(time, None if entry.pts is None else entry.pts - round((pts_seconds - time) / base)) for time in times]


def _chain(begun: list[Entry], rest: Iterator[Entry]) -> Iterator[Entry]:
    while begun:
        yield begun.pop(0)
    yield from rest


class _Clock:
    """Gives every picture a time: the container's, or the expected one where that is missing or falls back.

    After a fall the container's times go on from the expected one, until they fit again by themselves.
    """

    def __init__(self, frame_seconds: float, notes: Notes):
        self._frame_seconds, self._notes = frame_seconds, notes
        self._shift = 0.0
        self._last: float | None = None
        self.expected = 0.0

    def read(self, entry: Entry) -> float:
        time_base: Fraction | None = entry.time_base
        duration = self._frame_seconds
        if entry.duration and time_base:
            duration = entry.duration * time_base.numerator / time_base.denominator
        if entry.pts is None or time_base is None:
            pts_seconds = self.expected
        else:
            told = entry.pts * time_base.numerator / time_base.denominator
            if abs(told - self.expected) <= abs(told + self._shift - self.expected):
                self._shift = 0.0
            pts_seconds = told + self._shift
            if self._last is not None and pts_seconds < self._last:
                self._notes.mend_time()
                self._shift = self.expected - told
                pts_seconds = self.expected
        self._last, self.expected = pts_seconds, pts_seconds + duration
        return pts_seconds
