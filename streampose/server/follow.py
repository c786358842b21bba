"""Where the subjects are in a live picture: look for them, then follow the box that their own keypoints give.

Looking: what moves before a static camera, else the whole frame. Following costs nothing: the next box comes from the
last keypoints. When a subject's confidence drops, or its box shrinks to nothing or leaves the picture, it is given up
and looked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streampose.geometry.crop import square_box
from streampose.structures import Keypoints

PATIENCE = 5  # frames with too little confidence before a subject is given up
LOOK_EVERY = 10  # frames between looks for further subjects, and between tries of the whole frame
SMALLEST = 0.04  # a subject's box side in units of the picture's longer side
BOX_STEP = 0.4  # how far a followed box moves towards the one its keypoints give, each frame


@dataclass
class Subject:
    """One followed subject: `box` (4,) square edges in source pixels, `reference` its usual confidence."""

    id: int
    box: np.ndarray
    reference: float = 0.0
    bad_frames: int = 0
    age: int = 0


class Follower:
    """Chooses the boxes for the network frame by frame.

    Args:
        find_motion: image -> (N, 4) boxes of what moves, best first; None where that cannot be told (the camera moves,
            or the background is not learnt yet). Also called on frames where nothing is looked for, to go on learning.
        box_from_keypoints: (K, 2) xy, (K,) confidence -> (4,) the square box to look at next, None where too few joints
            are sure.
        padding: of the square around a motion box, as the model was trained with.
        max_subjects: how many are followed at once.
        min_confidence: mean confidence of a subject's keypoints under which it counts as lost.
    """

    def __init__(
        self,
        find_motion: Callable[[np.ndarray], np.ndarray | None],
        box_from_keypoints: Callable[[np.ndarray, np.ndarray], np.ndarray | None],
        *,
        padding: float,
        max_subjects: int = 1,
        min_confidence: float = 0.2,
    ):
        self._find_motion, self._box_from_keypoints = find_motion, box_from_keypoints
        self._padding, self._max_subjects, self._min_confidence = padding, max_subjects, min_confidence
        self.subjects: list[Subject] = []
        self._next_id = 0
        self._frame = 0
        self._size = (0, 0)
        self._learnt = False

    def boxes(self, image: np.ndarray) -> np.ndarray:
        """(N, 4) square boxes to run the network on, N at most `max_subjects`; N may be 0."""
        height, width = image.shape[:2]
        if self._size != (width, height):  # a first frame, or the source changed its resolution
            self.subjects, self._size = [], (width, height)
        self._frame += 1
        self._learnt = False
        if len(self.subjects) < self._max_subjects and (not self.subjects or self._frame % LOOK_EVERY == 0):
            self._look(image)
        return np.array([subject.box for subject in self.subjects], np.float32).reshape(-1, 4)

    def update(self, keypoints: Keypoints) -> np.ndarray:
        """Take the network's answer for the last boxes: (N,) bool, which of them show a subject.

        `subjects` afterwards holds those, in the same order.
        """
        keep = np.zeros(len(self.subjects), bool)
        for i, subject in enumerate(self.subjects):
            score = float(keypoints.confidence[i].mean())
            enough = max(self._min_confidence, 0.5 * subject.reference)
            box = self._box_from_keypoints(keypoints.xy[i], keypoints.confidence[i]) if score >= enough else None
            if box is not None:
                subject.bad_frames = 0
                subject.reference = score if subject.age == 0 else 0.95 * subject.reference + 0.05 * score
                step = 1.0 if subject.age == 0 else BOX_STEP
                subject.box = subject.box + step * (np.asarray(box, np.float32) - subject.box)
            else:
                subject.bad_frames += 1
            subject.age += 1
            new = subject.age == 1
            keep[i] = self._in_picture(subject.box) and subject.bad_frames < (1 if new else PATIENCE)
            keep[i] &= not any(keep[j] and _iou(subject.box, self.subjects[j].box) > 0.7 for j in range(i))
        self.subjects = [subject for subject, kept in zip(self.subjects, keep, strict=True) if kept]
        return keep

    def learn(self, image: np.ndarray) -> None:
        """Go on learning the background from a frame in which nothing was looked for; call it after publishing."""
        if not self._learnt and self._frame % LOOK_EVERY == 0:
            self._find_motion(image)

    def _look(self, image: np.ndarray) -> None:
        self._learnt = True
        motion = self._find_motion(image)
        if motion is not None:
            for box in motion:
                square = square_box(box, self._padding)
                known = any(_iou(square, subject.box) > 0.3 for subject in self.subjects)
                if not known and self._in_picture(square) and len(self.subjects) < self._max_subjects:
                    self._add(square)
        if not self.subjects and (motion is None or self._frame % LOOK_EVERY == 0):
            width, height = self._size
            self._add(square_box(np.array([0, 0, width, height], np.float32)))

    def _add(self, box: np.ndarray) -> None:
        self.subjects.append(Subject(self._next_id, box))
        self._next_id += 1

    def _in_picture(self, box: np.ndarray) -> bool:
        width, height = self._size
        if not np.isfinite(box).all() or box[2] - box[0] < SMALLEST * max(width, height):
            return False
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return bool(0 <= x <= width and 0 <= y <= height)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(overlap / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap + 1e-9))
