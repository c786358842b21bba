"""Who is who among the followed subjects: known again by their colours when they come back, or have passed each other.

A subject looks like the colours along its bones, left and right taken together, because a model may confuse them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from streampose.structures import Keypoints, Skeleton

SAMPLES = 5  # pixels along each bone
ALIKE = 18.0  # median distance of two subjects' colours (CIE Lab) up to which they may be the same
MARGIN = 3.0  # by which the better match must be better
REMEMBER_SECONDS = 30.0  # who is away for longer is somebody new when coming back
LEARN = 0.05  # share of the newest colours in what is remembered
SETTLE_FRAMES = 5  # in which the colours of a new subject are averaged evenly
TOGETHER, APART = 0.15, 0.02  # overlap of two subjects from which their colours mix, and below which they have parted
LEAST_CONFIDENCE = 0.2  # of a joint whose bones count


@dataclass
class _Known:
    colours: np.ndarray  # (B, 3) Lab, NaN for bones that were never seen
    frames: int = 1
    seen_at: float = 0.0
    beside: set[int] = field(default_factory=set)  # those that it is passing
    settled: bool = False  # it has been seen for itself, and was or was not known


class Identities:
    """Gives subjects their numbers.

    Args:
        clock: seconds, for how long somebody is away.
    """

    def __init__(self, skeleton: Skeleton, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._parents = np.array([bone.parent for bone in skeleton.bones])
        self._children = np.array([bone.child for bone in skeleton.bones])
        place = {(bone.parent, bone.child): n for n, bone in enumerate(skeleton.bones)}
        flip = skeleton.flip_index
        mirrored = [(flip[bone.parent], flip[bone.child]) for bone in skeleton.bones]
        self._twin = np.array([place.get(pair, n) for n, pair in enumerate(mirrored)])
        self._known: dict[int, _Known] = {}

    def name(self, ids: list[int], keypoints: Keypoints, image: np.ndarray) -> list[int]:
        """The numbers of the subjects of one frame.

        Args:
            ids: N numbers that the follower gave: those that this has given before, or new ones.
            keypoints: N subjects.
            image: (H, W, 3) uint8 RGB.

        Returns:
            N numbers: an old one for who came back, those of two exchanged who were confused while passing.
        """
        now = self._clock()
        looks = [self.colours(xy, sure, image) for xy, sure in zip(keypoints.xy, keypoints.confidence, strict=True)]
        overlap = _overlaps(keypoints.xy)
        free = overlap.max(1, initial=0.0) < TOGETHER
        names = list(ids)
        for n, id_ in enumerate(ids):
            unsettled = id_ not in self._known or not self._known[id_].settled
            if unsettled and free[n]:
                names[n] = self._find(id_, looks[n], set(ids) | set(names))
                if names[n] != id_:
                    self._known.pop(id_, None)
        self._note_passing(names, overlap)
        names = self._unmix(names, looks, overlap)
        for n, id_ in enumerate(names):
            self._learn(id_, looks[n], now, bool(free[n]))
        away = [id_ for id_, known in self._known.items() if now - known.seen_at > REMEMBER_SECONDS]
        for id_ in away:
            del self._known[id_]
        return names

    def colours(self, xy: np.ndarray, confidence: np.ndarray, image: np.ndarray) -> np.ndarray:
        """What a subject looks like: (K, 2), (K,) -> (B, 3) Lab colours, NaN for bones that are not seen."""
        along = np.linspace(0.1, 0.9, SAMPLES)[:, None, None]
        points = (1 - along) * xy[self._parents] + along * xy[self._children]  # (S, B, 2)
        height, width = image.shape[:2]
        x, y = np.rint(np.nan_to_num(points, nan=-1.0)).astype(int).transpose(2, 0, 1)
        sure = np.minimum(confidence[self._parents], confidence[self._children]) >= LEAST_CONFIDENCE
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height) & sure
        pixels = image[y.clip(0, height - 1), x.clip(0, width - 1)]
        lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).astype(float)
        weight = inside[..., None].astype(float)
        count = weight.sum(0)
        mean = np.where(count > 0, (lab * weight).sum(0) / np.maximum(count, 1), np.nan)
        return _mean(mean, mean[self._twin])

    def _find(self, id_: int, look: np.ndarray, taken: set[int]) -> int:
        """Who of those that are away looks like this one; its own number where nobody does."""
        away = [
            (_distance(known.colours, look), old)
            for old, known in self._known.items()
            if old not in taken and known.settled
        ]
        away.sort()
        if not away or away[0][0] > ALIKE or (len(away) > 1 and away[1][0] - away[0][0] < MARGIN):
            return id_
        return away[0][1]

    def _note_passing(self, names: list[int], overlap: np.ndarray) -> None:
        for i, one in enumerate(names):
            for j, other in enumerate(names):
                if overlap[i, j] >= TOGETHER and one in self._known and other in self._known:
                    self._known[one].beside.add(other)

    def _unmix(self, names: list[int], looks: list[np.ndarray], overlap: np.ndarray) -> list[int]:
        """Exchange the numbers of two who have parted and look like each other's past."""
        names = list(names)
        for i in range(len(names)):
            for j in range(i):
                one, other = names[i], names[j]
                if other not in self._known.get(one, _NOBODY).beside or overlap[i, j] > APART:
                    continue
                self._known[one].beside.discard(other)
                self._known[other].beside.discard(one)
                past, passed = self._known[one].colours, self._known[other].colours
                same = _distance(past, looks[i]) + _distance(passed, looks[j])
                exchanged = _distance(past, looks[j]) + _distance(passed, looks[i])
                if exchanged + MARGIN < same:
                    names[i], names[j] = other, one
        return names

    def _learn(self, id_: int, look: np.ndarray, now: float, free: bool) -> None:
        known = self._known.get(id_)
        if known is None:
            self._known[id_] = _Known(look, seen_at=now, settled=free)
            return
        known.seen_at = now
        if not free:
            return
        known.settled = True
        known.frames += 1
        share = max(LEARN, 1.0 / known.frames) if known.frames <= SETTLE_FRAMES else LEARN
        mixed = (1 - share) * known.colours + share * look
        known.colours = np.where(np.isnan(mixed), np.where(np.isnan(look), known.colours, look), mixed)


_NOBODY = _Known(np.zeros((0, 3)))


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean of two arrays where both are known, else the one that is."""
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, (a + b) / 2))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Median distance of the bones' colours; infinite where fewer than a third of the bones are known of both."""
    away = np.linalg.norm(a - b, axis=-1)
    known = np.isfinite(away)
    return float(np.median(away[known])) if 3 * known.sum() >= len(away) > 0 else float("inf")


def _overlaps(xy: np.ndarray) -> np.ndarray:
    """How much subjects (N, K, 2) cover each other: (N, N) intersection over the smaller box, 0 on the diagonal."""
    N = len(xy)
    if N < 2:
        return np.zeros((N, N))
    low, high = xy.min(1), xy.max(1)
    both = np.clip(np.minimum(high[:, None], high) - np.maximum(low[:, None], low), 0, None).prod(-1)
    area = np.clip(high - low, 1.0, None).prod(-1)
    overlap = both / np.minimum(area[:, None], area)
    np.fill_diagonal(overlap, 0.0)
    return overlap
