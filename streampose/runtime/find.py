"""Where the subjects are in each frame of a video, so that the model knows where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from streampose.geometry.crop import square_box
from streampose.runtime.predictor import Predictor, box_from_keypoints
from streampose.structures import Keypoints
from streampose.video.decode import Frame, Probe
from streampose.video.shots import ShotDetector

MIN_CONFIDENCE = 0.1  # mean over the joints, under which a followed subject counts as lost
PATIENCE = 5  # frames that a followed subject may be lost before it is given up
BOX_STEP = 0.4  # how far a followed box moves towards the one that its keypoints give, each frame


class Finder(Protocol):
    """Finds the subjects frame by frame, in order.

    Attributes:
        follows: True where `find` needs the keypoints of the frame before.
        note: what the user should know about how well it worked; empty where all is well.
    """

    follows: bool
    note: str

    def find(self, frame: Frame) -> tuple[list[int], np.ndarray]:
        """Track numbers of N subjects and their (N, 4) square boxes, edges in source pixels."""

    def update(self, keypoints: Keypoints) -> np.ndarray:
        """Take the keypoints found in the N boxes of one frame: (N,) bool, which of them show a subject."""


def open_finder(path: Path, probe: Probe, predictor: Predictor, max_subjects: int) -> Finder:
    """The way to find subjects that suits a video."""
    return FollowFinder(probe, predictor)


class FollowFinder:
    """One subject: look at the whole frame, then follow the box that its own keypoints give."""

    follows = True

    def __init__(self, probe: Probe, predictor: Predictor):
        self.note = ""
        self._predictor = predictor
        self._whole = square_box(np.array([0, 0, probe.width, probe.height], np.float32))
        self._box: np.ndarray | None = None
        self._track, self._lost_frames = 0, 0
        self._shots = ShotDetector(probe.fps)

    def find(self, frame: Frame) -> tuple[list[int], np.ndarray]:
        if self._shots.update(_thumbnail(frame)):
            self._give_up()
        box = self._whole if self._box is None else self._box
        return [self._track], box[None].astype(np.float32)

    def update(self, keypoints: Keypoints) -> np.ndarray:
        skeleton, padding = self._predictor.skeleton, self._predictor.padding
        found = None
        if keypoints.confidence[0].mean() >= MIN_CONFIDENCE:
            found = box_from_keypoints(keypoints.xy[0], keypoints.confidence[0], skeleton, padding)
        if found is not None:
            step = 1.0 if self._box is None else BOX_STEP
            before = found if self._box is None else self._box
            self._box, self._lost_frames = before + step * (found - before), 0
        else:
            self._lost_frames += 1
            if self._lost_frames > PATIENCE or self._box is None:
                self._give_up()
        return np.array([found is not None])

    def _give_up(self) -> None:
        if self._box is not None:
            self._box, self._track = None, self._track + 1
        self._lost_frames = 0


def _thumbnail(frame: Frame) -> np.ndarray:
    width, height = frame.size
    return frame.small((64, max(1, round(64 * height / width))))
