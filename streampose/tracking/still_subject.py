"""A subject who stands still before calibrated cameras, found where they agree on somebody, and its masks in each view.

`ingest` and `annotate` look for it in those views of a session in which motion shows nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from streampose.masks.volume import SubjectVolume
from streampose.structures import Camera
from streampose.tracking.across_views import DOUBTFUL, Subject, choose_subject, find_candidates, in_view, upwards
from streampose.tracking.detectors import open_detector

TRIES = 8  # moments at which a subject is looked for, before it is given up


class StillSubject:
    """The subject of a session, looked for at its first moments and then cut out at each.

    Args:
        cameras: posed ones, of all views.
        detector: as of `ingest`; the one that goes by motion is replaced by HOG, because nothing moves.
        detector_class: number of the class that the detector shall find; None for all that it knows.

    Attributes:
        subject: None until it is found.
        views: numbers of the views in whose pictures it is.
    """

    def __init__(self, cameras: Sequence[Camera], detector: str = "motion", detector_class: int | None = None):
        self._cameras, self._up, self._tries = list(cameras), upwards(cameras), 0
        self._name = "HOG" if detector in ("motion", "hog") else detector.split(":")[0]
        classes = None if detector_class is None else [detector_class]
        self._detect = open_detector("hog" if detector == "motion" else detector, classes=classes, least_score=DOUBTFUL)
        self._volume: SubjectVolume | None = None
        self.subject: Subject | None = None
        self.views: list[int] = []

    @property
    def given_up(self) -> bool:
        return self.subject is None and self._tries >= TRIES

    def look(self, images: Sequence[np.ndarray]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Its masks at the next moment.

        Args:
            images: (H, W, 3) uint8 RGB of each view.

        Returns:
            View number -> mask (S, S) uint8 in a picture of its own, and the affine map (2, 3) from the view's pixels
            to that picture's; empty while the subject is not found.
        """
        if self.subject is None and not self._find(images):
            return {}
        assert self._volume is not None
        masks = self._volume.segment([images[n] for n in self.views])
        return dict(zip(self.views, masks, strict=True))

    def _find(self, images: Sequence[np.ndarray]) -> bool:
        if self.given_up:
            return False
        self._tries += 1
        assert self._detect is not None
        seen = [find_candidates(i, c, self._up, self._detect) for i, c in zip(images, self._cameras, strict=True)]
        self.subject = choose_subject(seen, self._cameras)
        if self.subject is None:
            return False
        self.views = [n for n, camera in enumerate(self._cameras) if in_view(self.subject, camera)]
        cameras = [self._cameras[n] for n in self.views]
        self._volume = SubjectVolume(cameras, self.subject.head, self.subject.foot)
        return True

    def said(self) -> str:
        """Who was found, in words."""
        if self.subject is None:
            return "nobody is seen at one place by two of its views"
        return (
            f"the subject is the person that {int(self.subject.seen.sum())} of {len(self._cameras)} views see at one "
            f"place ({self._name})"
        )


def in_picture(mask: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """A mask of `StillSubject.look` in the view's own picture, and its tight box there.

    Args:
        size: (width, height) of the view.

    Returns:
        (H, W) uint8, and (4,) float32 edges in pixels; None where nothing of the mask is in the picture.
    """
    whole = cv2.warpAffine(mask, affine, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    x, y, width, height = cv2.boundingRect((whole > 127).astype(np.uint8))
    if width == 0 or height == 0:
        return whole, None
    return whole, np.array([x, y, x + width, y + height], np.float32)
