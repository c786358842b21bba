"""Smooths the keypoints of a film's subjects a moment late, so that what comes next counts as much as what came before.

A filter for live use has to follow the past, and lags behind whatever moves fast. An archive can wait: rows and their
pictures wait for `REACH_SECONDS`, or for as long as memory allows, and each track is then smoothed as
`tracking.local_fit` does. On the SynthPose test people (12.5 frames a second) the one-euro filter takes PCK@0.2 from
0.765 to 0.726 and the steps of the error from 0.0175 to 0.0149 of the crop, this to 0.767 and 0.0133.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from streampose.runtime.hold import Row
from streampose.structures import Keypoints
from streampose.tracking.local_fit import REACH, WIDTHS_SECONDS, smooth_points
from streampose.video.frame import Frame

REACH_SECONDS = REACH * max(WIDTHS_SECONDS)  # before and after a moment, that count
MOST_PAST = 128  # rows that are remembered, whatever their times say
BLOCK = 8  # rows that are smoothed at once, where so many may wait
LEAP, RETURN = 0.1, 0.5  # of the box's side, of the leap: a joint that leaps for a single frame and returns is not seen
NOISE = 0.06  # of the box's side: standard deviation of a joint that the model is sure of
LEAST_SURE = 0.05  # confidence, below which a joint's noise grows no further

Waiting = tuple[Frame, Row, frozenset[int]]


class Smoother:
    """Takes frames with their rows, in order, and gives them back, in order, with smoothed keypoints.

    Args:
        most: how many frames may wait; fewer than `REACH_SECONDS` hold make the last moments count less.
    """

    def __init__(self, most: int):
        self._most = max(1, most)
        self._past: deque[Row] = deque(maxlen=MOST_PAST)  # given back already, as they came
        self._waiting: deque[Waiting] = deque()

    def add(self, frame: Frame, row: Row, proven: frozenset[int]) -> Iterator[Waiting]:
        """The next frame; gives those that are ready."""
        self._waiting.append((frame, row, proven))
        ready = sum(row.pts_seconds - waiting.pts_seconds >= REACH_SECONDS for _, waiting, _ in self._waiting)
        full = len(self._waiting) > self._most
        if ready >= BLOCK or full:
            yield from self._give(max(ready, (self._most + 1) // 2 if full else 0))

    def finish(self) -> Iterator[Waiting]:
        """What still waits."""
        yield from self._give(len(self._waiting))

    def _give(self, count: int) -> Iterator[Waiting]:
        rows = [*self._past, *(row for _, row, _ in self._waiting)]
        first = len(self._past)
        smoothed = _smooth(rows, range(first, first + count))
        for result in smoothed:
            frame, row, proven = self._waiting.popleft()
            self._past.append(row)
            yield frame, result, proven
        if self._waiting:
            oldest = self._waiting[0][1].pts_seconds - REACH_SECONDS
            while self._past and self._past[0].pts_seconds < oldest:
                self._past.popleft()


def _smooth(rows: list[Row], wanted: range) -> list[Row]:
    """Those rows with smoothed keypoints; the others are their neighbours."""
    results = {n: (rows[n].keypoints.xy.copy(), _copy(rows[n].keypoints.z)) for n in wanted}
    for track in {track for n in wanted for track in rows[n].ids}:
        places = [(n, row.ids.index(track)) for n, row in enumerate(rows) if track in row.ids]
        xy = np.stack([rows[n].keypoints.xy[i] for n, i in places]).astype(float)
        depths = [z[i] if (z := rows[n].keypoints.z) is not None else np.zeros(xy.shape[1]) for n, i in places]
        points = np.concatenate([xy, np.stack(depths)[..., None]], -1)
        sides = np.array([rows[n].boxes[i, 2] - rows[n].boxes[i, 0] for n, i in places])
        sure = np.stack([rows[n].keypoints.confidence[i] for n, i in places]).clip(LEAST_SURE, 1)
        seconds = np.array([rows[n].pts_seconds for n, _ in places])
        seen = np.where(_leaps(xy, sides)[..., None], np.nan, points)
        smooth, _ = smooth_points(seen, NOISE * sides[:, None] / sure, seconds)
        smooth = np.where(np.isnan(points), np.nan, smooth)
        for t, (n, i) in enumerate(places):
            if n in results:
                flat, deep = results[n]
                flat[i] = smooth[t, :, :2]
                if deep is not None:
                    deep[i] = smooth[t, :, 2]
    return [
        replace(rows[n], keypoints=Keypoints(results[n][0], rows[n].keypoints.confidence, results[n][1]))
        for n in wanted
    ]


def _leaps(xy: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(T, K) whether a joint of (T, K, 2) lies far from where it was before and is after, which is one place."""
    found = np.zeros(xy.shape[:2], bool)
    if len(xy) > 2:
        leap = np.linalg.norm(xy[1:-1] - (xy[2:] + xy[:-2]) / 2, axis=-1)
        found[1:-1] = (leap > LEAP * sides[1:-1, None]) & (np.linalg.norm(xy[2:] - xy[:-2], axis=-1) < RETURN * leap)
    return found


def _copy(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values.copy()
