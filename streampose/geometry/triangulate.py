"""World points from what several calibrated cameras see: linear, robust, with their uncertainty. Numpy, float64.

`triangulate_torch` holds what can be differentiated. Arrays of views come as (..., V, K, 2) where the cameras are given
as matrices, and as (V, N, 2) where they are given as `Camera`s with lenses; N points may be joints of all frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from streampose.geometry.distortion import distort_pixels, project, undistort_pixels
from streampose.structures import Camera

GENEROUS = 0.03  # of the picture's longer side: views further than this from a point never belong to it
GATE_SIGMAS = 6.0  # views further than this from a point are outliers, in standard deviations of the noise
LEAST_GATE = 0.002  # of the picture's longer side; below it nothing is an outlier
MOST_PAIRS = 28  # of views that are tried for each point: all pairs of eight cameras
PAIR_SLACK = 1.5  # two views place a point less well than all do, so a third may lie further from it
REFINEMENTS = 8
PRIOR_VIEWS = 2  # how many views' worth of evidence the noise of all points is for the noise of one


class Triangulated(NamedTuple):
    """Points from several views.

    Attributes:
        points: (N, 3) metres in the world; NaN where fewer than two views agree.
        error_px: (V, N) pixels between what each view saw and the re-projected point, outliers included; NaN where
            either is missing.
        uncertainty: (N,) metres: one standard deviation of the point's place, the root of the trace of its covariance
            (`point_covariance`); NaN with the point.
        inliers: (V, N) bool, the views that made the point.
    """

    points: np.ndarray
    error_px: np.ndarray
    uncertainty: np.ndarray
    inliers: np.ndarray


def triangulate_dlt(points_2d: np.ndarray, P: np.ndarray, confidence: np.ndarray | None = None) -> np.ndarray:
    """Triangulate points seen by several calibrated views (linear DLT), in float64, as OpenCV's `triangulatePoints`.

    Args:
        points_2d: (..., V, K, 2) undistorted pixels; NaN where a view misses the point.
        P: (..., V, 3, 4) projection matrices K[R|t], world -> pixels.
        confidence: (..., V, K) weights, 0 for a view that does not count; None weighs all views alike.

    Returns:
        (..., K, 3) world points in the unit of t; NaN where fewer than two views see it.

    Raises:
        ValueError: the view counts differ.

    Source: Hartley & Zisserman, Multiple View Geometry, 2nd ed., Sec. 12.2.
    """
    points_2d, P = np.asarray(points_2d, float), np.asarray(P, float)
    weight = None if confidence is None else np.asarray(confidence, float)
    system, enough = dlt_system(np, points_2d, P, weight)
    point = np.linalg.svd(system, full_matrices=False)[2][..., -1, :]  # (..., K, 4)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(enough[..., None], point[..., :3] / point[..., 3:], np.nan)


def dlt_system(xp: ModuleType, points_2d: Any, P: Any, confidence: Any = None) -> tuple[Any, Any]:
    """The equations of the DLT, for numpy and for torch (`xp`): two rows a view, zero for a view that does not count.

    Returns:
        (..., K, 2 V, 4) rows a with a . (X, 1) = 0, and (..., K) whether two views or more count.
    """
    V = points_2d.shape[-3]
    if P.shape[-3] != V:
        raise ValueError(f"{V} views of points, but {P.shape[-3]} projection matrices")
    seen = xp.isfinite(points_2d).all(-1)  # (..., V, K)
    if confidence is not None:
        seen = seen & (confidence > 0)
    xy = xp.where(seen[..., None], points_2d, 0.0)
    rows = xy[..., None] * P[..., :, None, 2:3, :] - P[..., :, None, :2, :]  # (..., V, K, 2, 4)
    weight = seen[..., None, None] if confidence is None else xp.where(seen, confidence, 0.0)[..., None, None]
    rows = xp.moveaxis(rows * weight, -4, -3)  # (..., K, V, 2, 4)
    return rows.reshape(*rows.shape[:-3], 2 * V, 4), seen.sum(-2) >= 2


def reproject(points: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Undistorted pixels of world points in every view: (..., K, 3), (..., V, 3, 4) -> (..., V, K, 2).

    NaN where the point is not in front of the camera.
    """
    P = np.asarray(P, float)
    x = np.asarray(points, float)[..., None, :, :] @ np.swapaxes(P[..., :3], -1, -2) + P[..., None, :, 3]
    return x[..., :2] / np.where(x[..., 2:] > 0, x[..., 2:], np.nan)


def reprojection_error(points: np.ndarray, points_2d: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Pixels between where points are seen and where they should be: (..., V, K); NaN where either is missing."""
    return np.linalg.norm(reproject(points, P) - np.asarray(points_2d, float), axis=-1)


def triangulate_robust(
    cameras: Sequence[Camera],
    points: np.ndarray,
    confidence: np.ndarray | None = None,
    *,
    max_px: float | None = None,
    sigma_px: float | None = None,
) -> Triangulated:
    """Triangulate with the views that agree, lenses included, and say how sure each point is.

    Every pair of views proposes a point (RANSAC; exhaustive, since there are few views); the proposal that most
    confidence agrees with wins. The views within `max_px` of it then refine it by Gauss-Newton steps on the
    re-projection error, each view weighing less the further off it is (iteratively reweighted least squares).

    Args:
        cameras: V calibrated cameras.
        points: (V, N, 2) pixels as the lenses showed them; NaN where a view misses the point.
        confidence: (V, N) weights in [0, 1], taken as inverse variances; None weighs all views alike.
        max_px: how far a view may lie from the point; None finds the noise of these points first and takes
            `GATE_SIGMAS` times it, at most 3 % of the picture's longer side.
        sigma_px: noise (one standard deviation a coordinate) of a view of confidence 1, for the uncertainty; None
            estimates it from how well the views agree: all points together, and each point for itself.

    Returns:
        Points, errors, uncertainties and inliers; two views that agree by chance cannot be told from two that are
        right, so a point of two views has a greater uncertainty but no warning.

    Raises:
        ValueError: shapes that do not fit.

    Source: Hartley & Zisserman, Multiple View Geometry, 2nd ed., Sec. 4.7 and 12; Geman & McClure's weights.
    """
    points = np.asarray(points, float)
    V, N, _ = points.shape
    if len(cameras) != V:
        raise ValueError(f"{V} views of points, but {len(cameras)} cameras")
    weight = np.ones((V, N)) if confidence is None else np.clip(np.nan_to_num(np.asarray(confidence, float)), 0, None)
    if weight.shape != (V, N):
        raise ValueError(f"points are {points.shape}, but confidence is {weight.shape}")
    ideal = np.stack([undistort_pixels(xy, camera) for xy, camera in zip(points, cameras, strict=True)])
    weight = np.where(np.isfinite(ideal).all(-1), weight, 0.0)
    ideal = np.where(weight[..., None] > 0, ideal, 0.0)
    P, centre, scale = condition(np.stack([camera.P for camera in cameras]))
    stretch = np.stack([lens_stretch(xy, camera) for xy, camera in zip(ideal, cameras, strict=True)])
    views = _Views(ideal, P, weight, np.where(weight > 0, stretch, 1.0))
    side = max(picture_side(camera) for camera in cameras)
    gate = GENEROUS * side if max_px is None else max_px
    place, inliers, normal = _refine(*_consensus(views, PAIR_SLACK * gate), views, gate)
    if max_px is None:
        noise = np.sqrt(np.nanmedian(_variance(place, views, inliers))) if inliers.any() else np.inf
        tight = max(GATE_SIGMAS * float(noise), LEAST_GATE * side)
        if tight < gate:
            place, inliers, normal = _refine(*_consensus(views, PAIR_SLACK * tight), views, tight)
    variance = _variance(place, views, inliers) if sigma_px is None else sigma_px**2
    with np.errstate(invalid="ignore"):
        uncertainty = scale * np.sqrt(variance * np.trace(invert_symmetric(normal), axis1=-2, axis2=-1))
    world = scale * place + centre
    errors = np.stack([np.linalg.norm(project(world, c) - xy, axis=-1) for c, xy in zip(cameras, points, strict=True)])
    return Triangulated(world, errors, uncertainty, inliers)


def point_covariance(
    points: np.ndarray, cameras: Sequence[Camera], weight: np.ndarray, sigma_px: float = 1.0
) -> np.ndarray:
    """Covariance of triangulated points by the Jacobian J of their re-projection: sigma^2 (sum of w J'J)^-1.

    Args:
        points: (N, 3) world points.
        weight: (V, N) inverse variances relative to `sigma_px`; 0 for a view that did not make the point.

    Returns:
        (N, 3, 3) square metres; NaN where the views do not fix the point.
    """
    P, centre, scale = condition(np.stack([camera.P for camera in cameras]))
    seen, J = _slopes((np.asarray(points, float) - centre) / scale, P)
    stretch = np.stack([lens_stretch(xy, camera) for xy, camera in zip(seen, cameras, strict=True)])
    J = np.where(weight[..., None, None] > 0, J * stretch[..., None, None], 0.0)
    return (scale * sigma_px) ** 2 * invert_symmetric(np.einsum("vn,vnij,vnik->njk", weight, J, J))


def lens_stretch(ideal: np.ndarray, camera: Camera) -> np.ndarray:
    """How many pixels of the picture one pixel of an ideal lens becomes there, both axes averaged: (..., 2) -> (..)."""
    if not np.any(camera.distortion) and not camera.fisheye:
        return np.ones(ideal.shape[:-1])
    step = 0.5 * np.eye(2)
    x, y = (distort_pixels(ideal + d, camera) - distort_pixels(ideal - d, camera) for d in step)
    return np.sqrt(np.abs(x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]))


def condition(P: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Matrices for a world whose origin is where the cameras look, and whose unit is how far away they are.

    Args:
        P: (V, 3, 4) projection matrices; their rows may have any scale.

    Returns:
        (V, 3, 4) matrices whose third coordinate is the depth in the new unit, (3,) the new origin and the unit, both
        in the old world: X = unit * Y + origin.
    """
    P = P / np.linalg.norm(P[:, 2:3, :3], axis=-1, keepdims=True)
    place = -np.linalg.solve(P[..., :3], P[..., 3:])[..., 0]  # (V, 3) camera centres
    axis = P[:, 2, :3]
    across = np.eye(3) - axis[:, :, None] * axis[:, None, :]  # what is left of a vector without its part along the axis
    centre = place.mean(0)
    centre = centre + np.linalg.pinv(across.sum(0), rcond=1e-4) @ np.einsum("vij,vj->i", across, place - centre)
    unit = max(float(np.linalg.norm(place - centre, axis=-1).mean()), 1e-9)
    moved = np.concatenate([P[..., :3] * unit, P[..., :3] @ centre[:, None] + P[..., 3:]], -1)
    return moved / unit, centre, unit


def picture_side(camera: Camera) -> float:
    """The longer side of the camera's pictures in pixels, from the principal point where the size is not known."""
    return float(max(camera.size) or 2 * max(camera.K[0, 2], camera.K[1, 2]))


def invert_symmetric(M: np.ndarray) -> np.ndarray:
    """Inverses of symmetric 3 x 3 matrices, (..., 3, 3), by their cofactors; NaN where there is none."""
    a, b, c, d, e, f = M[..., 0, 0], M[..., 0, 1], M[..., 0, 2], M[..., 1, 1], M[..., 1, 2], M[..., 2, 2]
    A, B, C = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * A + b * B + c * C
    size = (a + d + f) / 3
    good = determinant > 1e-15 * size**3
    rows = np.stack([A, B, C, B, a * f - c * c, b * c - a * e, C, b * c - a * e, a * d - b * b], -1)
    return (rows / np.where(good, determinant, np.nan)[..., None]).reshape(M.shape)


class _Views(NamedTuple):
    """What the views saw: (V, N, 2) ideal pixels, (V, 3, 4) conditioned matrices, (V, N) weights, 0 where not seen,
    and (V, N) pixels of the picture to an ideal pixel."""

    ideal: np.ndarray
    P: np.ndarray
    weight: np.ndarray
    stretch: np.ndarray


def _consensus(views: _Views, gate: float) -> tuple[np.ndarray, np.ndarray]:
    """The best proposal of a pair of views: (N, 3) points, and (V, N) the views within `gate` of it."""
    ideal, P, weight, stretch = views
    V, N = weight.shape
    pairs = list(combinations(range(V), 2))
    if len(pairs) > MOST_PAIRS:
        pairs = [pairs[n] for n in np.random.default_rng(0).choice(len(pairs), MOST_PAIRS, replace=False)]
    rows = ideal[..., None] * P[:, None, 2:3, :] - P[:, None, :2, :]  # (V, N, 2, 4)
    squares = np.einsum("vnri,vnrj->vnij", rows[..., :3], rows)  # (V, N, 3, 4)
    best, place, inliers = np.zeros(N), np.full((N, 3), np.nan), np.zeros((V, N), bool)
    for one, other in pairs:
        tried = np.flatnonzero((weight[one] > 0) & (weight[other] > 0))
        system = squares[one][tried] + squares[other][tried]
        proposal = -np.einsum("nij,nj->ni", invert_symmetric(system[..., :3]), system[..., 3])
        miss = np.linalg.norm(reproject(proposal, P) - ideal[:, tried], axis=-1) * stretch[:, tried]  # (V, M)
        near = (miss < gate) & (weight[:, tried] > 0)
        score = (weight[:, tried] * np.where(near, 1 - (miss / gate) ** 2, 0.0)).sum(0)
        better = (score > best[tried]) & near[one] & near[other]
        chosen = tried[better]
        best[chosen], place[chosen], inliers[:, chosen] = score[better], proposal[better], near[:, better]
    return place, inliers


def _refine(
    place: np.ndarray, inliers: np.ndarray, views: _Views, gate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reweighted Gauss-Newton from a proposal: points, the views that are within `gate` of them, and sum of w J'J."""
    for step in range(REFINEMENTS):
        shown, J = _slopes(place, views.P)
        miss, J = (views.ideal - shown) * views.stretch[..., None], J * views.stretch[..., None, None]
        distance = np.linalg.norm(miss, axis=-1)  # (V, N)
        if step:
            inliers = (distance < gate) & (views.weight > 0)
        with np.errstate(invalid="ignore"):
            robust = np.where(inliers, views.weight / (1 + (distance / gate) ** 2) ** 2, 0.0)
        J, miss = np.where(inliers[..., None, None], J, 0.0), np.where(inliers[..., None], miss, 0.0)
        normal = np.einsum("vn,vnij,vnik->njk", robust, J, J)
        pull = np.einsum("vn,vnij,vni->nj", robust, J, miss)
        move = np.einsum("nij,nj->ni", invert_symmetric(normal), pull)
        place = place + move
        if not np.nanmax(np.abs(move), initial=0.0) > 1e-12:
            break
    lost = (inliers.sum(0) < 2) | ~np.isfinite(place).all(-1)
    inliers = inliers & ~lost
    return np.where(lost[:, None], np.nan, place), inliers, np.where(lost[:, None, None], np.nan, normal)


def _slopes(place: np.ndarray, P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points are seen, (V, N, 2), and the derivative of it by their coordinates, (V, N, 2, 3)."""
    x = place @ np.swapaxes(P[..., :3], -1, -2) + P[:, None, :, 3]  # (V, N, 3)
    depth = np.where(x[..., 2:] > 0, x[..., 2:], np.nan)
    shown = x[..., :2] / depth
    return shown, (P[:, None, :2, :3] - shown[..., None] * P[:, None, 2:3, :3]) / depth[..., None]


def _variance(place: np.ndarray, views: _Views, inliers: np.ndarray) -> np.ndarray:
    """(N,) noise of a view of weight 1, in square pixels: each point's own residuals, drawn towards those of all.

    The squares of V views that fix a point have 2 V - 3 degrees of freedom; the noise of all points is the median of
    their squares over the median of the chi-squared distribution, so that outliers do not count.
    """
    miss = np.where(inliers[..., None], reproject(place, views.P) - views.ideal, 0.0)
    squares = (views.weight * views.stretch**2 * (miss**2).sum(-1)).sum(0)
    freedom = np.maximum(2 * inliers.sum(0) - 3, 0)
    fixed = (freedom > 0) & np.isfinite(squares)
    if not fixed.any():
        return np.full(len(place), np.nan)
    middle = freedom * (1 - 2 / (9 * np.maximum(freedom, 1))) ** 3
    common = float(np.median(squares[fixed] / middle[fixed]))
    prior = 2 * PRIOR_VIEWS
    return np.where(fixed, (prior * common + squares) / (prior + freedom), common)
