"""Foreground masks by background modelling, on small pictures.

`BackgroundModel` says for each frame what differs from the empty scene, which `masks.learn` finds in pictures from the
whole shot. Learnt models are frozen, so that whoever stands still does not melt into the background; a model that was
taught nothing (a live camera) adapts as it goes.

Adding a kind of model: give it a class with `apply(image, rate)` beside `_Median` and list it in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from streampose.geometry.crop import shrink

MODEL_WIDTH = 320
_MEAN = np.full((1, 3), 1 / 3, np.float32)
HALF_FROM = 240  # pixels of the longer side from which on the mixture models see half the size
LEAST_DIFFERENCE = 20.0  # colour distance in grey levels; below it nothing is foreground, however quiet the pixel
NOISE_FACTOR = 4.0  # times a pixel's own median deviation
UNEXPLAINED = 12  # grey levels beyond what the scene shows within two pixels: waving leaves stay below
SHADE_TINT = 0.035  # how much a shadow may change the colour, relative to its brightness
SHADE_VARIANCE = 0.12**2  # of how much darker it is, within three pixels
HALO = 0.3  # of what the blob's clear pixels differ by
UNSTEADY = 6.0  # grey levels by which most of the picture has changed
WEAK_SCORE, STRONG_SCORE = 0.75, 1.8  # of the blurred score inside a blob; of some of its pixels


@dataclass(frozen=True)
class Background:
    """The empty scene of a shot.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        noise: (h, w) float32, median absolute deviation in grey levels (waving leaves, flicker).
    """

    image: np.ndarray
    noise: np.ndarray

    @cached_property
    def threshold(self) -> np.ndarray:
        """(h, w) float32, the difference in grey levels from which on a pixel is no noise."""
        return np.maximum(NOISE_FACTOR * self.noise, LEAST_DIFFERENCE).astype(np.float32)

    @cached_property
    def least(self) -> int:
        """How much, in grey levels, the most different channel of a pixel must differ to be foreground anywhere."""
        return int(WEAK_SCORE * float(self.threshold.min()) / np.sqrt(3))

    @cached_property
    def cells(self) -> np.ndarray:
        """What the light of a frame is compared by: (h, w, 3) uint8, see `match_light`."""
        return shrink(self.image, _grid(self.image))

    @cached_property
    def grey(self) -> bool:
        """Whether it has no colours, so that nothing can be told by them."""
        sparse = self.image[::4, ::4]
        return bool(np.median(sparse.max(-1).astype(np.int16) - sparse.min(-1)) < 6)

    def resized(self, size: tuple[int, int]) -> Background:
        """The same scene at (width, height)."""
        if (self.image.shape[1], self.image.shape[0]) == size:
            return self
        return Background(
            np.asarray(cv2.resize(self.image, size, interpolation=cv2.INTER_AREA)),
            np.asarray(cv2.resize(self.noise, size, interpolation=cv2.INTER_AREA)),
        )


def model_size(width: int, height: int, model_width: int = MODEL_WIDTH) -> tuple[int, int]:
    """(width, height), even, at which a video of that size is modelled: its longer side is `model_width` at most."""
    scale = min(1.0, model_width / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


class BackgroundModel:
    """Tells the foreground of each frame of a static camera.

    Args:
        kind: `mog2`, `knn` or `median`.
        background: the empty scene where it was learnt; None adapts to the frames as they come.
        samples: (N, h, w, 3) pictures of the shot at any size, from which `mog2` and `knn` learn how much it varies.

    Attributes:
        steady: False where the light of the last frame differs strongly from the scene's; its mask may be wrong.
    """

    def __init__(self, kind: str = "mog2", background: Background | None = None, samples: np.ndarray | None = None):
        if kind not in KINDS:
            raise ValueError(f"background model {kind}: unknown; choose one of {', '.join(KINDS)}")
        self.kind, self._scene, self.steady = kind, background, True
        if background is not None:
            neighbourhood = np.ones((5, 5), np.uint8)
            self._low, self._high = (
                cv2.erode(background.image, neighbourhood),
                cv2.dilate(background.image, neighbourhood),
            )
        self._model = KINDS[kind](background)
        self._frames = 0
        if samples is not None and background is not None and kind != "median":
            for sample in self._without_subjects(samples):
                self._model.apply(sample, -1.0)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Mask of a frame at the model's size: (h, w, 3) uint8 RGB -> (h, w) uint8, 255 where the foreground is."""
        self._frames += 1
        if self._scene is None:
            rate = max(0.002, 1.0 / min(self._frames, 30)) if self._frames < 30 else 0.002
            raw = self._model.apply(cv2.GaussianBlur(image, (3, 3), 0), rate)
            return clean_mask(raw, None, raw.size)
        scene = self._scene
        image, self.steady = match_light(image, scene.image, scene.cells)
        mask = np.zeros(image.shape[:2], np.uint8)
        _, changed = cv2.threshold(_most(cv2.absdiff(image, scene.image)), scene.least, 1, cv2.THRESH_BINARY)
        around = _window(np.asarray(changed), margin=8)  # nothing beyond it can be foreground
        if around is None:
            return mask
        score = difference_score(image[around], scene, around)
        differs = cv2.medianBlur((cv2.GaussianBlur(score, (5, 5), 1.2) > WEAK_SCORE).astype(np.uint8), 3)
        inner = _window(np.asarray(differs))
        if inner is None:
            return mask
        window = tuple(slice(a.start + i.start, a.start + i.stop) for a, i in zip(around, inner, strict=True))
        clear = None if self.kind == "median" else self._model.apply(image, 0.0)[window]
        image, score, likely = image[window], score[inner], np.asarray(differs)[inner] > 0
        if clear is not None:  # the mixture models have the last word on what is clearly foreground
            score[clear == 0] = 0
        likely &= ~is_shadow(image, scene.image[window], score, likely, scene.grey)
        self.steady = self.steady or bool(np.count_nonzero(likely) < 0.08 * mask.size)
        unexplained = _most(cv2.max(cv2.subtract(image, self._high[window]), cv2.subtract(self._low[window], image)))
        strong = (unexplained > UNEXPLAINED) & (score > STRONG_SCORE)
        mask[window] = clean_mask(likely.astype(np.uint8) * 255, strong, mask.size)
        return mask

    def _without_subjects(self, samples: np.ndarray) -> list[np.ndarray]:
        """The samples with everything that is clearly not background painted over by it."""
        assert self._scene is not None
        scene = self._scene
        size = (scene.image.shape[1], scene.image.shape[0])
        cleaned = []
        for sample in samples:
            small, _ = match_light(cv2.resize(sample, size, interpolation=cv2.INTER_AREA), scene.image)
            off = cv2.dilate((difference_score(small, scene) > 1).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            cleaned.append(np.where(off[..., None], scene.image, small))
        return cleaned


class _Median:
    """Difference from the learnt scene, or from a median that creeps towards the frames by one grey level each."""

    def __init__(self, scene: Background | None):
        self._scene = scene

    def apply(self, image: np.ndarray, rate: float) -> np.ndarray:
        if self._scene is None:
            self._scene = Background(image.copy(), np.zeros(image.shape[:2], np.float32))
        mask = (difference_score(image, self._scene) > 1).astype(np.uint8) * 255
        if rate > 0:
            higher, lower = (image > self._scene.image), (image < self._scene.image)
            self._scene.image[:] += higher.astype(np.uint8)
            self._scene.image[:] -= lower.astype(np.uint8)
        return mask


class _Subtractor:
    """One of OpenCV's mixture models; its shadows are left out.

    Beside a learnt scene it only decides what is clear, for which half the size is enough at a quarter of the time.
    """

    def __init__(self, model: Any, scene: Background | None):
        self._model = model
        self._half = scene is not None and max(scene.image.shape) >= HALF_FROM

    def apply(self, image: np.ndarray, rate: float) -> np.ndarray:
        h, w = image.shape[:2]
        seen = shrink(image, (w // 2, h // 2)) if self._half else image
        mask = (self._model.apply(seen, learningRate=rate) > 200).astype(np.uint8) * np.uint8(255)
        return np.asarray(cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST)) if self._half else mask


KINDS: dict[str, Callable[[Background | None], Any]] = {
    "mog2": lambda scene: _Subtractor(cv2.createBackgroundSubtractorMOG2(500, 16.0, scene is None), scene),
    "knn": lambda scene: _Subtractor(cv2.createBackgroundSubtractorKNN(500, 400.0, scene is None), scene),
    "median": _Median,
}


def difference_score(image: np.ndarray, scene: Background, window: Any = np.s_[:]) -> np.ndarray:
    """How far a frame, or a window of it, is from the scene, in units of what would be noise there: (h, w) float32.

    1 is the threshold.
    """
    difference = cv2.absdiff(image, scene.image[window])
    squares = cv2.multiply(difference, difference, dtype=cv2.CV_32F)
    distance = cv2.sqrt(cv2.transform(squares, np.ones((1, 3), np.float32)))
    return cv2.divide(distance, scene.threshold[window])


def match_light(image: np.ndarray, scene: np.ndarray, cells: np.ndarray | None = None) -> tuple[np.ndarray, bool]:
    """Take a change of light that is smooth over the picture (clouds, exposure, flare) out of a frame (h, w, 3) uint8.

    Each channel's difference from the scene is fitted by a second-order surface over a grid of cells, robustly, so that
    subjects do not pull it. Small changes are left alone.

    Args:
        cells: the scene averaged over the cells of the grid, where it is known.

    Returns:
        The frame, and whether its light was about that of the scene already.
    """
    h, w = scene.shape[:2]
    grid = _grid(scene)
    now, then = shrink(image, grid), shrink(scene, grid) if cells is None else cells
    alike = np.asarray(cv2.threshold(cv2.absdiff(now, then), 1, 1, cv2.THRESH_BINARY_INV)[1]).reshape(-1, 3)
    if (2 * np.count_nonzero(alike, axis=0) > len(alike)).all():
        return image, True
    now, then = (picture.reshape(-1, 3).astype(np.float32) for picture in (now, then))
    difference = now - then
    change = float(np.median(np.abs(difference), 0).max())
    if change < 2.0:
        return image, True
    terms = _surface_terms(grid)
    usable = ((now > 4) & (now < 250)).all(1)
    if usable.sum() < 30:
        return image, change < UNSTEADY
    weight = usable.astype(np.float32)
    fitted = np.median(difference[usable], 0)[None]
    for _ in range(3):
        rest = np.abs(difference - fitted).max(1)
        scale = max(3.0, 2.5 * float(np.median(rest[usable])))
        weight = usable * np.square(np.clip(1 - np.square(rest / (3 * scale)), 0, 1))
        left = terms * weight[:, None]
        solution = np.linalg.solve(left.T @ terms + 1e-3 * np.eye(terms.shape[1]), left.T @ difference)
        fitted = terms @ solution
    surface = cv2.resize(fitted.reshape(grid[1], grid[0], 3).astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR)
    return cv2.subtract(image, surface, dtype=cv2.CV_8U), change < UNSTEADY


def is_shadow(
    image: np.ndarray, scene: np.ndarray, score: np.ndarray, likely: np.ndarray, grey: bool = False
) -> np.ndarray:
    """Pixels where the scene shows through in another light, and nothing stands: (h, w) bool.

    In a coloured scene these keep their tint and are evenly darker (a cast shadow) or lighter (a shadow that is gone).
    In a grey scene they differ much less than the blob that they belong to (the soft halo under an animal).

    Args:
        image, scene: (h, w, 3) uint8 RGB.
        score: (h, w) of `difference_score`.
        likely: (h, w) bool, the foreground so far.
        grey: whether the scene has no colours.
    """
    if grey:
        now, then = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) + 1 for picture in (image, scene))
        ratio = cv2.divide(now, then)
        count, labels, statistics, _ = cv2.connectedComponentsWithStats(likely.astype(np.uint8), connectivity=8)
        strength = np.zeros(count, np.float32)
        for n in np.flatnonzero(statistics[1:, cv2.CC_STAT_AREA] > 60) + 1:
            strength[n] = np.percentile(score[labels == n], 90)
        return (score < HALO * strength[labels]) & (ratio > 0.55) & (ratio < 0.97)
    h, w = likely.shape
    half = max(h, w) > 400  # enough for what is blurred anyway
    reach = (3, 3) if half else (5, 5)
    if half:
        image, scene = (shrink(picture, (w // 2, h // 2)) for picture in (image, scene))
    now, then = (cv2.blur(picture, reach).astype(np.float32) + 1 for picture in (image, scene))
    grey_now, grey_then = (cv2.transform(picture, _MEAN) for picture in (now, then))
    ratio = cv2.divide(grey_now, grey_then)
    tint = _most(cv2.absdiff(now, cv2.multiply(then, cv2.merge((ratio, ratio, ratio)))))
    around = (5, 5) if half else (7, 7)
    variance = cv2.subtract(cv2.sqrBoxFilter(ratio, cv2.CV_32F, around), cv2.pow(cv2.blur(ratio, around), 2))
    shadow = (variance < SHADE_VARIANCE) & (tint < SHADE_TINT * grey_now) & (ratio > 0.45) & (ratio < 1.5)
    if half:
        shadow = cv2.resize(shadow.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST) > 0
    return shadow


def clean_mask(raw: np.ndarray, strong: np.ndarray | None, picture: int, least_area: float = 0.0004) -> np.ndarray:
    """Remove specks, close gaps and fill holes: (h, w) uint8 0/255 -> the same.

    Args:
        strong: (h, w) pixels that differ clearly; a blob without them is noise. None asks for none.
        picture: pixels of the whole picture, of which this may be a part.
        least_area: smallest blob, as a share of the picture.
    """
    mask = cv2.medianBlur(raw, 3)
    out = np.zeros(mask.shape, np.uint8)
    window = _window(mask)
    if window is None:
        return out
    part = cv2.morphologyEx(mask[window], cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(part, connectivity=8, ltype=cv2.CV_16U)
    areas = statistics[:, cv2.CC_STAT_AREA]
    keep = areas >= max(12, least_area * picture)
    keep[0] = False
    if strong is not None:
        keep &= np.bincount(labels[strong[window]], minlength=count) >= np.maximum(6, 0.06 * areas)
    if not keep.all():
        part = keep.astype(np.uint8)[labels] * np.uint8(255)
    out[window] = fill_holes(part, 0.002 * picture)
    return out


def fill_holes(mask: np.ndarray, largest: float) -> np.ndarray:
    """Fill holes of up to `largest` pixels that the foreground encloses: (h, w) uint8 0/255 -> the same."""
    outlines, levels = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if levels is None:
        return mask
    filled = mask.copy()
    for outline, level in zip(outlines, np.asarray(levels)[0], strict=True):
        if level[3] >= 0 and cv2.contourArea(outline) <= largest:  # the outline of a hole, drawn on what surrounds it
            cv2.drawContours(filled, [outline], -1, 255, cv2.FILLED)
    return filled


class View:
    """What a picture (h, w, 3) uint8 RGB shows from where; its corners are found once for all comparisons."""

    def __init__(self, image: np.ndarray):
        self.image = image
        self._grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        self._corners: np.ndarray | None = None

    def is_repeated_in(self, image: np.ndarray) -> bool:
        """Whether most pixels of another picture are the same; False says nothing, `is_seen_in` then does."""
        return float(np.mean(self._difference(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) < 12)) > 0.9

    def is_seen_in(self, image: np.ndarray) -> bool:
        """Whether another picture shows the same scene from the same place: a static camera and no cut between.

        Corners of this picture must be found at the same place in the other; where they do not tell (few, or most of
        them on the subject itself), most pixels must be alike.
        """
        other = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if self._corners is None:
            found = cv2.goodFeaturesToTrack(self._grey, 160, 0.02, 6)
            self._corners = np.zeros((0, 1, 2), np.float32) if found is None else found
        corners = self._corners
        if len(corners) >= 24:
            found, ok, _ = cv2.calcOpticalFlowPyrLK(
                self._grey, other, corners, corners.copy(), winSize=(11, 11), maxLevel=2
            )
            moved = np.linalg.norm((found - corners).reshape(-1, 2), axis=1)
            stayed = float(((ok.reshape(-1) == 1) & (moved < 0.7)).mean())
            if stayed > 0.2 or stayed < 0.08:
                return stayed > 0.2
        return float(np.mean(self._difference(other) < 12)) > 0.85

    def _difference(self, other: np.ndarray) -> np.ndarray:
        """By how many grey levels each pixel differs more or less than most."""
        difference = cv2.absdiff(self._grey, other).astype(np.int16)
        return np.abs(difference - np.median(difference))


def same_view(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two pictures (h, w, 3) show the same scene from the same place."""
    return View(a).is_seen_in(b)


def _window(mask: np.ndarray, margin: int = 4) -> tuple[slice, slice] | None:
    """The part of a mask (h, w) uint8 that is not empty and a little around it; None where all of it is."""
    x, y, width, height = cv2.boundingRect(mask)
    if width == 0:
        return None
    return slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin)


def _most(image: np.ndarray) -> np.ndarray:
    """The greatest channel of each pixel: (h, w, 3) -> (h, w); much faster than numpy's max over a last axis of 3."""
    red, green, blue = cv2.split(image)
    return np.asarray(cv2.max(cv2.max(red, green), blue))


def _grid(image: np.ndarray) -> tuple[int, int]:
    """(width, height) of the grid of cells by which the light of pictures of this size is compared."""
    return min(32, image.shape[1]), min(18, image.shape[0])


def _surface_terms(grid: tuple[int, int]) -> np.ndarray:
    """1, x, y, xx, xy, yy at the cells of a grid: (cells, 6)."""
    y, x = np.meshgrid(np.linspace(-1, 1, grid[1]), np.linspace(-1, 1, grid[0]), indexing="ij")
    columns, rows = x.ravel(), y.ravel()
    terms = [np.ones_like(rows), columns, rows, columns**2, columns * rows, rows**2]
    return np.stack(terms, 1).astype(np.float32)
