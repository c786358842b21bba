"""World points from what several calibrated cameras see, and how well the cameras agree about them."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def triangulate_dlt(points_2d: np.ndarray, P: np.ndarray, confidence: np.ndarray | None = None) -> np.ndarray:
    """Triangulate points seen by several calibrated views (linear DLT), in float64.

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
    V = points_2d.shape[-3]
    if P.shape[-3] != V:
        raise ValueError(f"{V} views of points, but {P.shape[-3]} projection matrices")
    weight = np.ones(points_2d.shape[:-1]) if confidence is None else np.asarray(confidence, float)
    seen = np.isfinite(points_2d).all(-1) & (weight > 0)  # (..., V, K)
    weight = np.where(seen, weight, 0.0)
    xy = np.where(seen[..., None], points_2d, 0.0)
    rows = xy[..., None] * P[..., :, None, 2:3, :] - P[..., :, None, :2, :]  # (..., V, K, 2, 4)
    rows = np.moveaxis(rows * weight[..., None, None], -4, -3)  # (..., K, V, 2, 4)
    system = rows.reshape(*rows.shape[:-3], 2 * V, 4)
    point = np.linalg.svd(system, full_matrices=False)[2][..., -1, :]  # (..., K, 4)
    enough = seen.sum(-2) >= 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(enough[..., None], point[..., :3] / point[..., 3:], np.nan)


def reproject(points: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Undistorted pixels of world points in every view: (..., K, 3), (..., V, 3, 4) -> (..., V, K, 2).

    NaN where the point is not in front of the camera.
    """
    P = np.asarray(P, float)
    x = np.asarray(points, float)[..., None, :, :] @ np.swapaxes(P[..., :3], -1, -2) + P[..., None, :, 3]
    return x[..., :2] / np.where(x[..., 2:] > 0, x[..., 2:], np.nan)


def triangulate_robust(
    points_2d: np.ndarray, P: np.ndarray, confidence: np.ndarray | None = None, *, max_px: float = 20.0
) -> tuple[np.ndarray, np.ndarray]:
    """Triangulate with the views that agree: the best pair of views first, then all views within `max_px` of it.

    A pair is better the more confidence lies in the views within `max_px` of its point, and the nearer they are.

    Args:
        points_2d, P, confidence: as for `triangulate_dlt`.

    Returns:
        (..., K, 3) world points and (..., V, K) bool, the views that were used; NaN where fewer than two agree.
    """
    points_2d = np.asarray(points_2d, float)
    V = points_2d.shape[-3]
    weight = np.ones(points_2d.shape[:-1]) if confidence is None else np.asarray(confidence, float)
    weight = np.where(np.isfinite(points_2d).all(-1), weight, 0.0)
    best_score = np.full(weight.shape[:-2] + weight.shape[-1:], -np.inf)  # (..., K)
    agreeing = np.zeros(weight.shape, bool)
    for pair in combinations(range(V), 2):
        chosen = np.zeros(V)
        chosen[list(pair)] = 1
        points = triangulate_dlt(points_2d, P, weight * chosen[:, None])
        error = np.linalg.norm(reproject(points, P) - points_2d, axis=-1)  # (..., V, K)
        closeness = np.where(error < max_px, 1 - error / max_px, 0.0)
        score = (weight * closeness).sum(-2)
        within = (closeness > 0) & (weight > 0)
        better = (score > best_score) & (within.sum(-2) >= 2)
        agreeing = np.where(better[..., None, :], within, agreeing)
        best_score = np.where(better, score, best_score)
    return triangulate_dlt(points_2d, P, weight * agreeing), agreeing


def reprojection_error(points: np.ndarray, points_2d: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Pixels between where points are seen and where they should be: (..., V, K); NaN where either is missing."""
    return np.linalg.norm(reproject(points, P) - np.asarray(points_2d, float), axis=-1)
