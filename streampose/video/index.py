"""The times of all frames of a video, as decoding it once found them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

NO_PTS = np.iinfo(np.int64).min


@dataclass(frozen=True)
class TimestampIndex:
    """One row a frame, in display order; damaged and missing frames have theirs, so that numbers and times stay true.

    Attributes:
        pts_seconds: (N,) float64, when each is shown; never decreases.
        sound: (N,) bool, False where the frame is damaged or missing and cannot be had.
        pts: (N,) int64, the container's own timestamps in its time base; NO_PTS where it gives none.
        listed: (N,) bool, False where the container has no trace of a frame, only a gap in its times.
    """

    pts_seconds: np.ndarray
    sound: np.ndarray
    pts: np.ndarray
    listed: np.ndarray

    def __len__(self) -> int:
        return len(self.pts_seconds)

    def at(self, seconds: float) -> int:
        """Number of the sound frame that is on the screen at a time: the last one that began, or the first of all."""
        numbers = np.flatnonzero(self.sound)
        if not len(numbers):
            raise IndexError("the video has no sound frame")
        place = int(np.searchsorted(self.pts_seconds[numbers], seconds + 1e-9, side="right")) - 1
        return int(numbers[max(place, 0)])

    def gaps(self) -> list[tuple[int, int]]:
        """(first, stop) numbers of the runs of frames that cannot be had."""
        edges = np.flatnonzero(np.diff(np.r_[True, self.sound, True].astype(np.int8)))
        return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]

    @property
    def seekable(self) -> bool:
        """Whether the timestamps tell the frames apart, so that one can be found again after a seek."""
        return bool(len(self.pts)) and self.pts[0] != NO_PTS and bool((np.diff(self.pts) > 0).all())


class IndexBuilder:
    """Collects the rows of a `TimestampIndex` while a video is read from its start."""

    def __init__(self) -> None:
        self._seconds, self._sound, self._listed, self._pts = array("d"), array("b"), array("b"), array("q")

    def add(self, pts_seconds: float, sound: bool, pts: int | None, listed: bool = True) -> None:
        """The next frame in display order."""
        self._seconds.append(pts_seconds)
        self._sound.append(sound)
        self._listed.append(listed)
        self._pts.append(NO_PTS if pts is None else pts)

    def build(self) -> TimestampIndex:
        """The index of all rows so far."""
        seconds = np.maximum.accumulate(np.array(self._seconds, np.float64)) if self._seconds else np.zeros(0)
        sound, listed = np.array(self._sound, bool), np.array(self._listed, bool)
        return TimestampIndex(seconds, sound, np.array(self._pts, np.int64), listed)
