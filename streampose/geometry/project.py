"""Project world points with one camera or one camera a frame; `distortion` holds the lenses."""

from __future__ import annotations

import numpy as np

from streampose.geometry.distortion import distort


def camera_from_world(points: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """World points in the camera frame (x right, y down, z forward): (..., K, 3) -> (..., K, 3).

    Args:
        R: (..., 3, 3) cam_from_world rotation.
        t: (..., 3) cam_from_world translation, in the unit of the points.
    """
    return points @ np.swapaxes(R, -1, -2) + t[..., None, :]


def project_points(
    points: np.ndarray, K: np.ndarray, R: np.ndarray, t: np.ndarray, distortion: np.ndarray | None = None
) -> np.ndarray:
    """Project world points to pixels (pixel centres are integers).

    Args:
        points: (..., K, 3) world points.
        K, R, t: (..., 3, 3), (..., 3, 3), (..., 3): `x_cam = R @ x_world + t`.
        distortion: (D,) OpenCV coefficients of a pinhole lens, as for `distortion.distort`; None for none.

    Returns:
        (..., K, 2) pixels; NaN where the point is not in front of the camera.
    """
    x_cam = camera_from_world(points, R, t)
    z = x_cam[..., 2:3]
    normalised = x_cam[..., :2] / np.where(z > 0, z, np.nan)
    if distortion is not None and len(distortion):
        normalised = distort(normalised, distortion)
    return normalised @ np.swapaxes(K[..., :2, :2], -1, -2) + K[..., None, :2, 2]
