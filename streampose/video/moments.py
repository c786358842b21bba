"""Frames of several videos at the same moments, for synchronised recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streampose.video.decode import Video
from streampose.video.frame import Frame


def moments(videos: Sequence[Video], offsets: Sequence[float], stride: int = 1) -> Iterator[list[Frame]]:
    """Frames of all views at the same time of the session, until one of them ends.

    Args:
        videos: open ones; they are read from their beginning.
        offsets: seconds that must be added to each video's times to get the session's.
        stride: every how manyth frame of the first video is taken.
    """
    others = [_Nearest(video) for video in videos[1:]]
    for frame in videos[0].frames():
        if frame.index % stride:
            continue
        seconds = frame.pts_seconds + offsets[0]
        beside = [other.at(seconds - offset) for other, offset in zip(others, offsets[1:], strict=True)]
        frames = [frame, *(found for found in beside if found is not None)]
        if len(frames) == len(videos):
            yield frames
        elif any(other.ended for other in others):
            return


def moment_stride(video: Video, rate: float, least: int) -> int:
    """Every how manyth frame is looked at for `rate` looks a second, but at least so many looks at a short video."""
    stride = max(1, round(video.probe.fps / rate)) if rate else 1
    return max(1, min(stride, (video.probe.frames_estimate or least * stride) // least))


class _Nearest:
    """The frame of a video that is nearest to a time, for times that do not decrease."""

    def __init__(self, video: Video):
        self._frames = video.frames()
        self._step = 1 / video.probe.fps
        self._now: Frame | None = None
        self._next = next(self._frames, None)

    @property
    def ended(self) -> bool:
        return self._next is None

    def at(self, seconds: float) -> Frame | None:
        """The frame, or None where the nearest is more than a frame away."""
        while self._next is not None and (
            self._now is None or abs(self._next.pts_seconds - seconds) <= abs(self._now.pts_seconds - seconds)
        ):
            self._now, self._next = self._next, next(self._frames, None)
        if self._now is None or abs(self._now.pts_seconds - seconds) > self._step:
            return None
        return self._now
