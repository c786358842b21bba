"""Subjects in space, live: who is who in the cameras, and where the cameras together say that each joint is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError
from streampose.formats.calibration import read_calibration
from streampose.geometry.distortion import undistort_pixels
from streampose.geometry.left_right import LeftRight
from streampose.geometry.match_views import extent
from streampose.geometry.triangulate import picture_side, triangulate_robust
from streampose.server.results import Scene
from streampose.structures import Camera, Keypoints, Skeleton
from streampose.tracking.space import AGREE_SHARE, LEAST_AGREE
from streampose.tracking.views import Moment, Person, Seen, ViewMatcher
from streampose.tracking.visibility import ABSENT

MOST_SKEW = 0.1  # seconds between frames that count as of one moment
LEAST_SECONDS = 0.03  # between two scenes
REPAIR_SECONDS = 0.5  # between looks at left and right, which take their time; in between the last one holds
FORGET_SECONDS = 3.0


@dataclass
class _Known:
    """One person: who straightens left and right, when that was done, and how: (V, K) joint numbers."""

    repair: LeftRight
    order: np.ndarray
    repaired_at: float = -np.inf
    seen_at: float = 0.0


class Space:
    """Puts the newest frames of calibrated cameras together.

    Args:
        cameras: in the order of the session's cameras.
    """

    def __init__(self, cameras: Sequence[Camera], skeleton: Skeleton):
        self._lenses, self._skeleton = tuple(cameras), skeleton
        self._cameras = [
            Camera(camera.K, camera.R, camera.t, camera.size) for camera in cameras
        ]  # what is seen is ideal
        self._matcher = ViewMatcher(self._cameras, skeleton.flip_index)
        self._sights: dict[int, Seen] = {}
        self._known: dict[int, _Known] = {}
        self._last: Scene | None = None
        self._last_at = -np.inf

    def see(
        self, number: int, ids: tuple[int, ...], keypoints: Keypoints, visibility: np.ndarray | None,
        size: tuple[int, int], at: float,
    ) -> None:  # fmt: skip
        """The subjects of a camera's newest frame.

        Args:
            size: (width, height) of the frame, which may be another than that of the calibration.
            at: when it was captured, `time.monotonic()`.
        """
        lens = self._lenses[number]
        scale = np.array(lens.size) / size if lens.size != (0, 0) else np.ones(2)
        confidence = keypoints.confidence.astype(float)
        if visibility is not None:
            confidence = np.where(visibility == ABSENT, 0.0, confidence)
        xy = (keypoints.xy.astype(float) + 0.5) * scale - 0.5
        self._sights[number] = Seen(at, ids, undistort_pixels(xy, lens), confidence)

    def scene(self) -> Scene:
        """The subjects that two cameras or more see at this moment; the last scene again where it is new enough."""
        now = max((sight.seconds for sight in self._sights.values()), default=0.0)
        if self._last is not None and 0 <= now - self._last_at < LEAST_SECONDS:
            return self._last
        self._last, self._last_at = self._scene(now), now
        return self._last

    def _scene(self, now: float) -> Scene:
        sights = {number: sight for number, sight in self._sights.items() if now - sight.seconds <= MOST_SKEW}
        moment = Moment(now, tuple(sights.get(number) for number in range(len(self._cameras))))
        found = [(person, *self._place(person, now)) for person in self._matcher.match([moment])]
        found = [one for one in found if np.isfinite(one[1]).any()]
        self._known = {id_: known for id_, known in self._known.items() if now - known.seen_at < FORGET_SECONDS}
        K = self._skeleton.num_joints
        return Scene(
            ids=tuple(person.id for person, *_ in found),
            points=np.array([points for _, points, _, _ in found]).reshape(-1, K, 3),
            errors_px=np.array([errors for _, _, errors, _ in found]).reshape(-1, K),
            views=tuple(_members(person, sights) for person, *_ in found),
            skew_ms=1000.0 * (now - min((sight.seconds for sight in sights.values()), default=now)),
            uncertainty=np.array([spread for *_, spread in found]).reshape(-1, K),
        )

    def _place(self, person: Person, now: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(K, 3) metres, (K,) mean error in pixels of the views that agree, (K,) metres of uncertainty."""
        xy, confidence = self._straight(person, now)
        size = float(np.max(extent(xy)))
        gate = max(AGREE_SHARE * size, LEAST_AGREE * max(picture_side(camera) for camera in self._cameras))
        found = triangulate_robust(self._cameras, xy, confidence, max_px=gate)
        error = np.where(found.inliers, found.error_px, 0.0).sum(0) / np.maximum(found.inliers.sum(0), 1)
        missing = ~np.isfinite(found.points).all(-1)
        return found.points, np.where(missing, np.nan, error), np.where(missing, np.nan, found.uncertainty)

    def _straight(self, person: Person, now: float) -> tuple[np.ndarray, np.ndarray]:
        """(V, K, 2) and (V, K) of one person with left and right exchanged where the views need it."""
        xy, confidence = person.xy[:, 0], person.confidence[:, 0]
        V, K = confidence.shape
        known = self._known.get(person.id)
        if known is None:
            known = _Known(LeftRight(self._cameras, self._skeleton), np.tile(np.arange(K), (V, 1)))
            self._known[person.id] = known
        known.seen_at = now
        if now - known.repaired_at >= REPAIR_SECONDS:
            _, _, moved = known.repair.apply(person.xy, person.confidence)
            known.order = np.where(moved[:, 0], np.array(self._skeleton.flip_index), np.arange(K))
            known.repaired_at = now
        return np.take_along_axis(xy, known.order[..., None], 1), np.take_along_axis(confidence, known.order, 1)


def _members(person: Person, sights: Mapping[int, Seen]) -> dict[int, int]:
    """Camera -> which of its subjects the person is."""
    members = {}
    for number, sight in sights.items():
        for id_, xy in zip(sight.tracks, sight.xy, strict=True):
            if np.array_equal(xy, person.xy[number, 0], equal_nan=True):
                members[number] = id_
    return members


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
