"""Holds annotations back until it is known which of the tracks are subjects, so that no shadow is written as a person.

The keypoints of a track that has yet to prove itself wait for a minute at most, in order, together with all that comes
after them; they are small. Pictures are not: only a few wait, so that a film may show a subject a moment late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streampose.structures import Keypoints
from streampose.video.frame import Frame

MOST_SECONDS = 60.0  # that keypoints wait


@dataclass(frozen=True)
class Row:
    """The N subjects of one frame, as they are written.

    Attributes:
        keypoints: N subjects in source pixels.
        ids: N track numbers.
        boxes: (N, 4) square boxes that the model looked at, edges in source pixels.
    """

    frame_index: int
    pts_seconds: float
    keypoints: Keypoints
    ids: list[int]
    boxes: np.ndarray

    def only(self, kept: set[int]) -> Row:
        """The same without the tracks that are not kept."""
        index = [n for n, track in enumerate(self.ids) if track in kept]
        if len(index) == len(self.ids):
            return self
        ids = [self.ids[n] for n in index]
        return Row(self.frame_index, self.pts_seconds, self.keypoints.pick(index), ids, self.boxes[index])


class Hold:
    """Passes frames and rows on, in order, with the tracks that have proven to be subjects.

    Args:
        write: takes the rows.
        draw: takes frames with their rows; None where no film is made.
        most_pictures: how many frames wait.

    Attributes:
        subjects: the tracks that have proven to be subjects.
    """

    def __init__(self, write: Callable[[Row], None], draw: Callable[[Frame, Row], None] | None, most_pictures: int):
        self.subjects: set[int] = set()
        self._write, self._draw, self._most_pictures = write, draw, most_pictures
        self._rows: deque[Row] = deque()
        self._pictures: deque[tuple[Frame, Row]] = deque()

    def add(self, frame: Frame, row: Row, proven: frozenset[int]) -> None:
        """The next frame.

        Args:
            proven: those of its tracks that are known to be subjects by now.
        """
        self.subjects |= proven
        self._rows.append(row)
        if self._draw is not None:
            self._pictures.append((frame, row))
        while self._rows and (self._known(self._rows[0]) or row.pts_seconds - self._rows[0].pts_seconds > MOST_SECONDS):
            self._write(self._rows.popleft().only(self.subjects))
        while self._pictures and (self._known(self._pictures[0][1]) or len(self._pictures) > self._most_pictures):
            self._show()

    def finish(self) -> None:
        """What still waits; tracks that have not proven themselves by now are no subjects."""
        while self._rows:
            self._write(self._rows.popleft().only(self.subjects))
        while self._pictures:
            self._show()

    def _known(self, row: Row) -> bool:
        return self.subjects.issuperset(row.ids)

    def _show(self) -> None:
        frame, row = self._pictures.popleft()
        assert self._draw is not None
        self._draw(frame, row.only(self.subjects))
