"""Where a subject stands in a video, if that is known before its frames are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streampose.runtime.find import Found
from streampose.video.decode import Probe
from streampose.video.frame import Frame


@dataclass(frozen=True)
class Standing:
    """The one subject of a video, in place of a `find.Finder`.

    Attributes:
        seconds: (T,) increasing times of the video.
        squares: (T, 4) where to look then, padding included; in between they are interpolated.
        note: how it was found.
    """

    seconds: np.ndarray
    squares: np.ndarray
    note: str
    found = "views"

    def find(self, frames: Iterator[Frame], probe: Probe) -> Iterator[Found]:
        """Say for each frame where the subject is; `probe` is not needed."""
        for frame in frames:
            square = [np.interp(frame.pts_seconds, self.seconds, edge) for edge in self.squares.T]
            yield Found(frame, [0], np.array([square], np.float32), frozenset([0]))
