"""Poses of a prior as a camera would see them: random views of 3D poses, 2D poses brought into square crops."""

from __future__ import annotations

import numpy as np


def random_views(
    poses: np.ndarray, rng: np.random.Generator, *, elevation_degrees: float = 10.0, roll_degrees: float = 3.0
) -> np.ndarray:
    """Turn 3D poses as random cameras see them: from every side, mostly from about the height of the subject.

    Args:
        poses: (N, K, 3) x right, y down, z forward; NaN where missing.
        elevation_degrees, roll_degrees: standard deviations of how far the camera looks down or up, and is tilted.

    Returns:
        (N, K, 3) in the cameras' axes (x right, y down, z forward), about the same origin.
    """
    N = len(poses)
    yaw = rng.uniform(-np.pi, np.pi, N)
    pitch, roll = np.radians(rng.normal(0, 1, (N, 2)) * (elevation_degrees, roll_degrees)).T
    R = _turn(2, roll) @ _turn(0, pitch) @ _turn(1, yaw)
    return poses @ np.swapaxes(R, -1, -2)


def project_randomly(
    poses: np.ndarray,
    rng: np.random.Generator,
    *,
    elevation_degrees: float = 10.0,
    roll_degrees: float = 3.0,
    distance: tuple[float, float] = (2.5, 8.0),
    fill: tuple[float, float] = (0.6, 0.85),
    shift: float = 0.05,
) -> np.ndarray:
    """Photograph 3D poses by random cameras and cut them out in square crops.

    Args:
        poses: (N, K, 3) x right, y down, z forward, any unit; NaN where missing.
        elevation_degrees, roll_degrees: as in `random_views`.
        distance: how far the camera is from the subject's middle, in its extents (a standing person's height).
        fill, shift: as in `fit_to_crop`.

    Returns:
        (N, K, 2) in [-1, 1] over the crop, NaN where missing.
    """
    seen = random_views(poses, rng, elevation_degrees=elevation_degrees, roll_degrees=roll_degrees)
    low, high = _bounds(seen)
    extent = (high - low).max(-1)
    away = rng.uniform(*distance, len(poses)) * extent
    centred = seen - ((low + high) / 2)[:, None]
    depth = np.maximum(centred[..., 2:] + away[:, None, None], 0.1 * extent[:, None, None])
    return fit_to_crop(centred[..., :2] / depth, rng, fill=fill, shift=shift)


def fit_to_crop(
    poses: np.ndarray,
    rng: np.random.Generator | None = None,
    *,
    fill: tuple[float, float] = (0.6, 0.85),
    shift: float = 0.05,
) -> np.ndarray:
    """Bring 2D poses into square crops: (N, K, 2) in any unit -> (N, K, 2) in [-1, 1], NaN where missing.

    Args:
        rng: None takes the middle of `fill` and no shift.
        fill: the longer side of the joints' box as a share of the crop, drawn evenly; flesh takes more than joints.
        shift: standard deviation of the box's middle about the crop's, as a share of the crop.

    Returns:
        Poses whose known joints are all at one place lie at the middle.
    """
    low, high = _bounds(poses)
    N = len(poses)
    share = np.full(N, np.mean(fill)) if rng is None else rng.uniform(*fill, N)
    offset = np.zeros((N, 2)) if rng is None else 2 * shift * rng.normal(0, 1, (N, 2))
    side = (high - low).max(-1)
    scale = np.where(side > 0, 2 * share / np.where(side > 0, side, 1.0), 0.0)
    return (poses - ((low + high) / 2)[:, None]) * scale[:, None, None] + offset[:, None]


def _bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest coordinates of the known points: (N, K, D) -> two of (N, D); zeros where none is known."""
    known = np.isfinite(points)
    low = np.where(known, points, np.inf).min(1)
    high = np.where(known, points, -np.inf).max(1)
    some = known.any(1)
    return np.where(some, low, 0.0), np.where(some, high, 0.0)


def _turn(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations about the x, y or z axis: (N,) radians -> (N, 3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.zeros((len(angle), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    rotation[:, axis, axis] = 1
    rotation[:, a, a] = rotation[:, b, b] = c
    rotation[:, a, b], rotation[:, b, a] = -s, s
    return rotation
