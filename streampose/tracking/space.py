"""People in space, from their keypoints in several calibrated views: matched, straightened, triangulated, smoothed.

Works window by window, so that a day takes no more memory than a minute.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streampose.geometry.left_right import LeftRight
from streampose.geometry.match_views import extent
from streampose.geometry.triangulate import picture_side, triangulate_robust
from streampose.structures import Camera, Skeleton
from streampose.tracking.local_fit import smooth_points
from streampose.tracking.views import Moment, Person, Seen, ViewMatcher, join_moments

WINDOW_MOMENTS = 64
AGREE_SHARE = 0.15  # of a person's extent in the picture: views further than this from a joint never belong to it
LEAST_AGREE = 0.01  # of the picture's longer side; no nearer view is left out


@dataclass(frozen=True)
class InSpace:
    """One person over the T moments of a window.

    Attributes:
        id: the same in all windows.
        seconds: (T,) time of the session.
        points: (T, K, 3) metres; NaN where missing.
        uncertainty: (T, K) metres, one standard deviation.
        seen: (V, T, K, 2) what the views saw, left and right exchanged where that was needed.
        error_px: (V, T, K) between that and the re-projected joint, outliers included, before smoothing.
        inliers: (V, T, K) bool, the views that made the joint.
        exchanged: (V, T, K) bool, where the view had left and right confused.
    """

    id: int
    seconds: np.ndarray
    points: np.ndarray
    uncertainty: np.ndarray
    seen: np.ndarray
    error_px: np.ndarray
    inliers: np.ndarray
    exchanged: np.ndarray


def reconstruct(
    views: Sequence[Iterator[Seen]],
    cameras: Sequence[Camera],
    skeleton: Skeleton,
    *,
    tolerance_seconds: float,
    smooth: bool = True,
    left_right: bool = True,
    same: Collection[int] = (),
) -> Iterator[list[InSpace]]:
    """The people of a session, window by window: those whom two views or more see.

    Args:
        views: the frames of each view, in order of time.
        tolerance_seconds: frames that are so close in time count as one moment; half of the time between frames.
        smooth: smooth the points in time, see `local_fit.smooth_points`.
        left_right: exchange left and right in views that confuse them.
        same: numbers of views whose tracks are known to be one person.
    """
    windows = _windows(join_moments(views, tolerance_seconds), cameras, skeleton, left_right, same)
    if not smooth:
        yield from windows
        return
    before: list[InSpace] = []
    now: list[InSpace] | None = None
    for after in windows:
        if now is not None:
            yield [_smooth(person, before, after) for person in now]
            before = now
        now = after
    if now is not None:
        yield [_smooth(person, before, []) for person in now]


def _windows(
    moments: Iterator[Moment],
    cameras: Sequence[Camera],
    skeleton: Skeleton,
    left_right: bool,
    same: Collection[int],
) -> Iterator[list[InSpace]]:
    matcher = ViewMatcher(cameras, skeleton.flip_index, same)
    repairs: dict[int, LeftRight] = {}
    window: list[Moment] = []

    def solve() -> list[InSpace]:
        seconds = np.array([moment.seconds for moment in window])
        people = []
        for person in matcher.match(window):
            repair = repairs.setdefault(person.id, LeftRight(cameras, skeleton)) if left_right else None
            people.append(_place(person, seconds, cameras, repair))
        return people

    for moment in moments:
        window.append(moment)
        if len(window) == WINDOW_MOMENTS:
            yield solve()
            window = []
    if window:
        yield solve()


def _place(person: Person, seconds: np.ndarray, cameras: Sequence[Camera], repair: LeftRight | None) -> InSpace:
    xy, confidence = person.xy, person.confidence
    exchanged = np.zeros(confidence.shape, bool)
    if repair is not None:
        xy, confidence, exchanged = repair.apply(xy, confidence)
    V, T, K = confidence.shape
    sizes = extent(xy)
    size = float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 0.0
    gate = max(AGREE_SHARE * size, LEAST_AGREE * max(picture_side(camera) for camera in cameras))
    found = triangulate_robust(cameras, xy.reshape(V, T * K, 2), confidence.reshape(V, T * K), max_px=gate)
    shape = (V, T, K)
    return InSpace(
        person.id, seconds, found.points.reshape(T, K, 3), found.uncertainty.reshape(T, K), xy,
        found.error_px.reshape(shape), found.inliers.reshape(shape), exchanged,
    )  # fmt: skip


def _smooth(person: InSpace, before: list[InSpace], after: list[InSpace]) -> InSpace:
    """The person of one window, smoothed together with the windows before and after."""
    sides = [next((p for p in side if p.id == person.id), None) for side in (before, after)]
    parts = [p for p in (sides[0], person, sides[1]) if p is not None]
    start = len(sides[0].seconds) if sides[0] is not None else 0
    points, uncertainty = smooth_points(
        np.concatenate([p.points for p in parts]),
        np.concatenate([p.uncertainty for p in parts]),
        np.concatenate([p.seconds for p in parts]),
    )
    mine = slice(start, start + len(person.seconds))
    # What a detector gets wrong it gets wrong for a while: smoothing makes a point no surer.
    sure = np.where(np.isfinite(person.uncertainty), person.uncertainty, uncertainty[mine])
    return replace(person, points=points[mine], uncertainty=np.where(np.isfinite(points[mine, :, 0]), sure, np.nan))
