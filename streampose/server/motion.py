"""What moves before a static camera: where a live session looks for its subjects."""

from __future__ import annotations

import cv2
import numpy as np

from streampose.geometry.crop import shrink
from streampose.masks.background import BackgroundModel, model_size
from streampose.tracking.boxes import blob_mask, find_blobs, join_fragments

LEARN_CALLS = 30  # pictures before the background is trusted; so long the model learns fast
MOST_FOREGROUND = 0.7  # share of the picture; more is a change of light or of the scene
LEAST_AREA = 0.003  # share of the picture; less is a leaf
CHANGE = 12  # grey levels between two pictures that count as movement
CELLS = (16, 12)  # the camera is judged by that many parts of the picture
ANCHOR_CALLS = 200  # pictures after which the scene is compared with a newer picture of it


class MotionFinder:
    """Boxes of what differs from a background that is learnt as the pictures come, those that move now first.

    That the camera stands still is checked, not assumed: most of the scene must stay as it was. When it moved, the
    light changed all over, or the resolution changed, learning begins anew.
    """

    def __init__(self) -> None:
        self._anchor: np.ndarray | None = None
        self._before: np.ndarray = np.zeros((0, 0, 3), np.uint8)
        self._model = BackgroundModel("mog2")
        self._calls = 0

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """Look at a picture.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (N, 4) float32 boxes, edges in pixels of the image, best first; None while nothing can be said.
        """
        height, width = image.shape[:2]
        small: np.ndarray = shrink(image, model_size(width, height))
        if self._anchor is None or small.shape != self._anchor.shape or not same_scene(self._anchor, small):
            self._begin(small)
            return None
        mask = self._model.apply(small)
        moving = cv2.absdiff(small, self._before).max(-1) > CHANGE
        self._before = small
        self._calls += 1
        if self._calls % ANCHOR_CALLS == 0:
            self._anchor = small
        if self._calls < LEARN_CALLS:
            return None
        if cv2.countNonZero(mask) > MOST_FOREGROUND * mask.size:
            self._begin(small)
            return None
        return _boxes(mask, moving) * (width / small.shape[1])

    def _begin(self, anchor: np.ndarray) -> None:
        self._anchor = self._before = anchor
        self._model = BackgroundModel("mog2")
        self._model.apply(anchor)
        self._calls = 0


def same_scene(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a camera that took both pictures (h, w, 3) stood still: most parts that have structure did not change.

    A shift by a pixel changes a part by about its mean gradient; a subject changes only the parts where it is or was.
    Corners cannot be asked: on a plain wall most of them belong to the subject.
    """
    before, now = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) for image in (a, b))
    difference = now - before
    difference = np.abs(difference - float(np.median(difference)))  # without a change of light
    slopes = cv2.magnitude(cv2.Sobel(before, cv2.CV_32F, 1, 0), cv2.Sobel(before, cv2.CV_32F, 0, 1)) / 8
    changed, slope = (cv2.resize(image, CELLS, interpolation=cv2.INTER_AREA) for image in (difference, slopes))
    structured = np.asarray(slope > 1.5)
    if structured.sum() < 12:
        structured = np.ones_like(structured)
    return bool((changed < np.maximum(4.0, 0.6 * slope))[structured].mean() > 0.5)


def _boxes(mask: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """(N, 4) boxes of the blobs of a mask (h, w) 0/255, ordered by size and movement (h, w) bool."""
    labels, blobs = find_blobs(mask)
    blobs = [blob for blob in join_fragments(blobs) if blob.area >= LEAST_AREA * mask.size]
    blobs.sort(key=lambda blob: -blob.area * (0.05 + moving[blob_mask(labels, blob)].mean()))
    return np.array([blob.box for blob in blobs], np.float32).reshape(-1, 4)
