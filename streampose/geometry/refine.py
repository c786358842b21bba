"""Better places for calibrated cameras, from keypoints that they all saw: bundle adjustment of cameras and points.

Keypoints of a moving subject tie cameras together as the corners of a board do, less exactly but at every moment. What
they cannot know stays as it was given: the world's place and its scale. Nor can it be seen where a detector is wrong in
the same way all the time: then cameras move until wrong keypoints meet, and the error falls all the same, also that of
joints held out. Refine with keypoints of a good model, and of people who walk all over the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from streampose.geometry.distortion import distort, project
from streampose.geometry.triangulate import GENEROUS, picture_side, triangulate_robust
from streampose.structures import Camera

GAUGES = ("rig", "first")
MOST_MOMENTS = 300
MOST_STEPS = 40
ROUNDS = (4 * GENEROUS, GENEROUS, None)  # how far off views may be, as a share of the picture; then by their noise
PRIOR_DEGREES, PRIOR_SHARE, PRIOR_FOCAL = 5.0, 0.1, 0.1  # how far cameras are thought to be off: turns, places, lenses
BONE_SHARE = 0.03  # of its length: how constant a bone is between joints as detectors see them
SOFT_SIGMAS = 2.0  # residuals beyond it pull less and less (Cauchy)
LEAST_POINTS = 12  # seen by two views or more


@dataclass(frozen=True)
class Refined:
    """Cameras after bundle adjustment.

    Attributes:
        cameras: V cameras, in the world and the scale of the given ones.
        before_px, after_px: median re-projection error of the keypoints, triangulated with the given cameras and with
            these.
        view_before_px, view_after_px: (V,) the same of each view.
        held_out_px: the median after refining with half of the joints, measured on the others: what of the gain is not
            only a better fit to these very keypoints. NaN where there are too few joints.
        turned_degrees, moved_metres, focal_change: (V,) how much each camera changed; focal lengths as a share.
    """

    cameras: list[Camera]
    before_px: float
    after_px: float
    view_before_px: np.ndarray
    view_after_px: np.ndarray
    held_out_px: float
    turned_degrees: np.ndarray
    moved_metres: np.ndarray
    focal_change: np.ndarray


def refine_cameras(
    cameras: Sequence[Camera],
    points: np.ndarray,
    confidence: np.ndarray | None = None,
    *,
    focal: bool = False,
    bones: Sequence[tuple[int, int]] = (),
    subject: np.ndarray | None = None,
    gauge: str = "rig",
    hold_out: bool = True,
) -> Refined:
    """Refine where cameras are (and their focal lengths) so that the keypoints of all views meet.

    Robust least squares over cameras and points, in rounds: triangulate with the views that agree, adjust, triangulate
    again. Each camera is drawn weakly towards where it was given (5 degrees, a tenth of its distance), so that
    keypoints that say nothing about a camera leave it alone.

    Args:
        cameras: V posed cameras; their lenses are kept but for the focal length.
        points: (V, T, K, 2) pixels as the lenses showed them, of one subject at each of T moments; NaN where missing.
        confidence: (V, T, K) in [0, 1].
        focal: refine each camera's focal length too; needs a subject that moves near and far.
        bones: pairs of joints whose distance hardly changes (prior of 3 % of the length) over a subject's moments.
        subject: (T,) which subject a moment shows; None where it is always the same.
        gauge: what stays: `rig`, the cameras as a whole, or `first`, the first camera exactly (and the mean distance of
            the others from it).
        hold_out: also measure on joints that were left out; takes as long again.

    Raises:
        ValueError: shapes that do not fit, an unknown gauge, or too few keypoints that two views see.

    Source: Triggs et al., "Bundle adjustment - a modern synthesis", 1999: Levenberg-Marquardt with the points
    eliminated (Schur complement).
    """
    points = np.asarray(points, float)
    V, T, K, _ = points.shape
    weight = (
        np.ones((V, T, K)) if confidence is None else np.clip(np.nan_to_num(np.asarray(confidence, float)), 0, None)
    )
    if len(cameras) != V or weight.shape != (V, T, K):
        raise ValueError(f"points are {points.shape}, confidence {weight.shape}, for {len(cameras)} cameras")
    if gauge not in GAUGES:
        raise ValueError(f"gauge {gauge}: choose {' or '.join(GAUGES)}")
    weight = np.where(np.isfinite(points).all(-1), weight, 0.0)
    tied = ((weight > 0).sum(0) >= 2).sum(-1)  # (T,) points that two views see
    if tied.sum() < LEAST_POINTS:
        raise ValueError(
            f"{tied.sum()} keypoints are seen by two views; {LEAST_POINTS} are the least to refine cameras"
        )
    chosen = np.flatnonzero(tied)
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(MOST_MOMENTS, len(chosen))).round().astype(int))]
    points, weight = points[:, chosen], weight[:, chosen]
    subject = (
        np.zeros(len(chosen), int)
        if subject is None
        else np.unique(np.asarray(subject), return_inverse=True)[1][chosen]
    )
    given = list(cameras)
    refined = _adjust_in_rounds(given, points, weight, focal, bones, subject)
    before, after = _errors(given, points, weight), _errors(refined, points, weight)
    held_out = np.nan
    halves = [np.arange(K) % 2 == side for side in (0, 1)]
    enough = [((weight * half > 0).sum(0) >= 2).sum() >= LEAST_POINTS for half in halves]
    if hold_out and all(enough):
        left_out = []
        for half in halves:
            partly = _adjust_in_rounds(given, points, weight * half, focal, (), subject)
            left_out.append(_errors(partly, points, weight * ~half).ravel())
        held_out = float(np.nanmedian(np.concatenate(left_out)))
    refined = _fix_gauge(refined, given, gauge)
    turned = [np.degrees(Rotation.from_matrix(b.R @ a.R.T).magnitude()) for a, b in zip(given, refined, strict=True)]
    moved = [np.linalg.norm(camera_centre(b) - camera_centre(a)) for a, b in zip(given, refined, strict=True)]
    return Refined(
        refined,
        float(np.nanmedian(before)),
        float(np.nanmedian(after)),
        np.nanmedian(before.reshape(V, -1), -1),
        np.nanmedian(after.reshape(V, -1), -1),
        held_out,
        np.array(turned),
        np.array(moved),
        np.array([b.K[0, 0] / a.K[0, 0] - 1 for a, b in zip(given, refined, strict=True)]),
    )


def camera_centre(camera: Camera) -> np.ndarray:
    """(3,) where the camera is in the world."""
    return -camera.R.T @ camera.t


def _errors(cameras: list[Camera], points: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(V, T, K) pixels between what each view saw and the point of all views that count; NaN where there is none."""
    V = len(cameras)
    generous = max(map(picture_side, cameras))  # outliers count too, or a bad calibration would look good
    found = triangulate_robust(cameras, points.reshape(V, -1, 2), weight.reshape(V, -1), max_px=generous)
    return np.where(weight > 0, found.error_px.reshape(weight.shape), np.nan)


def _adjust_in_rounds(
    given: list[Camera], points: np.ndarray, weight: np.ndarray, focal: bool, bones, subject: np.ndarray
) -> list[Camera]:
    V, T, K = weight.shape
    cameras = given
    for share in ROUNDS:
        gate = None if share is None else share * max(map(picture_side, cameras))
        found = triangulate_robust(cameras, points.reshape(V, -1, 2), weight.reshape(V, -1), max_px=gate)
        counted = weight * found.inliers.reshape(V, T, K)
        if (counted.sum(0) > 0).sum() < LEAST_POINTS:
            continue
        problem = _Problem(given, points, counted, focal, bones, subject)
        cameras = problem.solve(cameras, found.points.reshape(T, K, 3))
    return cameras


class _Problem:
    """Least squares over the cameras, C numbers each (turn, shift and perhaps the logarithm of the focal length), and
    over the points of each moment."""

    def __init__(self, given: list[Camera], points, weight, focal: bool, bones, subject: np.ndarray):
        self._given, self._seen, self._weight = given, np.nan_to_num(points), weight
        self._size = 7 if focal else 6
        self._bones = np.array(bones, int).reshape(-1, 2)
        self._subject = subject
        self._prior = []
        for camera in given:
            place = PRIOR_SHARE * max(float(np.linalg.norm(camera.t)), 1e-6)
            self._prior.append([*[np.radians(PRIOR_DEGREES)] * 3, *[place] * 3, PRIOR_FOCAL][: self._size])

    def solve(self, cameras: list[Camera], places: np.ndarray) -> list[Camera]:
        """Levenberg-Marquardt from these cameras and points (T, K, 3); NaN for points that are not known."""
        places = np.where(self._known(places)[..., None], places, 0.0)
        self._sigma = self._noise(cameras, places)
        self._lengths = self._bone_lengths(places)
        damping, cost = 1e-3, self._cost(cameras, places)
        for _ in range(MOST_STEPS):
            before = cost
            system = self._normal_equations(cameras, places)
            while damping < 1e10:
                turn, shift = self._step(system, damping)
                trial, moved = self._moved(cameras, turn), places + shift
                if (value := self._cost(trial, moved)) < cost:
                    cameras, places, cost, damping = trial, moved, value, max(damping / 5, 1e-9)
                    break
                damping *= 4
            if before - cost <= 1e-6 * before:
                break
            self._lengths = self._bone_lengths(places)
            cost = self._cost(cameras, places)
        return cameras

    def _known(self, places: np.ndarray) -> np.ndarray:
        """(T, K) points that two views count for; the others are held at zero and weigh nothing."""
        self._weight = np.where(np.isfinite(places).all(-1) & ((self._weight > 0).sum(0) >= 2), self._weight, 0.0)
        return (self._weight > 0).any(0)

    def _noise(self, cameras: list[Camera], places: np.ndarray) -> float:
        miss = np.linalg.norm(self._residuals(cameras, places), axis=-1)[self._weight > 0]
        return max(float(np.median(miss)) / 1.18, 0.05)  # of each coordinate

    def _residuals(self, cameras: list[Camera], places: np.ndarray) -> np.ndarray:
        shown = np.stack([project(places, camera) for camera in cameras])
        return np.where((self._weight > 0)[..., None], shown - self._seen, 0.0)  # NaN behind the camera

    def _bone_lengths(self, places: np.ndarray) -> np.ndarray:
        """(T, bones) the median length of each bone over its subject's moments; NaN where it is not known."""
        lengths = np.full((len(places), len(self._bones)), np.nan)
        if len(self._bones):
            now = self._bone_vectors(places)[1]
            for number in np.unique(self._subject):
                mine = self._subject == number
                known = np.isfinite(now[mine]).any(0)
                lengths[np.ix_(mine, known)] = np.nanmedian(now[mine][:, known], 0)
        return lengths

    def _bone_vectors(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (T, bones, 3) and lengths (T, bones), NaN where an end is not known."""
        known = (self._weight > 0).any(0)
        vectors = places[:, self._bones[:, 1]] - places[:, self._bones[:, 0]]
        both = known[:, self._bones[:, 1]] & known[:, self._bones[:, 0]]
        lengths = np.where(both, np.linalg.norm(vectors, axis=-1), np.nan)
        return vectors / np.maximum(lengths, 1e-9)[..., None], lengths

    def _cost(self, cameras: list[Camera], places: np.ndarray) -> float:
        squares = (self._residuals(cameras, places) ** 2).sum(-1) / self._sigma**2
        soft = SOFT_SIGMAS**2
        cost = (self._weight * soft * np.log1p(squares / soft)).sum()
        cost += sum(((self._offset(v, camera) / self._prior[v]) ** 2).sum() for v, camera in enumerate(cameras))
        if len(self._bones):
            off = (self._bone_vectors(places)[1] / self._lengths - 1) / BONE_SHARE
            cost += np.nansum(soft * np.log1p(off**2 / soft))
        return float(cost) if np.isfinite(cost) else np.inf

    def _offset(self, v: int, camera: Camera) -> np.ndarray:
        """(C,) how far a camera is from where it was given."""
        given = self._given[v]
        turn = Rotation.from_matrix(camera.R @ given.R.T).as_rotvec()
        return np.array([*turn, *(camera.t - given.t), np.log(camera.K[0, 0] / given.K[0, 0])][: self._size])

    def _normal_equations(self, cameras: list[Camera], places: np.ndarray) -> tuple[np.ndarray, ...]:
        """Blocks of J'WJ and J'Wr: cameras (V, C, C), mixed (V, C, T, 3K), points (T, 3K, 3K), and both sides."""
        V, (T, K, _), C = len(cameras), places.shape, self._size
        A, B, D = np.zeros((V, C, C)), np.zeros((V, C, T, K, 3)), np.zeros((T, K, 3, K, 3))
        a, d = np.zeros((V, C)), np.zeros((T, K, 3))
        every = np.arange(K)
        for v, camera in enumerate(cameras):
            shown, by_camera, by_point = camera_slopes(places, camera, C)
            counted = self._weight[v] > 0
            miss = np.where(counted[..., None], shown - self._seen[v], 0.0) / self._sigma
            weight = self._weight[v] / (1 + (miss**2).sum(-1) / SOFT_SIGMAS**2)
            by_camera = np.where(counted[..., None, None], by_camera, 0.0) / self._sigma
            by_point = np.where(counted[..., None, None], by_point, 0.0) / self._sigma
            A[v] = np.einsum("tk,tkic,tkie->ce", weight, by_camera, by_camera) + np.diag(1 / np.square(self._prior[v]))
            B[v] = np.einsum("tk,tkic,tkij->ctkj", weight, by_camera, by_point)
            D[:, every, :, every] += np.einsum("tk,tkij,tkil->ktjl", weight, by_point, by_point)
            a[v] = np.einsum("tk,tkic,tki->c", weight, by_camera, miss) + self._offset(v, camera) / np.square(
                self._prior[v]
            )
            d += np.einsum("tk,tkij,tki->tkj", weight, by_point, miss)
        if len(self._bones):
            self._add_bones(D, d, places)
        return A, B.reshape(V, C, T, 3 * K), D.reshape(T, 3 * K, 3 * K), a, d.reshape(T, 3 * K)

    def _add_bones(self, D: np.ndarray, d: np.ndarray, places: np.ndarray) -> None:
        unit, lengths = self._bone_vectors(places)
        off = (lengths / self._lengths - 1) / BONE_SHARE
        weight = np.nan_to_num(1 / (1 + off**2 / SOFT_SIGMAS**2))
        slope = np.nan_to_num(unit / (BONE_SHARE * self._lengths)[..., None])
        off = np.nan_to_num(off)
        for b, (i, j) in enumerate(self._bones):
            square = weight[:, b, None, None] * slope[:, b, :, None] * slope[:, b, None, :]
            D[:, i, :, i] += square
            D[:, j, :, j] += square
            D[:, i, :, j] -= square
            D[:, j, :, i] -= square
            pull = (weight[:, b] * off[:, b])[:, None] * slope[:, b]
            d[:, j] += pull
            d[:, i] -= pull

    def _step(self, system: tuple[np.ndarray, ...], damping: float) -> tuple[np.ndarray, np.ndarray]:
        """Solve the damped system: (V, C) for the cameras, (T, K, 3) for the points."""
        A, B, D, a, d = system
        V, C, T, M = B.shape
        eye = np.arange(M)
        D = D.copy()
        D[:, eye, eye] += damping * D[:, eye, eye] + 1e-9
        mixed = B.reshape(V * C, T, M).transpose(1, 2, 0)  # (T, M, V C)
        solved = np.linalg.solve(D, np.concatenate([mixed, d[..., None]], -1))
        S = np.zeros((V * C, V * C))
        for v in range(V):
            S[v * C : (v + 1) * C, v * C : (v + 1) * C] = A[v]
        S[np.arange(V * C), np.arange(V * C)] *= 1 + damping
        reduced = np.einsum("tmc,tme->ce", mixed, solved)
        turn = -np.linalg.solve(S - reduced[:, :-1], a.ravel() - reduced[:, -1])
        shift = -(solved[..., -1] + solved[..., :-1] @ turn)
        return turn.reshape(V, C), shift.reshape(T, -1, 3)

    def _moved(self, cameras: list[Camera], turn: np.ndarray) -> list[Camera]:
        moved = []
        for camera, step in zip(cameras, turn, strict=True):
            K = np.array(camera.K, float)
            if len(step) > 6:
                K[:2, :2] *= np.exp(step[6])
            R = Rotation.from_rotvec(step[:3]).as_matrix() @ camera.R
            moved.append(replace(camera, K=K, R=R, t=camera.t + step[3:6]))
        return moved


def camera_slopes(places: np.ndarray, camera: Camera, size: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a camera shows points, and how that changes with its place and with theirs.

    Args:
        places: (..., 3) world points.
        size: 6 for a turn (rotation vector in the camera's frame, before the shift) and a shift of t; 7 for the
            logarithm of the focal lengths too.

    Returns:
        (..., 2) pixels, (..., 2, size) and (..., 2, 3) derivatives; NaN behind the camera.
    """
    turned = places @ camera.R.T
    x = turned + camera.t
    z = np.where(x[..., 2:] > 0, x[..., 2:], np.nan)
    ideal = x[..., :2] / z
    bent = distort(ideal, camera.distortion, camera.fisheye)
    h = 1e-6
    columns = [
        (distort(ideal + e, camera.distortion, camera.fisheye) - distort(ideal - e, camera.distortion, camera.fisheye))
        / (2 * h)
        for e in h * np.eye(2)
    ]
    lens = camera.K[:2, :2] @ np.stack(columns, -1)  # (..., 2, 2) pixels by ideal coordinates
    pinhole = np.zeros((*places.shape[:-1], 2, 3))
    pinhole[..., 0, 0] = pinhole[..., 1, 1] = 1 / z[..., 0]
    pinhole[..., 2] = -ideal / z
    by_x = lens @ pinhole
    cross = np.zeros((*places.shape[:-1], 3, 3))  # of w x turned, by w
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = turned[..., 2], -turned[..., 1], turned[..., 0]
    cross[..., 1, 0], cross[..., 2, 0], cross[..., 2, 1] = -turned[..., 2], turned[..., 1], -turned[..., 0]
    parts = [by_x @ cross, by_x]
    seen = bent @ camera.K[:2, :2].T
    if size > 6:
        parts.append(seen[..., None])
    return seen + camera.K[:2, 2], np.concatenate(parts, -1), by_x @ camera.R


def _fix_gauge(cameras: list[Camera], given: list[Camera], gauge: str) -> list[Camera]:
    """The cameras moved as a whole (turn, shift, scale) to where the given ones were."""
    now, then = np.stack([camera_centre(c) for c in cameras]), np.stack([camera_centre(c) for c in given])
    if gauge == "first":
        turn = given[0].R.T @ cameras[0].R  # then_from_now
        fixed_now, fixed_then = now[0], then[0]
    else:
        turn = (
            Rotation.from_matrix(np.stack([g.R.T @ c.R for c, g in zip(cameras, given, strict=True)]))
            .mean()
            .as_matrix()
        )
        fixed_now, fixed_then = now.mean(0), then.mean(0)
    spread = np.linalg.norm(now - fixed_now, axis=-1).mean()
    scale = np.linalg.norm(then - fixed_then, axis=-1).mean() / spread if spread > 0 else 1.0
    moved = []
    for camera, centre in zip(cameras, now, strict=True):
        R = camera.R @ turn.T
        moved.append(replace(camera, R=R, t=-R @ (scale * turn @ (centre - fixed_now) + fixed_then)))
    return moved
