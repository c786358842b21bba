"""Which followed tracks are subjects, and which are shadows, reflections and flickering leaves. `ingest` keeps clips by
these rules, `annotate` writes people by them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from streampose.geometry.crop import crop_resize, square_box
from streampose.tracking.boxes import touches_border

LEAST_SECONDS = 0.4  # what is seen for a shorter time is nothing to learn from
LEAST_MOTION, LEAST_STILL_AREA = 0.12, 0.012  # what a subject must show that never leaves its place
SMALL = 0.3  # times the largest subject's area, below which a track must last longer, and more steadily:
SMALL_SECONDS, SMALL_STEADINESS = 2.0, 0.7
SIGNATURE = 24  # pixels a side of the small mask by which motion is measured
MOTION_SECONDS = 0.4
LATELY = 40  # sightings over which the usual area and motion are taken


@dataclass(frozen=True)
class Evidence:
    """What is known of a track.

    Attributes:
        seconds: for how long it was seen.
        firm: whether it has travelled; see `tracking.association.Track`.
        motion: how much its shape changes within `MOTION_SECONDS`: mean 1 - IoU of its masks, in [0, 1].
        area: its usual mask, as a share of the picture.
        at_border: share of the sightings in which it touches the picture's edge.
        steadiness: share of the time from first to last in which it was seen.
    """

    seconds: float
    firm: bool
    motion: float
    area: float
    at_border: float
    steadiness: float = 1.0


def is_subject(track: Evidence, largest: float = 0.0) -> bool:
    """Whether a track is a subject.

    Args:
        largest: area of the largest subject, as far as it is known: what is much smaller has more to prove.
    """
    lively = track.motion > LEAST_MOTION and track.area > LEAST_STILL_AREA
    if track.seconds < LEAST_SECONDS or not (track.firm or lively):
        return False
    reflection = track.at_border > 0.8 and track.area < 0.5 * largest
    doubtful = track.seconds < SMALL_SECONDS or track.steadiness < SMALL_STEADINESS
    return not reflection and not (track.area < SMALL * largest and doubtful)


class Watch:
    """Gathers the evidence of one track as it is seen.

    Args:
        seconds_apart: between two looks at the video.
    """

    def __init__(self, seconds_apart: float):
        self._apart = seconds_apart
        self._firm = False
        self._first = self._last = 0.0
        self._seen = self._at_border = 0
        self._areas: deque[float] = deque(maxlen=LATELY)
        self._motions: deque[float] = deque(maxlen=LATELY)
        self._signatures: deque[tuple[float, np.ndarray]] = deque()

    def see(self, mask: np.ndarray, box: np.ndarray, firm: bool, pts_seconds: float) -> None:
        """One more sighting.

        Args:
            mask: (h, w) bool, what of the foreground is its own.
            box: (4,) tight box in the mask's pixels.
        """
        if not self._seen:
            self._first = pts_seconds
        self._last, self._firm = pts_seconds, firm
        self._seen += 1
        self._at_border += touches_border(box, (mask.shape[1], mask.shape[0]))
        self._areas.append(float(mask.mean()))
        signature = crop_resize(mask.astype(np.uint8) * 255, square_box(box), SIGNATURE) > 127
        self._signatures.append((pts_seconds, signature))
        if pts_seconds - self._signatures[0][0] >= MOTION_SECONDS:
            _, before = self._signatures.popleft()
            shared = int((before & signature).sum()) / max(int((before | signature).sum()), 1)
            self._motions.append(1.0 - shared)

    @property
    def evidence(self) -> Evidence:
        """What the sightings so far say."""
        span = self._last - self._first + self._apart
        seconds = self._seen * self._apart
        return Evidence(
            seconds=seconds,
            firm=self._firm,
            motion=float(np.mean(self._motions)) if self._motions else 0.0,
            area=float(np.median(self._areas)) if self._areas else 0.0,
            at_border=self._at_border / max(self._seen, 1),
            steadiness=min(1.0, seconds / span),
        )
