"""Who the subject of a recording by several calibrated cameras is: the person that most of them see at one place.

A detector's candidates in one view may be bystanders, dummies or furniture. Where two views' candidates meet in space,
upright and of one size, a person is supposed, and counted in all other views; bystanders that one camera sees, and what
a detector takes for a person in one view only, gather no such support. Cameras may be rolled: their pictures are
levelled first, because detectors of people know upright ones only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np

from streampose.geometry.distortion import project, undistort_pixels
from streampose.geometry.triangulate import reprojection_error, triangulate_dlt
from streampose.structures import Camera
from streampose.tracking.detectors import Detect

LEAST_METRES, MOST_METRES = 0.7, 2.6  # height of a person whom HOG or a detector of people finds
UPRIGHT = 0.9  # cosine of the angle between a person and what is upwards
MEETS = 0.15  # of the height in pixels: how far two candidates may lie from the point that they make
FITS = 0.25  # of the height in pixels: how far a supporting candidate may lie from where the person is projected
SIZE_RATIO = 1.6  # of heights
LEVELLED_HEIGHT = 720
DOUBTFUL, ENOUGH = 0.35, 0.6  # scores from which a candidate counts, and above which it counts no more


@dataclass(frozen=True)
class Candidate:
    """What a detector found in one view: the ends (2, 2) of its upright middle line, head first, in undistorted pixels
    of the source, and its score in [0, 1]."""

    line: np.ndarray
    score: float


@dataclass(frozen=True)
class Subject:
    """The chosen person.

    Attributes:
        head, foot: (3,) world points, the ends of its upright middle line.
        seen: (V,) bool, the views with a supporting candidate.
        score: how much these support it.
    """

    head: np.ndarray
    foot: np.ndarray
    seen: np.ndarray
    score: float


def upwards(cameras: Sequence[Camera]) -> np.ndarray:
    """Unit vector (3,) that points up in the world: the axis that is nearest to what cameras take for up on average.

    Cameras are held upright on the whole, and calibrations put an axis of the world along the vertical; where none is
    near, the cameras' mean is taken.
    """
    mean = -np.mean([np.asarray(camera.R)[1] for camera in cameras], 0)
    mean = mean / max(float(np.linalg.norm(mean)), 1e-9)
    axis = int(np.abs(mean).argmax())
    if abs(mean[axis]) < 0.7:
        return mean
    return np.sign(mean[axis]) * np.eye(3)[axis]


def levelled(camera: Camera, up: np.ndarray, height: int = LEVELLED_HEIGHT) -> tuple[np.ndarray, tuple[int, int]]:
    """The affine map (2, 3) from a camera's pixels to a picture in which `up` is upwards, and its (width, height)."""
    direction = np.asarray(camera.R) @ up
    angle = float(np.degrees(np.arctan2(direction[0], -direction[1])))
    width, tall = camera.size
    affine = cv2.getRotationMatrix2D((width / 2, tall / 2), angle, 1.0)
    cosine, sine = np.abs(affine[0, :2])
    size = np.array([tall * sine + width * cosine, tall * cosine + width * sine])
    scale = height / size[1]
    affine[:, 2] = affine[:, 2] + size / 2 - np.array([width, tall]) / 2
    return affine * scale, (round(float(size[0] * scale)), height)


def find_candidates(image: np.ndarray, camera: Camera, up: np.ndarray, detect: Detect) -> list[Candidate]:
    """What a detector finds in a view's picture (H, W, 3) uint8 RGB, levelled."""
    affine, size = levelled(camera, up)
    boxes, scores = detect(cv2.warpAffine(image, affine, size, flags=cv2.INTER_AREA))
    back = cv2.invertAffineTransform(affine)
    found = []
    for (x0, y0, x1, y1), score in zip(boxes, scores, strict=True):
        ends = np.array([[(x0 + x1) / 2, y0], [(x0 + x1) / 2, y1]])
        found.append(Candidate(undistort_pixels(ends @ back[:, :2].T + back[:, 2], camera), float(score)))
    return found


def choose_subject(candidates: Sequence[Sequence[Candidate]], cameras: Sequence[Camera]) -> Subject | None:
    """The person whom the views support most: many of them, though each be doubtful, before few that are sure.

    Those who have the same support are told apart by their size in the pictures.

    Args:
        candidates: of each view.
        cameras: posed ones, in metres.

    Returns:
        None where no two views' candidates meet.
    """
    P, up = np.stack([camera.P for camera in cameras]), upwards(cameras)
    best: tuple[tuple[float, float], Subject] | None = None
    for a, b in combinations(range(len(cameras)), 2):
        for one in candidates[a]:
            for two in candidates[b]:
                ends = _meet(np.stack([one.line, two.line]), P[[a, b]], up)
                if ends is None:
                    continue
                supporters = [_supporter(ends, found, P[v]) for v, found in enumerate(candidates)]
                seen = np.array([supporter is not None for supporter in supporters])
                lines = np.stack([np.full((2, 2), np.nan) if s is None else s.line for s in supporters])
                refined = triangulate_dlt(lines, P)
                if not seen[[a, b]].all() or not _is_person(refined, up):
                    continue
                score = sum(min(s.score, ENOUGH) - DOUBTFUL for s in supporters if s is not None)
                size = float(np.nanmean(np.linalg.norm(lines[:, 0] - lines[:, 1], axis=-1)))
                rank = (round(score, 6), size)
                if best is None or rank > best[0]:
                    best = rank, Subject(refined[0], refined[1], seen, score)
    return None if best is None else best[1]


def in_view(subject: Subject, camera: Camera) -> bool:
    """Whether most of a subject lies in a camera's picture."""
    points = subject.foot + np.linspace(0, 1, 9)[:, None] * (subject.head - subject.foot)
    pixels = project(points, camera)
    inside = ((pixels >= 0) & (pixels < np.array(camera.size))).all(-1)  # NaN behind the camera
    return bool(inside.mean() > 0.6)


def _meet(lines: np.ndarray, P: np.ndarray, up: np.ndarray) -> np.ndarray | None:
    """Head and foot (2, 3) where two views' lines (2, 2, 2) are those of one upright person; else None."""
    ends = triangulate_dlt(lines, P)
    if not _is_person(ends, up):
        return None
    heights = np.linalg.norm(lines[:, 0] - lines[:, 1], axis=-1)
    errors = reprojection_error(ends, lines, P).mean(-1)  # NaN behind a camera
    return ends if bool((errors < MEETS * heights).all()) else None


def _is_person(ends: np.ndarray, up: np.ndarray) -> bool:
    along = ends[0] - ends[1]
    height = float(np.linalg.norm(along))
    return LEAST_METRES < height < MOST_METRES and float(along @ up) > UPRIGHT * height


def _supporter(ends: np.ndarray, found: Sequence[Candidate], P: np.ndarray) -> Candidate | None:
    """The best candidate of a view at the place and of the size of a person."""
    x = ends @ P[:, :3].T + P[:, 3]
    if (x[:, 2] <= 0).any():
        return None
    line = x[:, :2] / x[:, 2:]
    height = float(np.linalg.norm(line[0] - line[1]))
    fits = [
        candidate
        for candidate in found
        if np.linalg.norm(candidate.line.mean(0) - line.mean(0)) < FITS * height
        and 1 / SIZE_RATIO < np.linalg.norm(candidate.line[0] - candidate.line[1]) / height < SIZE_RATIO
    ]
    return max(fits, key=lambda candidate: candidate.score, default=None)
