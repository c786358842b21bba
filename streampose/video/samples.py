"""A few pictures from all over a video, much faster than decoding it: key frames, and some frames after each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from streampose.video.container import OPTIONS, choose_stream
from streampose.video.decode import open_video
from streampose.video.folder import is_animated_webp
from streampose.video.frame import Converter, read_orientation

FREE_FRAMES = 300  # the start is looked at closely, so that short videos are sampled well
ENOUGH_KEYS = 12  # key frames in the stretch that are samples enough without that
SHARE = 0.04  # of all later frames that are decoded for the sake of samples


def sample_pictures(
    path: str | Path,
    size: tuple[int, int],
    every_seconds: float = 0.1,
    start_seconds: float = 0.0,
    end_seconds: float = math.inf,
) -> Iterator[tuple[float, np.ndarray]]:
    """Pictures of a video in order of time, closer together at its start and after each key frame.

    What cannot be decoded is left out silently: reading the video itself reports it.

    Args:
        size: (width, height) of the pictures, upright.
        every_seconds: least time between two.
        start_seconds, end_seconds: the stretch that is looked at; what lies a little before it may be shown too.

    Yields:
        (seconds in the container's time, (h, w, 3) uint8 RGB).
    """
    if Path(path).is_dir() or is_animated_webp(Path(path)):
        yield from _spread_pictures(Path(path), size, every_seconds, start_seconds, end_seconds)
        return
    with av.open(str(path), options=OPTIONS, metadata_errors="replace") as container:
        stream = choose_stream(str(path), container)
        stream.thread_type = "AUTO"  # type: ignore[assignment]
        stream.codec_context.thread_count = 2  # a fixed number: which pictures come out depends on it
        stream.codec_context.skip_frame = "BIDIR"
        if start_seconds > 0 and stream.time_base is not None:
            container.seek(int(start_seconds / stream.time_base), stream=stream)
        converter: Converter | None = None
        last = -np.inf
        free = 0 if _lists_enough_keys(stream, start_seconds, end_seconds) else FREE_FRAMES
        for picture in _some_pictures(container, stream, every_seconds, free):
            if picture.pts is None or picture.time_base is None or picture.is_corrupt:
                continue
            seconds = float(picture.pts * picture.time_base)
            if seconds >= end_seconds:
                return
            if abs(seconds - last) < every_seconds:
                continue
            if converter is None:
                converter = Converter(size, read_orientation(picture))
            last = seconds
            yield seconds, converter.convert(picture, size, "rgb24")


def _spread_pictures(
    path: Path, size: tuple[int, int], every_seconds: float, start_seconds: float, end_seconds: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Pictures of what FFmpeg cannot seek in; each that is left out costs little."""
    last = -np.inf
    with open_video(path) as video:
        for frame in video.frames(start_seconds):
            if frame.pts_seconds >= end_seconds:
                return
            if frame.pts_seconds - last >= every_seconds - 1e-9:
                last = frame.pts_seconds
                yield last, frame.small(size)


def _lists_enough_keys(stream: av.VideoStream, start_seconds: float, end_seconds: float) -> bool:
    """Whether the container lists `ENOUGH_KEYS` key frames in a stretch."""
    if stream.time_base is None:
        return False
    time = int(start_seconds / stream.time_base)
    for _ in range(ENOUGH_KEYS):
        place = stream.index_entries.search_timestamp(time, backward=False)
        if place < 0 or stream.index_entries[place].timestamp * stream.time_base >= end_seconds:
            return False
        time = stream.index_entries[place].timestamp + 1
    return True


def _some_pictures(
    container: av.container.InputContainer, stream: av.VideoStream, every_seconds: float, free: float
) -> Iterator[av.VideoFrame]:
    credit, reaching = free + 1, False
    worth = every_seconds * float(stream.average_rate or 25)  # frames to the next sample: fewer lead nowhere
    try:
        for packet in container.demux(stream):
            credit += SHARE
            if packet.is_keyframe:
                reaching = credit >= worth
            elif packet.size and (not reaching or credit < 1):
                reaching = False  # a frame after a gap needs frames that were not decoded: wait for the next key frame
                continue
            credit -= 1
            try:
                yield from stream.decode(packet)
            except av.error.FFmpegError:
                reaching = False
    except (av.error.FFmpegError, OSError):
        return
