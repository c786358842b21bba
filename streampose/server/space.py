"""Subjects in space, live: who is who in the cameras, and where the cameras together say that each joint is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError
from streampose.formats.calibration import read_calibration
from streampose.geometry.camera import resize_camera
from streampose.geometry.distortion import undistort_pixels
from streampose.geometry.triangulate import reprojection_error, triangulate_dlt, triangulate_robust
from streampose.server.results import Scene
from streampose.structures import Camera, Keypoints, Skeleton
from streampose.tracking.visibility import ABSENT

MOST_SKEW = 0.1  # seconds between frames that count as of one moment
AGREE = 0.02  # of a picture's longer side: views of one subject differ less, views of two more
KEEP = 2.0  # times that, until which those who are taken for one stay so
FORGET_SECONDS = 2.0


@dataclass(frozen=True)
class _Sight:
    """The subjects of one camera's newest frame: numbers, (N, K, 2) pixels of an ideal lens and as seen, (N, K)."""

    ids: tuple[int, ...]
    ideal: np.ndarray
    xy: np.ndarray
    confidence: np.ndarray
    camera: Camera
    at: float


@dataclass
class _Person:
    views: dict[int, int]  # camera -> subject there
    seen_at: float


Member = tuple[int, int]  # camera, place among its subjects


class Space:
    """Puts the newest frames of calibrated cameras together.

    Args:
        cameras: in the order of the session's cameras.
    """

    def __init__(self, cameras: Sequence[Camera], skeleton: Skeleton):
        self._cameras, self._skeleton = tuple(cameras), skeleton
        pairs = {joint for pair in skeleton.flip_pairs for joint in pair}
        self._middle = np.array([k not in pairs for k in range(skeleton.num_joints)])  # left and right may be confused
        if self._middle.sum() < 3:
            self._middle[:] = True
        self._sights: dict[int, _Sight] = {}
        self._people: dict[int, _Person] = {}
        self._next_id = 0

    def see(
        self, number: int, ids: tuple[int, ...], keypoints: Keypoints, visibility: np.ndarray | None,
        size: tuple[int, int], at: float,
    ) -> None:  # fmt: skip
        """The subjects of a camera's newest frame.

        Args:
            size: (width, height) of the frame; the calibration is scaled to it.
            at: when it was captured, `time.monotonic()`.
        """
        camera = self._cameras[number]
        camera = camera if camera.size in ((0, 0), size) else resize_camera(camera, size)
        confidence = keypoints.confidence.astype(float)
        if visibility is not None:
            confidence = np.where(visibility == ABSENT, 0.0, confidence)
        xy = keypoints.xy.astype(float)
        self._sights[number] = _Sight(ids, undistort_pixels(xy, camera), xy, confidence, camera, at)

    def scene(self) -> Scene:
        """The subjects that two cameras or more see at this moment."""
        newest = max((sight.at for sight in self._sights.values()), default=0.0)
        sights = {number: sight for number, sight in self._sights.items() if newest - sight.at <= MOST_SKEW}
        groups = self._group(sights)
        ids, points, errors, spread = [], [], [], []
        views: list[dict[int, int]] = []
        for members in groups:
            id_ = self._number(members, sights, newest, set(ids))
            place, error, uncertainty = self._triangulate(members, sights)
            if np.isfinite(place).all(-1).any():
                ids.append(id_)
                points.append(place)
                errors.append(error)
                spread.append(uncertainty)
                views.append({camera: sights[camera].ids[n] for camera, n in members})
        self._people = {id_: p for id_, p in self._people.items() if newest - p.seen_at < FORGET_SECONDS}
        K = self._skeleton.num_joints
        return Scene(
            ids=tuple(ids),
            points=np.array(points).reshape(-1, K, 3),
            errors_px=np.array(errors).reshape(-1, K),
            views=tuple(views),
            skew_ms=1000.0 * (newest - min((sight.at for sight in sights.values()), default=newest)),
            uncertainty=np.array(spread).reshape(-1, K),
        )

    def _group(self, sights: dict[int, _Sight]) -> list[list[Member]]:
        """Subjects of several cameras that are one: pairs that agree best are joined first."""
        pairs: list[tuple[float, Member, Member]] = []
        for one, other in combinations(sorted(sights), 2):
            for i, a in enumerate(sights[one].ids):
                for j, b in enumerate(sights[other].ids):
                    miss = self._disagreement(sights[one], i, sights[other], j)
                    known = any(p.views.get(one) == a and p.views.get(other) == b for p in self._people.values())
                    if miss < AGREE * (KEEP if known else 1.0):
                        pairs.append((miss / KEEP if known else miss, (one, i), (other, j)))
        groups: list[list[Member]] = []
        for _, first, second in sorted(pairs):
            mine = next((group for group in groups if first in group), None)
            theirs = next((group for group in groups if second in group), None)
            if mine is None and theirs is None:
                groups.append([first, second])
            elif mine is None or theirs is None:
                group, new = (theirs, first) if mine is None else (mine, second)
                assert group is not None
                if all(camera != new[0] for camera, _ in group):
                    group.append(new)
            elif mine is not theirs and not {c for c, _ in mine} & {c for c, _ in theirs}:
                mine += theirs
                groups = [group for group in groups if group is not theirs]
        return [sorted(group) for group in groups]

    def _disagreement(self, one: _Sight, i: int, other: _Sight, j: int) -> float:
        """How far two subjects of two cameras are from being one, as a share of the pictures' longer sides."""
        points = np.stack([one.ideal[i], other.ideal[j]])[:, self._middle]
        weight = np.stack([one.confidence[i], other.confidence[j]])[:, self._middle]
        P = np.stack([one.camera.P, other.camera.P])
        error = reprojection_error(triangulate_dlt(points, P, weight), points, P)
        side = np.array([[max(_size(sight.camera))] for sight in (one, other)])
        known = np.isfinite(error)
        return float(np.median((error / side)[known])) if known.any() else float("inf")

    def _triangulate(
        self, members: list[Member], sights: dict[int, _Sight]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(K, 3) metres, (K,) mean error in pixels of the views that agree, (K,) metres of uncertainty."""
        cameras = [sights[c].camera for c, _ in members]
        points = np.stack([sights[c].xy[n] for c, n in members])
        confidence = np.stack([sights[c].confidence[n] for c, n in members])
        ideal = np.stack([sights[c].ideal[n] for c, n in members])
        P = np.stack([camera.P for camera in cameras])
        first = int(confidence.mean(1).argmax())
        flip = self._skeleton.flip_index
        for v in range(len(members)):
            if v != first and self._is_swapped(ideal[[first, v]], P[[first, v]], confidence[[first, v]]):
                points[v], confidence[v] = points[v][flip], confidence[v][flip]
        found = triangulate_robust(cameras, points, confidence)
        error = np.where(found.inliers, found.error_px, 0.0).sum(0) / np.maximum(found.inliers.sum(0), 1)
        missing = ~np.isfinite(found.points).all(-1)
        return found.points, np.where(missing, np.nan, error), np.where(missing, np.nan, found.uncertainty)

    def _is_swapped(self, points: np.ndarray, P: np.ndarray, confidence: np.ndarray) -> bool:
        """Whether the second view fits the first better with left and right exchanged: (2, K, 2), (2, 3, 4), (2, K)."""
        flip = self._skeleton.flip_index
        sides = ~self._middle
        if not sides.any():
            return False
        misses = []
        for order in (np.arange(len(flip)), np.array(flip)):
            seen = np.stack([points[0], points[1][order]])[:, sides]
            weight = np.stack([confidence[0], confidence[1][order]])[:, sides]
            misses.append(np.nanmean(reprojection_error(triangulate_dlt(seen, P, weight), seen, P)))
        return bool(misses[1] < 0.7 * misses[0])

    def _number(self, members: list[Member], sights: dict[int, _Sight], now: float, given: set[int]) -> int:
        """The number of a group: the known one, not given to another, with which it shares most of its views."""
        views = {camera: sights[camera].ids[n] for camera, n in members}
        shared = {
            id_: sum(person.views.get(camera) == subject for camera, subject in views.items())
            for id_, person in self._people.items()
            if id_ not in given
        }
        best = max(shared, key=lambda id_: shared[id_], default=None)
        if best is None or not shared[best]:
            best = self._next_id
            self._next_id += 1
            self._people[best] = _Person({}, now)
        person = self._people[best]
        person.views = {**person.views, **views}
        person.seen_at = now
        return best


def read_cameras(path: Path, sources: Sequence[str | int]) -> list[Camera]:
    """The cameras of a calibration file for some sources: by their names where those are in it, else in its order.

    Raises:
        ConfigError: too few cameras, or one whose place is not known.
    """
    found = read_calibration(path)
    names = _match([str(source) for source in sources], found)
    cameras = [found[name] for name in names]
    for name, camera in zip(names, cameras, strict=True):
        if not camera.posed:
            raise ConfigError(f"{path}: camera {name} has no place in the world; calibrate it with the others")
    if len(cameras) < 2:
        raise ConfigError(f"{path}: one --source cannot be triangulated; name two or more")
    return cameras


def _match(sources: list[str], cameras: Mapping[str, Camera]) -> list[str]:
    stems = [Path(source).stem for source in sources]
    if all(stem in cameras for stem in stems):
        return stems
    if len(cameras) < len(sources):
        raise ConfigError(f"--calibration: holds {len(cameras)} cameras ({', '.join(cameras)}), {len(sources)} sources")
    return list(cameras)[: len(sources)]


def _size(camera: Camera) -> tuple[float, float]:
    return camera.size if camera.size != (0, 0) else (2 * camera.K[0, 2], 2 * camera.K[1, 2])
