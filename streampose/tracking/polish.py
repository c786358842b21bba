"""What is done to the keypoints of followed subjects, frame by frame and without looking ahead.

Jumps are held back, left and right are kept apart, joints are judged as visible, occluded or absent, and the rest of
the noise is smoothed away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from streampose.errors import ConfigError
from streampose.structures import Keypoints, Skeleton
from streampose.tracking.kalman import KalmanFilter
from streampose.tracking.left_right import LeftRight
from streampose.tracking.one_euro import OneEuroFilter
from streampose.tracking.outliers import OutlierGate
from streampose.tracking.visibility import judge_visibility

ONE_EURO_CUTOFF = 1.5  # Hz, of a joint that stands still
ONE_EURO_BETA = 12.0  # Hz per (box side per second)
KALMAN_NOISE = 0.025  # of a box side
KALMAN_PUSH = 2.5  # box sides per second^1.5
HELD_CONFIDENCE = 0.5  # times that of a joint that was held back

Filter = OneEuroFilter | KalmanFilter


def _one_euro(side: float) -> Filter:
    return OneEuroFilter(min_cutoff=ONE_EURO_CUTOFF, beta=ONE_EURO_BETA / side)


def _kalman(side: float) -> Filter:
    return KalmanFilter(noise=KALMAN_NOISE * side, push=KALMAN_PUSH * side)


def _none(side: float) -> None:
    return None


SMOOTHINGS: dict[str, Callable[[float], Filter | None]] = {"one-euro": _one_euro, "kalman": _kalman, "none": _none}


@dataclass(frozen=True)
class Polished:
    """What became of the N subjects of one frame.

    Attributes:
        keypoints: N subjects.
        visibility: (N, K) uint8: 2 visible, 1 occluded, 0 absent.
        held: (N, K) bool, joints that jumped and were held back.
        swapped: (N,) bool, subjects whose left and right were exchanged from this frame on, or no longer are.
    """

    keypoints: Keypoints
    visibility: np.ndarray
    held: np.ndarray
    swapped: np.ndarray


@dataclass
class _Subject:
    smooth: Filter | None
    sides: LeftRight
    gate: OutlierGate = field(default_factory=OutlierGate)


class Polish:
    """Remembers each subject for as long as it is followed.

    Args:
        smoothing: one of `SMOOTHINGS`.
        repair: keep left and right apart.
        reject: hold back joints that jump.

    Raises:
        ConfigError: no such smoothing.
    """

    def __init__(self, skeleton: Skeleton, *, smoothing: str = "one-euro", repair: bool = True, reject: bool = True):
        if smoothing not in SMOOTHINGS:
            raise ConfigError(f"--smoothing {smoothing}: unknown; choose {', '.join(SMOOTHINGS)}")
        self.skeleton = skeleton
        self._smoothing, self._repair, self._reject = smoothing, repair, reject
        self._subjects: dict[int, _Subject] = {}

    def reset(self) -> None:
        """Forget all subjects: the source was lost, or shows something else."""
        self._subjects.clear()

    def apply(
        self, keypoints: Keypoints, ids: tuple[int, ...], boxes: np.ndarray, size: tuple[int, int], t_seconds: float
    ) -> Polished:
        """Polish the subjects of one frame.

        Args:
            keypoints: N subjects.
            ids: N numbers; those that are missing are forgotten.
            boxes: (N, 4) what the model looked at, square, edges in source pixels.
            size: (width, height) of the picture.
            t_seconds: when it was captured.
        """
        xy = keypoints.xy.astype(float)
        z = None if keypoints.z is None else keypoints.z.astype(float)
        confidence, held = keypoints.confidence.copy(), np.zeros(keypoints.confidence.shape, bool)
        swapped = np.zeros(len(ids), bool)
        for i, id_ in enumerate(ids):
            side = max(float(boxes[i][2] - boxes[i][0]), 1.0)
            if id_ not in self._subjects:
                self._subjects[id_] = _Subject(SMOOTHINGS[self._smoothing](side), LeftRight(self.skeleton))
            subject = self._subjects[id_]
            if self._repair:
                before = subject.sides.exchanged.copy()
                order = subject.sides.apply(xy[i], t_seconds, side)
                swapped[i] = (subject.sides.exchanged != before).any()
                xy[i], confidence[i] = xy[i][order], confidence[i][order]
                if z is not None:
                    z[i] = z[i][order]
            if self._reject:
                xy[i] = subject.gate.apply(xy[i], t_seconds, side)
                held[i] = subject.gate.rejected
                confidence[i, held[i]] *= HELD_CONFIDENCE
        seen = judge_visibility(Keypoints(xy, confidence, z), self.skeleton, size)
        for i, id_ in enumerate(ids):
            smooth = self._subjects[id_].smooth
            if smooth is not None:
                points = xy[i] if z is None else np.concatenate([xy[i], z[i][:, None]], -1)
                points = smooth.apply(points, t_seconds)
                xy[i] = points[:, :2]
                if z is not None:
                    z[i] = points[:, 2]
        self._subjects = {id_: self._subjects[id_] for id_ in ids}
        return Polished(Keypoints(xy, confidence, z), seen, held, swapped)
