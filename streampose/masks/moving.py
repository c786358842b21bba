"""Foreground masks under a moving camera: what stays different from the scene when the camera's motion is taken out.

Pictures of a shot are laid over each other by up to three homographies (a wall, the ground, ...), found by tracking
corners outside the subjects (RANSAC). Some of the last seconds, without their subjects, and two of the next moment are
laid over each frame. A pixel is foreground where the frame differs from both: what differs from the past alone is
background that somebody has just left. Whoever stops is kept for a while, if moving parts enclose it or if its outline
shows in the frame rather than in the past. Cast shadows move with their subjects and are not told from them.

The source needs some frames of the future: `look_ahead` hands each frame on together with small pictures of the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np

from streampose.masks.background import fill_holes, match_light

LOOK_AHEAD_SECONDS = 0.4
THRESHOLD = 20.0  # colour distance in grey levels, after what a small misfit explains
MISFIT = 0.5  # pixels by which the pictures may be laid over each other wrongly
LEAST_CORNERS, LEAST_INLIERS = 24, 0.25  # else the camera's motion is unknown
MOST_CORNERS, LEAST_CORNER = 240, 1e-5
PLANES = 3
INNER_BAND, OUTER_BAND, LEAST_OVERLAP = 0.07, 0.05, 0.5  # of the crop, of the crop, IoU: `refine_by_colour`
STILL_SECONDS = 1.5  # after which what does not move is taken for background
LEAST_AREA = 0.0012  # of the picture, of a blob
LEAST_PROOF = 0.08  # of a blob at the border
ENCLOSED = 0.25  # of a still part's outline may be free of moving pixels, else its edges must tell
SHARPER = 1.2  # a body's outline has stronger edges than what is beside it
MOST_FOREGROUND, LIT_FOREGROUND = 0.6, 0.08  # of the picture: more is a failure of the alignment, or of the light
LOOK_BACK = (1, 2, 4, 8)  # times the look-ahead

F = TypeVar("F")


def look_ahead(
    frames: Iterable[tuple[F, bool]], picture: Callable[[F], np.ndarray | None], count: int
) -> Iterator[tuple[F, bool, list[np.ndarray]]]:
    """Add to each (frame, cut) the small pictures of what follows it in its shot, in order of time.

    Only as many frames are held as have `count` pictures.

    Args:
        frames: in order of time; `cut` says that a cut lies before the frame.
        picture: the small picture of a frame, None for frames that are passed over.
        count: how many pictures are wanted.
    """
    waiting: deque[tuple[F, bool, np.ndarray | None]] = deque()
    there = 0
    for frame, cut in frames:
        waiting.append((frame, cut, picture(frame)))
        there += waiting[-1][2] is not None
        while there - (waiting[0][2] is not None) >= count:
            there -= waiting[0][2] is not None
            yield _with_later(waiting)
    while waiting:
        yield _with_later(waiting)


def _with_later(waiting: deque[tuple[F, bool, np.ndarray | None]]) -> tuple[F, bool, list[np.ndarray]]:
    frame, cut, _ = waiting.popleft()
    later = []
    for _, cut_before, picture in waiting:
        if cut_before:
            break
        if picture is not None:
            later.append(picture)
    return frame, cut, later


@dataclass(frozen=True)
class Motion:
    """How the background of one picture lies in another: `planes` are homographies (3, 3) from this to the other."""

    planes: list[np.ndarray]
    inliers: float


class MovingForeground:
    """Tells the foreground of each frame of one shot of a camera that moves.

    Args:
        fps: how many frames a second `apply` is given; it sets how far ahead and back is looked.

    Attributes:
        look_ahead: how many later pictures `apply` wants.
        steady: False where the camera's motion could not be found; that mask is empty.
    """

    def __init__(self, fps: float):
        self.look_ahead = int(np.clip(round(LOOK_AHEAD_SECONDS * fps), 2, 24))
        self.steady = True
        self._fps, self._number = fps, 0
        self._mask: np.ndarray | None = None
        self._still: np.ndarray | None = None  # for how many frames each pixel has been foreground without moving
        self._pictures: dict[int, _Picture] = {}  # of frames to come
        self._kept: deque[tuple[_Picture, np.ndarray]] = deque(maxlen=max(LOOK_BACK))  # with their masks

    def apply(self, frame: Any, small: np.ndarray, later: Sequence[np.ndarray] = ()) -> np.ndarray:
        """Mask of the next frame of the shot.

        Args:
            frame: not needed; all sources take it.
            small: (h, w, 3) uint8 RGB.
            later: the small pictures of the frames after it, up to `look_ahead` of them and not beyond the shot.

        Returns:
            (h, w) uint8, 255 where the foreground is.
        """
        number, self._number = self._number, self._number + 1
        now = self._picture(number, small)
        others = [(self._picture(number + n, later[n - 1]), None) for n in _gaps(min(self.look_ahead, len(later)))]
        futures = [laid for picture, mask in others if (laid := lay_over(now, picture, mask, self._mask)) is not None]
        kept = [self._kept[-n] for n in LOOK_BACK if n <= len(self._kept)]
        pasts = [laid for picture, mask in kept if (laid := lay_over(now, picture, mask, self._mask)) is not None]
        self.steady = 2 * (len(futures) + len(pasts)) >= len(others) + len(kept)
        mask = np.zeros(small.shape[:2], np.uint8)
        if self.steady:
            mask = self._foreground(small, pasts, futures)
            share = np.count_nonzero(mask) / mask.size
            other_light = sum(laid.alike for laid in pasts + futures) < 0.5 * len(pasts + futures)
            if share > MOST_FOREGROUND or (other_light and share > LIT_FOREGROUND):
                self.steady, mask = False, np.zeros_like(mask)
        self._mask = cv2.dilate(mask, np.ones((9, 9), np.uint8))
        self._pictures = {n: picture for n, picture in self._pictures.items() if n > number}
        if number % self.look_ahead == 0:
            self._kept.append((now, self._mask))
        return mask

    def _picture(self, number: int, small: np.ndarray) -> _Picture:
        if number not in self._pictures:
            self._pictures[number] = _Picture(small)
        return self._pictures[number]

    def _foreground(self, small: np.ndarray, pasts: list[_Laid], futures: list[_Laid]) -> np.ndarray:
        """What neither the frames before nor the frames after explain; (h, w) uint8."""
        shape = small.shape[:2]
        if self._still is None:
            self._still = np.zeros(shape, np.float32)
        before, known, scene = _vote(small, pasts)
        after, sure, _ = _vote(small, futures)
        soon = np.full(shape, not futures)  # at the end of the shot the past alone tells
        for laid in futures:
            soon |= (laid.distance > THRESHOLD) & laid.inside
        was = np.zeros(shape, bool) if self._mask is None else self._mask > 0
        unknown = ~known & was  # hidden by somebody for as long as is remembered
        moving = np.where(known, before & soon, np.where(was, soon, after & sure))
        still = _open(~soon & ((before & known) | unknown))
        near = cv2.dilate(moving.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        self._still = np.where(still & ~near, self._still + 1, np.where(near, 0, 0.9 * self._still)).astype(np.float32)
        bodies = _bodies(still, moving, small, scene) & (self._still < STILL_SECONDS * self._fps)
        mask = _clean(moving | bodies)
        return _drop_unproved(mask, before & known & soon) if pasts else mask


def _vote(small: np.ndarray, laid: list[_Laid]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What most pictures laid over this one say.

    Returns:
        Where it differs from the half of them at least (h, w) bool; where any of them shows the scene (h, w) bool; the
        scene of the nearest of them in time (h, w, 3) uint8.
    """
    differs, there = np.zeros(small.shape[:2], np.float32), np.zeros(small.shape[:2], np.float32)
    scene = small.copy()
    for other in reversed(laid):
        differs += (other.distance > THRESHOLD) & other.inside
        there += other.inside
        np.copyto(scene, other.image, where=other.inside[..., None])
    return differs > 0.5 * there, there > 0, scene


class _Picture:
    """A small picture with its grey values and corners, found once."""

    def __init__(self, image: np.ndarray):
        self.image = image
        self.grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        self._corners: np.ndarray | None = None

    def corners(self) -> np.ndarray:
        """Corners from all parts of the picture, so that a pale floor counts beside a gaudy wall: (N, 1, 2) float32."""
        if self._corners is None:
            h, w = self.grey.shape
            strength = cv2.cornerMinEigenVal(self.grey, 5)
            around = cv2.blur(strength, (w // 4 | 1, h // 4 | 1))
            level = strength / (around + 1e-5)
            level[strength < LEAST_CORNER] = 0
            found = _peaks(level, max(4, w // 48))
            self._corners = found
        return self._corners


@dataclass(frozen=True)
class _Laid:
    """Another picture laid over this one.

    Attributes:
        image: (h, w, 3) uint8; this picture itself where the other one tells nothing.
        distance: (h, w) float32 between the two in grey levels, the light's change left out.
        inside: (h, w) bool, where the other one shows the scene.
        alike: whether the light is about the same in both.
    """

    image: np.ndarray
    distance: np.ndarray
    inside: np.ndarray
    alike: bool


def _peaks(strength: np.ndarray, apart: int) -> np.ndarray:
    """Where a map is highest within `apart` pixels: (N, 1, 2) float32 xy, the highest `MOST_CORNERS`."""
    around = cv2.dilate(strength, np.ones((2 * apart + 1, 2 * apart + 1), np.uint8))
    y, x = np.nonzero((strength == around) & (strength > 0))
    best = np.argsort(-strength[y, x], kind="stable")[:MOST_CORNERS]
    return np.stack([x[best], y[best]], 1).astype(np.float32)[:, None]


def find_motion(now: _Picture, other: _Picture, hidden: np.ndarray | None = None) -> Motion | None:
    """How the background of a picture lies in another one; None where too few corners agree.

    Args:
        hidden: (h, w) uint8, non-zero where subjects are, whose corners do not count.
    """
    h, w = now.grey.shape
    corners = now.corners()
    if hidden is not None:
        x, y = np.rint(corners[:, 0]).astype(int).T
        corners = corners[hidden[y, x] == 0]
    if len(corners) < LEAST_CORNERS:
        return None
    found, ok, _ = cv2.calcOpticalFlowPyrLK(now.grey, other.grey, corners, corners.copy(), winSize=(15, 15), maxLevel=3)
    good = (ok.reshape(-1) == 1) & ((found >= 0) & (found < (w, h))).all(-1).reshape(-1)
    start, end = corners[good], found[good]
    total = len(start)
    planes: list[np.ndarray] = []
    explained = 0
    while len(planes) < PLANES and len(start) >= max(12, 0.08 * total) and total >= LEAST_CORNERS:
        plane, inliers = cv2.findHomography(start, end, cv2.USAC_MAGSAC, 0.8, maxIters=300, confidence=0.99)
        if plane is None or not _plausible(plane, (w, h)):
            break
        inside = inliers.reshape(-1) > 0
        if planes and not (inside.sum() >= 12 and np.ptp(start[inside, 0, 0]) > 0.5 * w):
            break  # a second plane must be wide, else it may be a person
        planes.append(plane)
        explained += int(inside.sum())
        start, end = start[~inside], end[~inside]
    if not planes or explained < LEAST_INLIERS * total:
        return None
    return Motion(planes, explained / total)


def camera_shift(pictures: Sequence[np.ndarray]) -> float | None:
    """How far the background moves from the first to the last of some pictures (h, w, 3), over their longer side.

    None where it cannot be told.
    """
    if len(pictures) < 2:
        return None
    motion = find_motion(_Picture(pictures[0]), _Picture(pictures[-1]))
    if motion is None:
        return None
    h, w = pictures[0].shape[:2]
    places = np.array([[[w * x, h * y]] for x in (0.1, 0.5, 0.9) for y in (0.1, 0.5, 0.9)], np.float32)
    moved = cv2.perspectiveTransform(places, motion.planes[0])
    return float(np.median(np.linalg.norm(moved - places, axis=-1))) / max(h, w)


def lay_over(now: _Picture, other: _Picture, others: np.ndarray | None, hidden: np.ndarray | None) -> _Laid | None:
    """Lay another picture over this one by the background's motion.

    Args:
        others: (h, w) uint8, subjects in the other picture, where it does not show the scene.
        hidden: (h, w) uint8, about where the subjects of this one are.
    """
    motion = find_motion(now, other, hidden)
    if motion is None:
        return None
    size = (now.image.shape[1], now.image.shape[0])
    free = np.full(now.grey.shape, 255, np.uint8) if others is None else 255 - others
    layers = cv2.merge([*cv2.split(other.image), free])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = [cv2.warpPerspective(layers, plane, size, flags=flags) for plane in motion.planes]
    best = laid[0]
    if len(laid) > 1:
        which = _which_plane(now.image, laid, hidden)
        for number, picture in enumerate(laid[1:], 1):
            cv2.copyTo(picture, (which == number).astype(np.uint8), best)
    inside = cv2.erode(best[..., 3], np.ones((3, 3), np.uint8)) > 250
    image = np.ascontiguousarray(best[..., :3])
    np.copyto(image, now.image, where=~inside[..., None])
    matched, alike = match_light(now.image, image)
    return _Laid(image, colour_distance(matched, image), inside, alike)


def colour_distance(image: np.ndarray, other: np.ndarray, reach: int = 1, misfit: float = MISFIT) -> np.ndarray:
    """Distance of colours that a small misfit does not explain: (h, w, 3) twice -> (h, w) float32.

    Args:
        reach: pixels around each that are looked at.
        misfit: the part of the way to their extremes that is allowed for.
    """
    base, around = np.asarray(other, np.float32), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    high = base + misfit * (cv2.dilate(base, around) - base)
    low = base + misfit * (cv2.erode(base, around) - base)
    now = image.astype(np.float32)
    beyond = np.maximum(np.maximum(now - high, low - now), 0)
    distance = cv2.sqrt(cv2.transform(beyond * beyond, np.ones((1, 3), np.float32)))
    return cv2.blur(distance, (3, 3))


def _which_plane(image: np.ndarray, laid: list[np.ndarray], hidden: np.ndarray | None) -> np.ndarray:
    """Number of the plane that fits best around each pixel, subjects left out: (h, w).

    Args:
        image: (h, w, 3) uint8.
        laid: for each plane the other picture laid over this one by it, (h, w, 4) uint8.
    """
    h, w = image.shape[:2]
    half = (w // 2, h // 2)
    small = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
    seen = np.ones((half[1], half[0]), np.float32)
    if hidden is not None:
        seen[cv2.resize(hidden, half, interpolation=cv2.INTER_NEAREST) > 0] = 0
    total = cv2.blur(seen, (7, 7)) + 1e-3
    costs: list[np.ndarray] = []
    for picture in laid:
        difference = cv2.absdiff(small, cv2.resize(picture, half, interpolation=cv2.INTER_AREA)[..., :3])
        grey = cv2.transform(difference, np.full((1, 3), 1 / 3, np.float32)).astype(np.float32)
        costs.append(cv2.blur(np.minimum(grey, 40) * seen, (7, 7)) / total + 0.5 * len(costs))
    which = np.argmin(costs, 0).astype(np.uint8)
    return np.asarray(cv2.resize(which, (w, h), interpolation=cv2.INTER_NEAREST))


def _plausible(plane: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a homography is one of a camera's small motion: the picture keeps its form and about its place."""
    w, h = size
    corners = np.array([[[0, 0], [w, 0], [w, h], [0, h]]], np.float32)
    moved = cv2.perspectiveTransform(corners, plane)[0]
    if not np.isfinite(moved).all() or not cv2.isContourConvex(moved.astype(np.float32)):
        return False
    area = cv2.contourArea(moved.astype(np.float32)) / (w * h)
    return 0.5 < area < 2.0 and float(np.abs(moved.mean(0) - (w / 2, h / 2)).max()) < 0.5 * max(w, h)


def _gaps(most: int) -> list[int]:
    """How many frames ahead is looked, where there are `most`."""
    return sorted({-(-most // 2), most} - {0})


def _clean(raw: np.ndarray) -> np.ndarray:
    """Remove specks, close gaps and fill holes: (h, w) bool -> (h, w) uint8 0/255."""
    mask = cv2.medianBlur(raw.astype(np.uint8) * 255, 5)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))).astype(
        np.uint8
    )
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = statistics[:, cv2.CC_STAT_AREA] >= max(20, LEAST_AREA * mask.size)
    keep[0] = False
    return fill_holes(keep.astype(np.uint8)[labels] * np.uint8(255), 0.004 * mask.size)


def _drop_unproved(mask: np.ndarray, proof: np.ndarray) -> np.ndarray:
    """Remove what lies along the upper or lower border and hardly ever differed from a past that was seen.

    Ground that comes into view close to the camera moves like no plane that was found, and hides itself from then on.

    Args:
        mask: (h, w) uint8.
        proof: (h, w) bool.
    """
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    _, top, width, height, area = statistics.T[:5]
    lies_there = ((top <= 1) | (top + height >= len(mask) - 1)) & (width > height)
    drop = lies_there & (np.bincount(labels[proof], minlength=count) < LEAST_PROOF * area)
    drop[0] = False
    mask[drop[labels]] = 0
    return mask


def _open(mask: np.ndarray) -> np.ndarray:
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0


def _bodies(still: np.ndarray, moving: np.ndarray, image: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """Tell who stands still from who has left, among what differs from the scene but not from the frames to come.

    What moving pixels enclose belongs to them. The outline of a body shows in the frame; that of a ghost in the scene.

    Args:
        still, moving: (h, w) bool.
        image, scene: (h, w, 3) uint8; the scene is the image itself where it was never seen.

    Returns:
        The bodies, (h, w) bool.
    """
    count, labels = cv2.connectedComponents(still.astype(np.uint8), connectivity=8)
    if count == 1:
        return still
    outline = still & (cv2.erode(still.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    free = outline & (cv2.dilate(moving.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0)
    length, open_length = (np.bincount(labels[part], minlength=count) for part in (outline, free))
    enclosed = open_length < ENCLOSED * length
    beside = (cv2.dilate(still.astype(np.uint8), np.ones((11, 11), np.uint8)) > 0) & (
        cv2.dilate(outline.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    )
    near = cv2.dilate(labels.astype(np.float32), np.ones((11, 11), np.uint8)).astype(np.int32)
    edges = [_edges(picture) for picture in (image, scene)]
    now, then = (_means(edge, labels, free, count) for edge in edges)
    texture = _means(edges[0], near, beside, count)
    unexplained = colour_distance(image, scene, 2, 1.0) > THRESHOLD
    area = np.bincount(labels[still], minlength=count)
    stands = (now > then) & (now > SHARPER * texture)
    stands &= np.bincount(labels[still & unexplained], minlength=count) > 0.4 * area
    body = enclosed | stands
    body[0] = False
    return np.asarray(body[labels])


def _means(values: np.ndarray, labels: np.ndarray, where: np.ndarray, count: int) -> np.ndarray:
    """Mean of an image over the pixels of each label: (count,)."""
    number = labels[where]
    return np.bincount(number, values[where], minlength=count) / np.maximum(np.bincount(number, minlength=count), 1)


def _edges(image: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(np.clip(image, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    x, y = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    return cv2.dilate(cv2.magnitude(x, y), np.ones((3, 3), np.uint8))


def refine_by_colour(crop: np.ndarray, box: np.ndarray | None, coarse: np.ndarray) -> np.ndarray:
    """Let a coarse mask's outline snap to the colours of its crop, for want of an empty scene to compare with.

    Only a band along the outline is decided anew (GrabCut: Rother, Kolmogorov, Blake, SIGGRAPH 2004); where the result
    is no longer about the coarse mask, that one stays.

    Args:
        crop: (S, S, 3) uint8 RGB.
        box: not needed; all that refine masks take it.
        coarse: (S, S) uint8, the subject's own mask enlarged.

    Returns:
        (S, S) uint8, 255 where the subject is.
    """
    S = crop.shape[0]
    rough = (coarse > 127).astype(np.uint8)
    inner, outer = (2 * max(1, round(share * S)) + 1 for share in (INNER_BAND, OUTER_BAND))
    sure = cv2.erode(rough, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (inner, inner)))
    far = cv2.dilate(rough, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (outer, outer))) == 0
    if not sure.any() or not far.any():
        return rough * np.uint8(255)
    state = np.where(rough > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    state[sure > 0], state[far] = cv2.GC_FGD, cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(crop, state, None, np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    fine = cv2.medianBlur(((state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)).astype(np.uint8) * np.uint8(255), 3)
    both, either = ((fine > 0) & (rough > 0)).sum(), ((fine > 0) | (rough > 0)).sum()
    return np.asarray(fine) if both > LEAST_OVERLAP * either else rough * np.uint8(255)
