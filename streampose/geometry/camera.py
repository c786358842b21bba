"""A camera as plain values and back, and the same camera after its pictures were resized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from streampose.errors import ConfigError
from streampose.structures import Camera


def camera_from_dict(values: Mapping[str, Any], where: str, metres: float = 1.0) -> Camera:
    """A camera from K, size, distortion, fisheye and, where its place is known, R (matrix or rotation vector) and t.

    Raises:
        ConfigError: a part that is missing, of the wrong shape, not a number, or not a rotation.
    """
    K = _numbers(values, "K", where, (3, 3))
    posed = values.get("R") is not None and values.get("t") is not None
    R: np.ndarray = np.eye(3)
    t: np.ndarray = np.zeros(3)
    if posed:
        R = _numbers(values, "R", where)
        if R.size == 3:
            R = cv2.Rodrigues(R.reshape(3))[0]
        t = _numbers(values, "t", where).reshape(-1) * metres
        if R.shape != (3, 3) or t.shape != (3,):
            raise ConfigError(f"{where}: R has shape {R.shape} and t {t.shape}; expected (3, 3) or (3,), and (3,)")
        if np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
            raise ConfigError(f"{where}: R is not a rotation (R R' differs from the identity)")
    if not (K[0, 0] > 0 and K[1, 1] > 0 and abs(K[2, 2] - 1) < 1e-6):
        raise ConfigError(f"{where}: K has focal lengths {K[0, 0]:g} and {K[1, 1]:g}; they must be above 0")
    size = tuple(round(float(v)) for v in values.get("size") or (0, 0))
    if len(size) != 2 or min(size) < 0:
        raise ConfigError(f"{where}: size {values.get('size')}; expected width and height in pixels")
    distortion = (
        _numbers(values, "distortion", where).reshape(-1) if values.get("distortion") is not None else np.zeros(0)
    )
    fisheye = bool(values.get("fisheye", False))
    allowed = (0, 4) if fisheye else (0, 4, 5, 8, 12, 14)
    if len(distortion) == 2 and not fisheye:
        distortion = np.append(distortion, [0.0, 0.0])
    if len(distortion) not in allowed:
        raise ConfigError(f"{where}: {len(distortion)} distortion coefficients; expected one of {allowed}")
    return Camera(K, R, t, (size[0], size[1]), distortion, fisheye, posed)


def camera_to_dict(camera: Camera) -> dict[str, Any]:
    """JSON-able content of a camera; `camera_from_dict` reads it back."""
    values: dict[str, Any] = {
        "size": list(camera.size),
        "K": np.asarray(camera.K, float).tolist(),
        "distortion": np.ravel(np.asarray(camera.distortion, float)).tolist(),
        "fisheye": bool(camera.fisheye),
    }
    if camera.posed:
        values |= {"R": np.asarray(camera.R, float).tolist(), "t": np.asarray(camera.t, float).tolist()}
    return values


def resize_camera(camera: Camera, size: tuple[int, int]) -> Camera:
    """The camera of the same pictures resized to (width, height); pixel centres stay at integers."""
    scale = np.array(size, float) / np.array(camera.size, float)
    K = np.array(camera.K, float)
    K[:2, :2] *= scale[:, None]
    K[:2, 2] = (K[:2, 2] + 0.5) * scale - 0.5
    return replace(camera, K=K, size=(int(size[0]), int(size[1])))


def _numbers(values: Mapping[str, Any], key: str, where: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    try:
        array = np.asarray(values.get(key), float)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: {key} is not made of numbers, got {values.get(key)!r}") from None
    if (shape is not None and array.shape != shape) or not np.isfinite(array).all():
        raise ConfigError(f"{where}: {key} is missing, not finite or has the wrong shape, got {values.get(key)!r}")
    return array
