"""Masks of one subject in several calibrated views at once, without motion: colours that agree about a body in space.

Nothing moves, so no background is known. But the subject's place is (`tracking.across_views`), and what is foreground
must be so in every view: space around the subject is divided into voxels, each view says by its colours how likely each
is foreground, and as many of the likeliest voxels as a body fills are taken. Their projections are the next
guess from which each view learns its colours, and so on. In the end pixels that look like the subject and hang together
with its projection are its mask, because a calibration is never exact enough for the projection's own edge.

Sources: Campbell, Vogiatzis, Hernandez and Cipolla, Automatic 3D object segmentation in multiple views using volumetric
graph-cuts, BMVC 2007 (colours and silhouettes of several views together); Boykov and Jolly, ICCV 2001 (histograms).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter, label

from streampose.geometry.distortion import project
from streampose.structures import Camera

SIDE = 256  # pixels of the levelled crops in which is worked
FILL = 0.72  # of their height that the subject takes
REACH = 0.62  # of its height, to each side: arms are held out
STEPS = 80  # voxels a height
BODY = 0.014  # a body's volume as a share of its height cubed
INFLATION = 1.9  # how much larger what several silhouettes leave is than the body
FIRST_ROUNDS, NEXT_ROUNDS = 6, 2
TRUNK, TRUNK_WIDTH, TRUNK_FROM = 1.0, 0.1, 0.5  # what speaks for a trunk and head; shares of the height
BANDS, BAND_WIDTH = 5, 0.7  # colours are learnt for heights apart, each with its neighbours
LEVELS = 16  # of each colour channel
OWN = 0.6  # weight of a view's own colours of the subject against those of all views
SURE = 2.5  # log ratios are cut off at it
TOLERANCE = 5  # pixels by which calibrations may be wrong
SOLE = 0.07  # of the height: how far detectors' boxes reach below the feet


class SubjectVolume:
    """Finds one subject's masks in the views of a session, from moment to moment.

    Args:
        cameras: posed ones.
        head, foot: (3,) world points, the ends of the subject's upright middle line, as a detector's boxes give them.

    Attributes:
        head, foot: where they are now.
    """

    def __init__(self, cameras: Sequence[Camera], head: np.ndarray, foot: np.ndarray):
        self._cameras = list(cameras)
        self.head, self.foot = np.asarray(head, float), foot + SOLE * (np.asarray(head, float) - foot)
        self._height = float(np.linalg.norm(self.head - self.foot))
        self._up = (self.head - self.foot) / self._height
        self._voxels, self._grid = _cylinder(self._up, self._height)
        self._masks: list[np.ndarray] = []
        self._yy, self._xx = np.mgrid[:SIDE, :SIDE].astype(np.float32)
        tall = SIDE * FILL
        relative = np.clip((self._yy - (SIDE - tall) / 2) / tall, 0, 0.999)
        near = np.exp(-0.5 * np.square((relative * BANDS - 0.5 - np.arange(BANDS)[:, None, None]) / BAND_WIDTH))
        self._bands = near / near.sum(0)  # (BANDS, SIDE, SIDE)

    def segment(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Masks at one moment.

        Args:
            images: (H, W, 3) uint8 RGB of each view.

        Returns:
            For each view a mask (SIDE, SIDE) uint8 0/255 and the affine map (2, 3) from the view's pixels to its own.
        """
        maps = [self._level(camera) for camera in self._cameras]
        crops = [cv2.warpAffine(i, m, (SIDE, SIDE), flags=cv2.INTER_AREA) for i, m in zip(images, maps, strict=True)]
        known = [crop.max(-1) > 0 for crop in crops]  # black lies outside of the picture
        colours = [_colour_numbers(crop) for crop in crops]
        voxels = self._voxels + self.foot
        places = [_places(voxels, camera, m) for camera, m in zip(self._cameras, maps, strict=True)]
        first = not self._masks
        masks = self._masks or [self._column()] * len(crops)
        for number in range(FIRST_ROUNDS if first else NEXT_ROUNDS):
            looks = self._looks_like_it(colours, known, masks)
            if first and number == 0:
                looks = [look + np.where(self._column() > 0, 0.8, -0.4) for look in looks]
            hull = self._fill(looks, places, first and number == 0)
            projections = [_drawn(p[hull]) for p in places]
            masks = [_grow(*pair) for pair in zip(projections, looks, strict=True)]
        self._masks = masks
        self._follow(voxels[hull])
        return list(zip(masks, maps, strict=True))

    def _level(self, camera: Camera) -> np.ndarray:
        """The affine map from a view's pixels to its levelled crop around the subject."""
        head, foot = project(np.stack([self.head, self.foot]), camera)
        along, middle = head - foot, (head + foot) / 2
        angle = float(np.degrees(np.arctan2(along[0], -along[1])))
        scale = SIDE * FILL / float(np.linalg.norm(along))
        affine = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), angle, scale)
        affine[:, 2] += SIDE / 2 - middle
        return affine

    def _column(self, lowest: float = 0.0) -> np.ndarray:
        """The first guess: a trunk with legs, above a share of the height: (SIDE, SIDE) uint8."""
        tall = SIDE * FILL
        inside = (np.abs(self._xx - SIDE / 2) < 0.09 * tall) & (np.abs(self._yy - SIDE / 2) < tall / 2)
        inside &= self._yy < (SIDE + tall) / 2 - lowest * tall
        return inside.astype(np.uint8) * np.uint8(255)

    def _looks_like_it(
        self, colours: Sequence[np.ndarray], known: Sequence[np.ndarray], masks: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Log ratio of how likely each pixel's colour is inside and outside of the masks, at its height: (SIDE, SIDE).

        The subject has its colours in all views, what lies behind it is another thing in each.
        """
        insides = [self._histograms(c, (m > 0) & k) for c, m, k in zip(colours, masks, known, strict=True)]
        together = np.mean(insides, 0)
        ratios = []
        for numbers, mask, there, own in zip(colours, masks, known, insides, strict=True):
            outside = (cv2.dilate(cv2.max(mask, self._column(TRUNK_FROM)), np.ones((5, 5), np.uint8)) == 0) & there
            inside = OWN * own + (1 - OWN) * together
            ratio = np.log(
                self._likelihood(numbers, inside) / self._likelihood(numbers, self._histograms(numbers, outside))
            )
            ratio[~there] = 0.0
            ratios.append(np.clip(cv2.GaussianBlur(ratio.astype(np.float32), (0, 0), 1.0), -SURE, SURE))
        return ratios

    def _histograms(self, colours: np.ndarray, where: np.ndarray) -> np.ndarray:
        """How often each colour is there at each height: (BANDS, LEVELS ** 3), rows sum to 1."""
        count = LEVELS**3
        found = []
        for band in self._bands:
            weight = band * where
            histogram = np.bincount(colours.ravel(), weight.ravel(), count).reshape(LEVELS, LEVELS, LEVELS)
            found.append(gaussian_filter(histogram, 0.8).ravel() + 1e-4 * max(float(weight.sum()), 1.0) / count)
        return np.stack([histogram / histogram.sum() for histogram in found])

    def _likelihood(self, colours: np.ndarray, histograms: np.ndarray) -> np.ndarray:
        return (self._bands * histograms[:, colours]).sum(0)

    def _fill(self, looks: Sequence[np.ndarray], places: Sequence[np.ndarray], first: bool) -> np.ndarray:
        """The voxels (N,) bool of the body: the likeliest ones, as many as it may have, that hang together."""
        votes = np.stack(
            [
                np.append(cv2.dilate(look, np.ones((TOLERANCE, TOLERANCE), np.uint8)).ravel(), -SURE)[place]
                for look, place in zip(looks, places, strict=True)
            ]
        )
        likely = np.full(self._grid.shape, -2 * SURE)
        likely[self._grid] = votes.mean(0) + votes.min(0)
        across = self._voxels - (self._voxels @ self._up)[:, None] * self._up
        score = gaussian_filter(likely, 1.0)[self._grid]
        away = np.linalg.norm(across, axis=1) / self._height
        trunk = TRUNK * (self._voxels @ self._up > TRUNK_FROM * self._height)
        score += trunk * np.exp(-np.square(away / TRUNK_WIDTH)) - (1.0 if first else 0.5) * away
        most = min(int(INFLATION * BODY * STEPS**3), len(score) - 1)
        chosen = np.zeros(self._grid.shape, bool)
        chosen[self._grid] = score > max(float(np.partition(score, -most)[-most]), -0.3)
        labels, count = label(chosen)
        if count > 1:  # what does not hang together with the trunk is something else
            sizes = np.bincount(labels[self._grid][away < TRUNK_WIDTH], minlength=count + 1)
            kept = sizes > 0.02 * max(int(sizes[1:].sum()), 1)
            kept[0] = False
            chosen = kept[labels]
        return chosen[self._grid]

    def _follow(self, body: np.ndarray) -> None:
        """Move on with the body's voxels (N, 3): slowly, so that one bad moment does no harm."""
        if len(body) < 100:
            return
        middle = np.median(body, 0)
        shift = middle - self.foot - ((middle - self.foot) @ self._up) * self._up
        shift *= min(1.0, 0.1 * self._height / max(float(np.linalg.norm(shift)), 1e-9))
        self.head, self.foot = self.head + shift, self.foot + shift


def _cylinder(up: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Voxels around a subject, (N, 3) from its foot, and which of a grid (a, a, b) they are."""
    east = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    east = east / np.linalg.norm(east)
    north = np.cross(up, east)
    step = height / STEPS
    around, along = np.arange(-REACH * height, REACH * height, step), np.arange(-0.05 * height, 1.1 * height, step)
    x, y, z = np.meshgrid(around, around, along, indexing="ij")
    grid = x**2 + y**2 < (REACH * height) ** 2
    return x[grid][:, None] * east + y[grid][:, None] * north + z[grid][:, None] * up, grid


def _colour_numbers(crop: np.ndarray) -> np.ndarray:
    """Number of each pixel's colour: (SIDE, SIDE, 3) uint8 -> (SIDE, SIDE) int."""
    red, green, blue = np.moveaxis(crop.astype(np.int64) * LEVELS // 256, -1, 0)
    return (red * LEVELS + green) * LEVELS + blue


def _places(points: np.ndarray, camera: Camera, affine: np.ndarray) -> np.ndarray:
    """Number of the crop's pixel onto which each point falls, SIDE * SIDE outside of it: (N, 3) -> (N,)."""
    pixels = project(points, camera) @ affine[:, :2].T + affine[:, 2]
    inside = ((pixels > -0.5) & (pixels < SIDE - 0.5)).all(1)  # False for NaN, behind the camera
    x, y = np.rint(np.where(inside[:, None], pixels, 0)).astype(np.int64).T
    return np.where(inside, y * SIDE + x, SIDE * SIDE)


def _drawn(places: np.ndarray) -> np.ndarray:
    """Projected voxels as a mask (SIDE, SIDE) uint8."""
    flat = np.zeros(SIDE * SIDE + 1, np.uint8)
    flat[places] = 255
    return cv2.morphologyEx(flat[:-1].reshape(SIDE, SIDE), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))


def _grow(projection: np.ndarray, look: np.ndarray) -> np.ndarray:
    """The pixels that look like the subject and hang together with its projection, but not far from it."""
    near = cv2.dilate(projection, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21))) > 0
    alike = near & ((look > 0.5 * SURE) | ((projection > 0) & (look > -0.3)))
    alike_mask = cv2.morphologyEx(alike.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, labels = cv2.connectedComponents(alike_mask, connectivity=4)
    core = (cv2.erode(projection, np.ones((5, 5), np.uint8)) > 0) & (look > 0.3) & (labels > 0)
    kept = np.zeros(count, bool)
    kept[np.unique(labels[core])] = True
    kept[0] = False
    mask = kept[labels].astype(np.uint8) * np.uint8(255)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)))
