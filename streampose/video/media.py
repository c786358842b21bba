"""A video file as a run of entries: every packet with its picture, or with what became of it."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from streampose.video.claims import missing_bytes
from streampose.video.container import SEQUENTIAL, count_video_streams, message_of, open_container
from streampose.video.disposable import is_disposable, nal_length_bytes
from streampose.video.ledger import Entry, Ledger
from streampose.video.rhythm import Rhythm

MAX_FPS = 1000.0
COMPLETE = frozenset(("mov", "mp4", "gif", "apng"))  # containers that list all their frames
MARK_KEYS = frozenset(
    ("h264", "hevc", "vp8", "vp9", "libdav1d", "mpeg4", "mpeg2video")
)  # decoders that tell key frames
MOST_FLUSHES = 1000  # how often a decoder may fail while it gives what it still holds


@dataclass(frozen=True)
class Facts:
    """What a source says about itself before its pictures are looked at; None where it says nothing.

    Attributes:
        end_seconds: when its last frame ends.
        note: what the user should know about how it is read.
        missing_bytes: how much of the file is cut off.
        complete: it lists all its frames, so that a gap in their times is a pause and no loss.
    """

    fps: float
    duration_seconds: float | None
    frames: int | None
    end_seconds: float | None
    codec: str
    note: str = ""
    missing_bytes: int = 0
    complete: bool = True


class MediaFile:
    """One open video file; read from its start once with `entries`, or from elsewhere with `seek`."""

    def __init__(self, path: Path, threads: int, strict: bool = True):
        self.path, self._threads, self._strict = path, threads, strict
        self.read_error = ""
        self._container, self._stream = open_container(path, threads, strict)
        self.time_base = self._stream.time_base
        self._decoder_tells = self._stream.codec_context.name in MARK_KEYS
        self._every, self._times, self._length_bytes = 1, np.zeros(0, np.int64), 0
        formats = set(self._container.format.name.split(","))
        self.sequential, self._complete = bool(SEQUENTIAL & formats), bool(COMPLETE & formats)

    def again(self) -> MediaFile:
        """The same file, opened anew."""
        return MediaFile(self.path, self._threads, self._strict)

    def pass_over(self, every: int) -> None:
        """From now on nobody asks for pictures whose number is no multiple of `every`; 1 asks for all.

        It takes effect where the container lists the times of all its pictures, so that their numbers are known before
        they are decoded, and it can be told which no other builds on.
        """
        self._every, self._times = 1, np.zeros(0, np.int64)
        self._length_bytes = nal_length_bytes(self._stream.codec_context)
        if every > 1 and self._length_bytes and self.facts().complete:
            status = self.path.stat()
            times, _ = _packet_times(self.path, status.st_size, status.st_mtime_ns)
            if (np.diff(times) > 0).all():
                self._every, self._times = every, times

    def close(self) -> None:
        self._container.close()

    def facts(self) -> Facts:
        stream = self._stream
        rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
        fps = next((rate for rate in rates if 0 < rate <= MAX_FPS), 25.0)
        missing = missing_bytes(self.path)
        duration = end = None
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
            end = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        elif self._container.duration is not None:
            duration = self._container.duration / av.time_base
            if missing or len(self._container.streams) == 1:  # else it may be that of the audio
                end = duration
        frames = stream.frames or (round(duration * fps) if duration else None)
        if frames is not None and frames > self.path.stat().st_size:
            frames = None  # each frame takes a byte at least
        streams = count_video_streams(self._container)
        note = f"the largest of {streams} video streams was read" if streams > 1 else ""
        return Facts(
            fps, duration, frames, end, stream.codec_context.name, note, missing, self._complete and not missing
        )

    def entries(self) -> Iterator[Entry]:
        """All entries from the start, in display order. The file must have just been opened."""
        return self._read(Ledger(self.time_base, True, self._decoder_tells))

    def seek(self, seconds: float, back_off_seconds: float = 0.0) -> Iterator[Entry]:
        """Entries from the first sound picture behind a key frame at or before a time, less a back-off.

        Containers may go too far: whoever calls looks at the first entry and tries again with a larger back-off.
        """
        assert self.time_base is not None
        self._stream.codec_context.flush_buffers()
        self.read_error = ""
        try:
            self._container.seek(int((seconds - back_off_seconds) / self.time_base), stream=self._stream)
        except (av.error.FFmpegError, OSError) as error:
            self.read_error = message_of(error)
            return iter(())
        entries = self._read(Ledger(self.time_base, False, self._decoder_tells))
        return itertools.dropwhile(lambda entry: entry.picture is None, entries)

    def count_before(self, pts: int) -> tuple[int, Rhythm]:
        """How many frames lie before a timestamp, and their rhythm, by reading the file once without decoding."""
        status = self.path.stat()
        times, durations = _packet_times(self.path, status.st_size, status.st_mtime_ns)
        stop = int(np.searchsorted(times, pts))
        assert self.time_base is not None
        rhythm, base, missing = Rhythm(), float(self.time_base), 0
        if not self.facts().complete:
            pairs = zip(times[:stop], durations[:stop], strict=True)
            missing = sum(rhythm.missing_before(time * base, duration * base) for time, duration in pairs)
        return stop + missing, rhythm

    def packet_times(self) -> tuple[np.ndarray, np.ndarray]:
        """Ascending timestamps and durations of all packets that are to be shown, as the container gives them."""
        times, durations = array("q"), array("q")
        for packet in self._container.demux(self._stream):
            if packet.pts is not None and packet.size and not packet.is_discard:
                times.append(packet.pts)
                durations.append(packet.duration or 0)
        order = np.argsort(np.array(times, np.int64), kind="stable")
        return np.array(times, np.int64)[order], np.array(durations, np.int64)[order]

    def _read(self, ledger: Ledger) -> Iterator[Entry]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError) as error:
                self.read_error = message_of(error)
                break
            if not packet.size:
                continue
            if packet.is_corrupt and not self.sequential:
                ledger.feed(packet, "cut off packet")  # decoding it costs good pictures
                continue
            if self._every > 1 and self._may_be_passed_over(packet):
                ledger.pass_over(packet)
                continue
            ledger.feed(packet)
            try:
                pictures = self._stream.decode(packet)
            except av.error.EOFError:
                break
            except av.error.FFmpegError as error:
                ledger.fail(message_of(error))
                continue
            for picture in pictures:
                yield from ledger.take(picture)
        yield from self._flush(ledger)
        yield from ledger.finish()

    def _may_be_passed_over(self, packet: av.Packet) -> bool:
        """Whether nobody asks for the picture of a packet, and none builds on it."""
        if packet.pts is None or packet.is_discard or packet.is_keyframe:
            return False
        number = int(np.searchsorted(self._times, packet.pts))
        asked = number == len(self._times) or self._times[number] != packet.pts or number % self._every == 0
        return not asked and is_disposable(packet, self._length_bytes)

    def _flush(self, ledger: Ledger) -> Iterator[Entry]:
        nothing = av.Packet()
        if self._stream.time_base is not None:
            nothing.time_base = self._stream.time_base  # its pictures get it from here
        for _ in range(MOST_FLUSHES):
            try:
                pictures = self._stream.decode(nothing)
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                ledger.fail(message_of(error))
                continue
            if not pictures:
                return
            for picture in pictures:
                yield from ledger.take(picture)


@lru_cache(maxsize=1)  # spans of one long video are opened one after another
def _packet_times(path: Path, size: int, changed: int) -> tuple[np.ndarray, np.ndarray]:
    other = MediaFile(path, 1)
    try:
        return other.packet_times()
    finally:
        other.close()
