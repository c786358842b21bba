"""Turn one followed subject into the frames of a clip: steady square crops with refined masks, usable frames only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import cv2
import numpy as np

from streampose.geometry.crop import crop_resize
from streampose.masks.background import Background
from streampose.masks.refine import refine_mask
from streampose.tracking.boxes import steady_square, touches_border

STEADY_SECONDS = 0.2  # before and after that steady the box
SIGNATURE = 24  # pixels a side of the small mask by which motion is measured
MOTION_SECONDS = 0.4
USUAL_SECONDS = 1.3  # over which its usual size is taken


class Picture(Protocol):
    """What is needed of a frame: `video.frame.Frame`, or anything alike."""

    index: int
    pts_seconds: float
    size: tuple[int, int]

    def crop(self, box: np.ndarray, size: int) -> np.ndarray: ...


@dataclass(frozen=True)
class _Sighting:
    frame: Picture
    box: np.ndarray
    mask: np.ndarray
    others: np.ndarray


class Follower:
    """Cuts one subject out of the frames in which it is seen, a few frames later, when its way is known on both sides.

    Args:
        size: side of the crops in pixels.
        mask_size: (width, height) of the coarse masks.
        scene: the empty scene behind it; None for want of one.
        keep: takes (crop, mask, box, pts_seconds, frame_index) of every usable frame.
        fps: how many frames a second it is given.
        stride: difference of the numbers of two frames that follow each other.
        refine: takes (crop, None, coarse mask) and gives the mask where there is no scene; None keeps no masks then.
    """

    def __init__(
        self,
        size: int,
        mask_size: tuple[int, int],
        scene: Background | None,
        keep: Callable[[np.ndarray, np.ndarray, np.ndarray, float, int], None],
        fps: float = 30.0,
        stride: int = 1,
        refine: Callable[[np.ndarray, None, np.ndarray], np.ndarray] | None = None,
    ):
        self._size, self._mask_size, self.scene, self._keep = size, mask_size, scene, keep
        self._window, self._stride = max(2, round(STEADY_SECONDS * fps)), stride
        self._usual = max(10, round(USUAL_SECONDS * fps))
        self._refine = refine
        self._sightings: list[_Sighting] = []
        self._next = 0
        self._areas: list[float] = []
        self._signatures: list[tuple[float, np.ndarray]] = []
        self._motions = self._motion_sum = 0.0
        self.kept = self.at_border = 0
        self._first = self._last = 0

    @property
    def motion(self) -> float:
        """How much its shape changes within a moment: mean 1 - IoU of its masks, in [0, 1]."""
        return self._motion_sum / self._motions if self._motions else 0.0

    @property
    def steadiness(self) -> float:
        """Share of the frames between its first and its last that were kept, in [0, 1]."""
        return self.kept / ((self._last - self._first) // self._stride + 1) if self.kept else 0.0

    @property
    def area(self) -> float:
        """Median size of late, in pixels of the coarse mask."""
        return median(self._areas) if self._areas else 0.0

    def see(self, frame: Picture, box: np.ndarray, mask: np.ndarray, foreground: np.ndarray) -> None:
        """The subject in one more frame.

        Args:
            box: (4,) tight box in the coarse mask's pixels.
            mask: (h, w) bool, its own part of the foreground.
            foreground: (h, w) uint8, all of it.
        """
        if self._sightings and frame.index - self._sightings[-1].frame.index > self._window * self._stride:
            self.finish()
        window = self._around(box)
        own = mask[window]
        others = (foreground[window] > 0) & ~own
        self._sightings.append(_Sighting(frame, box, own, others))
        if len(self._sightings) > self._next + self._window:
            self._cut()

    def finish(self) -> None:
        """Cut the frames that still wait for later ones."""
        while self._next < len(self._sightings):
            self._cut()
        self._sightings, self._next = [], 0

    def _cut(self) -> None:
        now = self._sightings[self._next]
        scale = np.array(now.frame.size, np.float32) / self._mask_size
        boxes = np.stack([sighting.box for sighting in self._sightings]) * np.tile(scale, 2)
        square = steady_square(boxes, self._next)
        self._next += 1
        if self._next > self._window:
            self._sightings.pop(0)
            self._next -= 1
        area = float(np.count_nonzero(now.mask))
        if not self._plausible(area):
            return
        crop = now.frame.crop(square, self._size)
        mask = np.zeros((self._size, self._size), np.uint8)
        if self.scene is not None or self._refine is not None:
            mask = self._refined(now, crop, square)
            if not 0.005 < np.count_nonzero(mask) / mask.size < 0.9:
                return
        self._measure(now, mask)
        self._keep(crop, mask, square, now.frame.pts_seconds, now.frame.index)
        self._first = now.frame.index if self.kept == 0 else self._first
        self._last = now.frame.index
        self.kept += 1

    def _refined(self, now: _Sighting, crop: np.ndarray, square: np.ndarray) -> np.ndarray:
        """Its mask in a crop, (S, S) uint8."""
        scale = np.array(now.frame.size, np.float32) / self._mask_size
        rows, columns = self._around(now.box)
        corner = np.array([columns.start, rows.start] * 2, np.float32)
        coarse_box = square / np.tile(scale, 2) - corner
        coarse = crop_resize(now.mask.astype(np.uint8) * 255, coarse_box, self._size)
        others = crop_resize(now.others.astype(np.uint8) * 255, coarse_box, self._size) if now.others.any() else None
        if self.scene is None:
            assert self._refine is not None
            return self._refine(crop, None, coarse)
        to_scene = np.array(self.scene.image.shape[1::-1], np.float32) / now.frame.size
        return refine_mask(crop, self.scene, square * np.tile(to_scene, 2), coarse, others)

    def _plausible(self, area: float) -> bool:
        """Whether the mask is about as large as it has been of late; a sudden change is an error or an occlusion."""
        usual = self.area
        self._areas = [*self._areas[-self._usual :], area]
        return usual == 0 or 0.4 < area / usual < 2.2

    def _measure(self, now: _Sighting, mask: np.ndarray) -> None:
        self.at_border += touches_border(now.box, self._mask_size)
        signature = cv2.resize(mask, (SIGNATURE, SIGNATURE), interpolation=cv2.INTER_AREA) > 127
        seconds = now.frame.pts_seconds
        self._signatures.append((seconds, signature))
        if seconds - self._signatures[0][0] >= MOTION_SECONDS:
            before = self._signatures.pop(0)[1]
            self._motion_sum += 1.0 - (before & signature).sum() / max((before | signature).sum(), 1)
            self._motions += 1

    def _around(self, box: np.ndarray) -> tuple[slice, slice]:
        """The part of the coarse mask that a crop around this box can show."""
        w, h = self._mask_size
        reach = 0.75 * float((box[2:] - box[:2]).max()) + 4
        x, y = (box[:2] + box[2:]) / 2
        rows = slice(int(max(0, y - 2 * reach)), int(min(h, y + 2 * reach)) + 1)
        return rows, slice(int(max(0, x - 2 * reach)), int(min(w, x + 2 * reach)) + 1)
