"""Project world points with a calibrated camera, with OpenCV's lens distortion, and undo that distortion."""

from __future__ import annotations

import numpy as np


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
        distortion: (D,) OpenCV coefficients k1 k2 p1 p2 [k3 [k4 k5 k6]]; None for none.

    Returns:
        (..., K, 2) pixels; NaN where the point is not in front of the camera.
    """
    x_cam = camera_from_world(points, R, t)
    z = x_cam[..., 2:3]
    normalised = x_cam[..., :2] / np.where(z > 0, z, np.nan)
    if distortion is not None and len(distortion):
        normalised = distort(normalised, distortion)
    return normalised @ np.swapaxes(K[..., :2, :2], -1, -2) + K[..., None, :2, 2]


def distort(xy: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Apply radial and tangential lens distortion to normalised image coordinates: (..., 2) -> (..., 2).

    Raises:
        ValueError: more than eight or fewer than four coefficients.

    Source: the pinhole model of OpenCV's calib3d, rational radial part.
    """
    k1, k2, p1, p2, k3, k4, k5, k6 = _eight(distortion)
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        -1,
    )


def undistort_points(xy: np.ndarray, K: np.ndarray, distortion: np.ndarray, iterations: int = 20) -> np.ndarray:
    """Pixels as an ideal lens would have seen them, by fixed-point iteration of `distort`: (..., 2) -> (..., 2).

    Args:
        xy: (..., 2) distorted pixels.
        K: (3, 3) intrinsics.
        distortion: (D,) OpenCV coefficients; empty returns the points.
    """
    if not len(distortion):
        return xy
    inverse = np.linalg.inv(K)
    target = xy @ inverse[:2, :2].T + inverse[:2, 2]
    ideal = target
    for _ in range(iterations):
        ideal = ideal + target - distort(ideal, distortion)
    return ideal @ K[:2, :2].T + K[:2, 2]


def _eight(distortion: np.ndarray) -> list[float]:
    values = [float(value) for value in np.ravel(distortion)]
    if not 4 <= len(values) <= 8:
        raise ValueError(f"distortion has {len(values)} coefficients, expected 4 to 8 (k1 k2 p1 p2 k3 k4 k5 k6)")
    return values + [0.0] * (8 - len(values))
