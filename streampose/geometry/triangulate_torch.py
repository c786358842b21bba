"""Triangulation that can be differentiated: the linear DLT of `triangulate`, plain and reweighted, in torch.

Whatever the type of the points, the small systems are solved in float64 (float32 on devices that lack it) and the
result has the points' type, so float32 keypoints lose nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streampose.geometry.triangulate import dlt_system


def triangulate_dlt(points_2d: Tensor, P: Tensor, confidence: Tensor | None = None) -> Tensor:
    """Triangulate keypoints seen by several calibrated views (linear DLT); differentiable in all three.

    Args:
        points_2d: (..., V, K, 2) undistorted pixels; NaN where a view misses the keypoint.
        P: (..., V, 3, 4) projection matrices K[R|t], world -> pixels.
        confidence: (..., V, K) weights in [0, 1]; None weighs all views alike.

    Returns:
        (..., K, 3) world points in the unit of t; NaN where fewer than two views see it, with gradients of zero.

    Raises:
        ValueError: the view counts differ.

    Source: Hartley & Zisserman, Multiple View Geometry, 2nd ed., Sec. 12.2. The gradient is that of the smallest
    singular vector, by perturbation theory; it needs no distance between the other singular values.
    """
    work = torch.float32 if points_2d.device.type == "mps" else torch.float64
    weight = None if confidence is None else confidence.to(work)
    system, enough = dlt_system(torch, points_2d.to(work), P.to(work), weight)
    system = torch.where(enough[..., None, None], system, 0.0)
    with torch.no_grad():
        _, S, Vh = torch.linalg.svd(system, full_matrices=False)
        smallest = Vh[..., -1, :, None]  # (..., K, 4, 1)
        apart = S[..., :3] ** 2 - S[..., 3:] ** 2
        inverse = Vh[..., :3, :].mT @ (Vh[..., :3, :] / torch.where(enough[..., None], apart, 1.0)[..., None])
    point = (smallest - inverse @ (system.mT @ (system @ smallest)))[
        ..., 0
    ]  # the second term is zero but has the slope
    w = torch.where(enough, point[..., 3], 1.0)
    world = torch.where(enough[..., None], point[..., :3] / w[..., None], torch.nan)
    return world.to(points_2d.dtype)


def triangulate_reweighted(
    points_2d: Tensor, P: Tensor, confidence: Tensor | None = None, *, scale_px: float, iterations: int = 4
) -> Tensor:
    """DLT, then again with each view weighed by how near it is: views far beyond `scale_px` lose their say.

    The weights 1 / (1 + (error / scale)^2)^2 / depth^2 are constants to the gradient; dividing by the depth makes the
    algebraic error one of pixels. It starts from all views, so it withstands few and moderate outliers; for hard cases
    choose the views first with `triangulate.triangulate_robust` and pass their inliers as confidence.

    Args:
        points_2d, P, confidence: as for `triangulate_dlt`.
        scale_px: errors that are still normal.

    Returns:
        (..., K, 3) as `triangulate_dlt`.
    """
    weight = torch.ones_like(points_2d[..., 0]) if confidence is None else confidence
    world = triangulate_dlt(points_2d, P, weight)
    P = P.to(points_2d.dtype)
    for _ in range(iterations):
        with torch.no_grad():
            error = reprojection_error(world, points_2d, P)  # (..., V, K)
            depth = (world[..., None, :, :] @ P[..., :3].mT + P[..., None, :, 3])[..., 2]
            typical = torch.nanmedian(depth, -2, keepdim=True).values
            # the DLT multiplies equations by these, so squares of them weigh
            near = typical / depth / (1 + (error / scale_px) ** 2)
            near = torch.where(torch.isfinite(near) & (depth > 0), near, 0.0)
        world = triangulate_dlt(points_2d, P, weight * near)
    return world


def reproject(points: Tensor, P: Tensor) -> Tensor:
    """Undistorted pixels of world points in every view: (..., K, 3), (..., V, 3, 4) -> (..., V, K, 2).

    NaN, with gradients of zero, where the point is not in front of the camera.
    """
    known = torch.isfinite(points).all(-1, keepdim=True)
    x = torch.where(known, points, 0.0)[..., None, :, :] @ P[..., :3].mT + P[..., None, :, 3]
    front = (x[..., 2:] > 0) & known[..., None, :, :]
    return torch.where(front, x[..., :2] / torch.where(front, x[..., 2:], 1.0), torch.nan)


def reprojection_error(points: Tensor, points_2d: Tensor, P: Tensor) -> Tensor:
    """Pixels between where points are seen and where they should be: (..., V, K); NaN where either is missing."""
    miss = reproject(points, P) - points_2d
    known = torch.isfinite(miss).all(-1)
    return torch.where(known, torch.linalg.norm(torch.where(known[..., None], miss, 0.0), dim=-1), torch.nan)
