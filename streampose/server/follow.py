"""Where the subjects are in a live picture: look for them, then follow the box that their own keypoints give.

Looking: what moves before a static camera, else the whole frame. Following costs nothing: the next box comes from the
last keypoints. When a subject's confidence drops, its box goes where something moves; where nothing does, or its box
shrinks to nothing or leaves the picture, or all movement has been elsewhere for a while, it is given up and looked for
again. So a weak model is led by the movement, and a strong one leads itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streampose.geometry.crop import square_box
from streampose.structures import Keypoints
from streampose.tracking.boxes import box_iou
from streampose.tracking.identities import Identities

PATIENCE = 5  # frames with too little confidence before a subject is given up
LOOK_EVERY = 10  # frames between looks at what moves, and between tries of the whole frame of a static camera
LEARN_EVERY = 3  # frames between those looks while it is not known yet what moves
TRIES = 2  # boxes that are tried beyond those needed; the surest stay
PART = 0.7  # of movement that lies inside a subject's box, and whose middle is near one of its joints: a part of it
AT_JOINT = 0.12  # of a box side: near a joint
SAME = 0.1  # of a box side between the keypoints of two subjects, on average, that are one and the same
NEAR = 0.2  # overlap from which movement counts as a subject's own
STRAY_LOOKS = 4  # looks in a row with all movement elsewhere before a subject is given up
SMALLEST = 0.04  # a subject's box side in units of the picture's longer side
BOX_STEP = 0.4  # how far a followed box moves towards the one its keypoints give, each frame


@dataclass
class Subject:
    """One subject.

    Attributes:
        box: (4,) square edges in source pixels.
        sure: its keypoints were confident enough in the last frame to say where it is.
        moving: something moves where it is; known for subjects that are not sure.
        order: the place of that movement, 0 moves most.
        reference: its usual confidence.
        bad_frames, stray_looks: how long it has not been sure; how often all movement was elsewhere.
        age: frames it has been looked at.
        xy: (K, 2) where its joints were last, while it is sure.
    """

    id: int
    box: np.ndarray
    sure: bool = False
    moving: bool = False
    order: int = 0
    reference: float = 0.0
    bad_frames: int = 0
    stray_looks: int = 0
    age: int = 0
    xy: np.ndarray | None = None


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
        look_every: frames between looks for further subjects while all are sure.
        whole_frame: try the whole frame where nothing is found; not beside a detector, which sees who stands still.
        identities: gives a subject its old number when it comes back; None counts on.

    Attributes:
        subjects: those that are followed.
        motion: what was found last, (N, 4) boxes or None.
    """

    def __init__(
        self,
        find_motion: Callable[[np.ndarray], np.ndarray | None],
        box_from_keypoints: Callable[[np.ndarray, np.ndarray], np.ndarray | None],
        *,
        padding: float,
        max_subjects: int = 1,
        min_confidence: float = 0.1,
        look_every: int = LOOK_EVERY,
        whole_frame: bool = True,
        identities: Identities | None = None,
    ):
        self._find_motion, self._box_from_keypoints = find_motion, box_from_keypoints
        self._padding, self._max_subjects, self._min_confidence = padding, max_subjects, min_confidence
        self._look_every, self._whole_frame, self._identities = look_every, whole_frame, identities
        self.subjects: list[Subject] = []
        self._next_id = 0
        self._frame = 0
        self._size = (0, 0)
        self._looked = False
        self.motion: np.ndarray | None = None

    def boxes(self, image: np.ndarray) -> np.ndarray:
        """(N, 4) square boxes to run the network on; none where there is nothing to look at."""
        height, width = image.shape[:2]
        if self._size != (width, height):  # a first frame, or the source changed its resolution
            self.subjects, self._size = [], (width, height)
        self._frame += 1
        self._looked = False
        all_sure = bool(self.subjects) and all(subject.sure for subject in self.subjects)
        if not all_sure or (len(self.subjects) < self._max_subjects and self._frame % self._look_every == 0):
            self._look(image)
        return np.array([subject.box for subject in self.subjects], np.float32).reshape(-1, 4)

    def update(self, keypoints: Keypoints, image: np.ndarray | None = None) -> np.ndarray:
        """Take the network's answer for the last boxes: (N,) bool, which of them show a subject.

        `subjects` afterwards holds those, in the same order, at most `max_subjects`. With the picture, who comes back
        is known by its looks.
        """
        scores = keypoints.confidence.mean(-1) if len(self.subjects) else np.zeros(0)
        for subject, score, xy, confidence in zip(
            self.subjects, scores, keypoints.xy, keypoints.confidence, strict=True
        ):
            self._update_one(subject, float(score), xy, confidence)

        def rank(i: int) -> tuple[float, float]:
            subject = self.subjects[i]
            if subject.sure:  # those followed for longer come first, then the surest
                return 1.0 + min(subject.age, PATIENCE), scores[i]
            return round(scores[i], 1), -subject.order  # small differences of what is not sure mean nothing

        kept: list[int] = []
        for i in sorted(range(len(scores)), key=rank, reverse=True):
            same = any(self._same(i, j, keypoints.xy) for j in kept)
            if self._alive(self.subjects[i]) and not same and len(kept) < self._max_subjects:
                kept.append(i)
        keep = np.zeros(len(scores), bool)
        keep[kept] = True
        self.subjects = [subject for subject, stays in zip(self.subjects, keep, strict=True) if stays]
        if self._identities is not None and image is not None:
            numbers = self._identities.name([s.id for s in self.subjects], keypoints.pick(keep), image)
            for subject, number in zip(self.subjects, numbers, strict=True):
                subject.id = number
        return keep

    def learn(self, image: np.ndarray) -> None:
        """Look at what moves in a frame in which nothing was looked for; call it after publishing, it takes a while.

        So the background goes on being learnt, and a box that has little or nothing to do with the movement is noticed.
        """
        if self._looked or self._frame % (LEARN_EVERY if self.motion is None else self._look_every):
            return
        self.motion = self._find_motion(image)
        if self.motion is None or not len(self.motion):
            return
        squares = np.stack([square_box(box, self._padding) for box in self.motion])
        overlap = box_iou(np.array([subject.box for subject in self.subjects]).reshape(-1, 4), squares)  # (N, M)
        all_claimed = (overlap > NEAR).any(0).all()
        for subject, row in zip(self.subjects, overlap, strict=True):
            near = int(row.argmax())
            if row[near] <= NEAR:
                subject.stray_looks += not all_claimed
                continue
            subject.stray_looks = 0
            if row[near] < 0.5 and (overlap[:, near] > NEAR).sum() == 1:  # its box has grown or shrunk off the subject
                subject.box = subject.box + BOX_STEP * (squares[near] - subject.box)

    def _update_one(self, subject: Subject, score: float, xy: np.ndarray, confidence: np.ndarray) -> None:
        enough = max(self._min_confidence, 0.5 * subject.reference)
        box = self._box_from_keypoints(xy, confidence) if score >= enough else None
        subject.sure = box is not None
        subject.xy = xy if subject.sure else None
        if box is None:
            subject.bad_frames += 1
        else:
            subject.bad_frames = 0
            subject.reference = 0.95 * subject.reference + 0.05 * score if subject.reference else score
            step = 1.0 if subject.age == 0 else BOX_STEP
            subject.box = subject.box + step * (np.asarray(box, np.float32) - subject.box)
        subject.age += 1

    def _alive(self, subject: Subject) -> bool:
        patience = 1 if subject.age == 1 else PATIENCE
        found = subject.bad_frames < patience or subject.moving
        return found and subject.stray_looks < STRAY_LOOKS and self._in_picture(subject.box)

    def _look(self, image: np.ndarray) -> None:
        self._looked = True
        self.motion = self._find_motion(image)
        squares = [] if self.motion is None else [square_box(box, self._padding) for box in self.motion]
        for subject in self.subjects:
            overlaps = [_iou(square, subject.box) for square in squares]
            subject.moving = max(overlaps, default=0.0) > NEAR
            if subject.moving and not subject.sure:
                subject.order = int(np.argmax(overlaps))
                subject.box = subject.box + BOX_STEP * (squares[subject.order] - subject.box)
        for order, square in enumerate(squares):
            known = any(_iou(square, subject.box) > 0.3 or _is_part(square, subject) for subject in self.subjects)
            if not known and self._in_picture(square) and len(self.subjects) < self._max_subjects + TRIES:
                self._add(square, moving=True, order=order)
        if self._whole_frame and not self.subjects and (self.motion is None or self._frame % self._look_every == 0):
            width, height = self._size
            self._add(square_box(np.array([0, 0, width, height], np.float32)), moving=False)

    def _same(self, i: int, j: int, xy: np.ndarray) -> bool:
        """Whether two subjects are one, by their boxes or by their keypoints (N, K, 2)."""
        a, b = self.subjects[i].box, self.subjects[j].box
        apart = float(np.linalg.norm(xy[i] - xy[j], axis=-1).mean())
        return _iou(a, b) > 0.7 or apart < SAME * max(float(a[2] - a[0]), float(b[2] - b[0]))

    def _add(self, box: np.ndarray, moving: bool, order: int = 0) -> None:
        self.subjects.append(Subject(self._next_id, box, moving=moving, order=order))
        self._next_id += 1

    def _in_picture(self, box: np.ndarray) -> bool:
        width, height = self._size
        if not np.isfinite(box).all() or box[2] - box[0] < SMALLEST * max(width, height):
            return False
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return bool(0 <= x <= width and 0 <= y <= height)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(box_iou(a[None], b[None])[0, 0])


def _is_part(square: np.ndarray, subject: Subject) -> bool:
    """Whether movement (4,) is only a part of a subject, as a torn mask gives it."""
    both = np.clip(np.minimum(square[2:], subject.box[2:]) - np.maximum(square[:2], subject.box[:2]), 0, None).prod()
    if subject.xy is None or both < PART * (square[2:] - square[:2]).prod():
        return False
    away = np.linalg.norm(subject.xy - (square[:2] + square[2:]) / 2, axis=-1).min()
    return bool(away < AT_JOINT * (subject.box[2] - subject.box[0]))
