"""Lenses both ways: from ideal to seen points and back, for OpenCV's pinhole and fisheye models, vectorised in numpy.

"Normalised" coordinates are x/z and y/z in the camera frame. NaN goes in and comes out as NaN; so does a point that
the lens model cannot have made (beyond the bend of its polynomial).
"""

from __future__ import annotations

import numpy as np

from streampose.structures import Camera

TOLERANCE = 1e-7  # normalised; a found point must distort back to within this
MAX_ANGLE = np.pi / 2 - 1e-4  # a fisheye ray further out has no place in a pinhole image


def distort(normalised: np.ndarray, distortion: np.ndarray, fisheye: bool = False) -> np.ndarray:
    """What the lens makes of ideal normalised coordinates: (..., 2) -> (..., 2).

    Args:
        distortion: (D,) coefficients k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4]]]; fisheye: k1 k2 k3 k4; empty for none.

    Raises:
        ValueError: a number of coefficients that the model does not have, or a tilted sensor.

    Source: the pinhole and fisheye camera models of OpenCV's calib3d.
    """
    xy = np.asarray(normalised, float)
    if not np.any(distortion) and not fisheye:
        return xy
    if fisheye:
        radius = np.linalg.norm(xy, axis=-1, keepdims=True)
        bent = _bend(np.arctan(radius), _fisheye_terms(distortion))
        return xy * np.divide(bent, radius, out=np.ones_like(radius), where=radius != 0)  # NaN stays NaN
    return _bend_pinhole(xy, _pinhole_terms(distortion))


def undistort(seen: np.ndarray, distortion: np.ndarray, fisheye: bool = False, iterations: int = 25) -> np.ndarray:
    """Ideal normalised coordinates of seen ones, the inverse of `distort` by Newton's method: (..., 2) -> (..., 2).

    Returns:
        NaN where no ideal point is seen there.
    """
    seen = np.asarray(seen, float)
    if fisheye:
        return _undistort_fisheye(seen, _fisheye_terms(distortion), iterations)
    if not np.any(distortion):
        return seen
    terms, ideal = _pinhole_terms(distortion), seen
    with np.errstate(all="ignore"):
        for _ in range(iterations):
            miss = seen - _bend_pinhole(ideal, terms)
            if not np.nanmax(np.abs(miss), initial=0.0) > TOLERANCE * 1e-5:
                break
            xx, xy, yx, yy = _slopes(ideal, terms)
            determinant = xx * yy - xy * yx
            step = [(miss[..., 0] * yy - miss[..., 1] * xy), (miss[..., 1] * xx - miss[..., 0] * yx)]
            ideal = ideal + np.stack(step, -1) / determinant[..., None]
        found = np.abs(seen - _bend_pinhole(ideal, terms)).max(-1, keepdims=True) < TOLERANCE
    return np.where(found, ideal, np.nan)


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Pixels at which a camera sees world points, lens included: (..., 3) -> (..., 2); NaN behind the camera."""
    x_cam = np.asarray(points, float) @ camera.R.T + camera.t
    z = x_cam[..., 2:3]
    return _to_pixels(distort(x_cam[..., :2] / np.where(z > 0, z, np.nan), camera.distortion, camera.fisheye), camera.K)


def undistort_pixels(pixels: np.ndarray, camera: Camera) -> np.ndarray:
    """Pixels as an ideal lens with the same K would have seen them: (..., 2) -> (..., 2)."""
    return _to_pixels(undistort(_to_normalised(pixels, camera.K), camera.distortion, camera.fisheye), camera.K)


def distort_pixels(pixels: np.ndarray, camera: Camera) -> np.ndarray:
    """Where the camera's lens puts the pixels of an ideal lens: the inverse of `undistort_pixels`."""
    return _to_pixels(distort(_to_normalised(pixels, camera.K), camera.distortion, camera.fisheye), camera.K)


def _to_pixels(normalised: np.ndarray, K: np.ndarray) -> np.ndarray:
    return normalised @ K[:2, :2].T + K[:2, 2]


def _to_normalised(pixels: np.ndarray, K: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(K)
    return np.asarray(pixels, float) @ inverse[:2, :2].T + inverse[:2, 2]


def _bend_pinhole(ideal: np.ndarray, terms: np.ndarray) -> np.ndarray:
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = terms
    x, y = ideal[..., 0], ideal[..., 1]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4),
        ],
        -1,
    )


def _slopes(ideal: np.ndarray, terms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Derivatives of `_bend_pinhole`: of x by x, of x by y, of y by x, of y by y."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = terms
    x, y = ideal[..., 0], ideal[..., 1]
    r2 = x * x + y * y
    above, below = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = above / below
    rise = (k1 + r2 * (2 * k2 + r2 * 3 * k3) - radial * (k4 + r2 * (2 * k5 + r2 * 3 * k6))) / below  # by r2
    along_x, along_y = 2 * (x * rise + s1 + 2 * s2 * r2), 2 * (y * rise + s3 + 2 * s4 * r2)
    return (
        radial + along_x * x + 2 * p1 * y + 6 * p2 * x,
        along_x * y + 2 * p1 * x + 2 * p2 * y,
        along_y * x + 2 * p1 * x + 2 * p2 * y,
        radial + along_y * y + 6 * p1 * y + 2 * p2 * x,
    )


def _bend(angle: np.ndarray, terms: np.ndarray) -> np.ndarray:
    square = angle * angle
    k1, k2, k3, k4 = terms
    return angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))


def _undistort_fisheye(seen: np.ndarray, terms: np.ndarray, iterations: int) -> np.ndarray:
    radius = np.linalg.norm(seen, axis=-1, keepdims=True)
    powers = np.array([3.0, 5.0, 7.0, 9.0]) * terms
    angle = np.minimum(radius, MAX_ANGLE)
    with np.errstate(all="ignore"):
        for _ in range(iterations):
            square = angle * angle
            slope = 1 + square * (powers[0] + square * (powers[1] + square * (powers[2] + square * powers[3])))
            angle = np.clip(angle - (_bend(angle, terms) - radius) / slope, 0, MAX_ANGLE)
        found = np.abs(_bend(angle, terms) - radius) < TOLERANCE
        scale = np.where(radius > 0, np.tan(angle) / radius, 1.0)
    return np.where(found, seen * scale, np.nan)


def _pinhole_terms(distortion: np.ndarray) -> np.ndarray:
    values = np.ravel(np.asarray(distortion, float))
    if len(values) == 14 and not values[12:].any():
        values = values[:12]
    if len(values) not in (4, 5, 8, 12):
        tilted = " with a tilted sensor" if len(values) == 14 else ""
        raise ValueError(f"{len(values)} distortion coefficients{tilted}; a pinhole lens has 4, 5, 8 or 12")
    return np.pad(values, (0, 12 - len(values)))


def _fisheye_terms(distortion: np.ndarray) -> np.ndarray:
    values = np.ravel(np.asarray(distortion, float))
    if len(values) not in (0, 4):
        raise ValueError(f"{len(values)} distortion coefficients; a fisheye lens has 4 (k1 k2 k3 k4)")
    return np.pad(values, (0, 4 - len(values)))
