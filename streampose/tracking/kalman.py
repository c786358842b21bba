"""A Kalman filter for keypoints: each coordinate moves steadily and is pushed at random; unsure ones are trusted less.

Causal, for live keypoints; it lags less than the one-euro filter in steady movement.

Source: Kalman, A New Approach to Linear Filtering and Prediction Problems, 1960; white-noise acceleration model as in
Bar-Shalom, Li, Kirubarajan, Estimation with Applications to Tracking and Navigation, 2001, Sec. 6.3.2.
"""

from __future__ import annotations

import numpy as np

LEAST_CONFIDENCE = 0.05  # a value with none at all is still a value


class KalmanFilter:
    """Smooth an array of any shape from one time to the next; each element is filtered on its own.

    Args:
        noise: standard deviation of a value with confidence 1, in units of x.
        push: spectral density of the acceleration, in units of x / s^1.5; higher follows sooner and smooths less.
        forget_seconds: an element that was missing for longer starts anew.
    """

    def __init__(self, noise: float = 1.0, push: float = 100.0, forget_seconds: float = 0.5) -> None:
        if noise <= 0 or push <= 0:
            raise ValueError(f"Kalman filter: noise={noise} and push={push} must be positive")
        self.noise, self.push, self.forget_seconds = noise, push, forget_seconds
        self.reset()

    def reset(self) -> None:
        """Forget everything, as when the subject changes."""
        self._value: np.ndarray | None = None
        self._speed = self._seen = self._at = np.zeros(0)
        self._spread = np.zeros((0, 3))  # variances of value, value with speed, speed

    def apply(self, x: np.ndarray, t_seconds: float, confidence: np.ndarray | None = None) -> np.ndarray:
        """Smooth the values of one moment, given those before it.

        Args:
            x: values, for example (N, K, 2) keypoints; NaN is missing and stays NaN, and disturbs nothing.
            t_seconds: the moment; a value at or before the last one replaces nothing and returns the last estimate.
            confidence: weights in [0, 1] of x's shape or without its last axis; the noise is divided by it.

        Returns:
            The smoothed values, same shape, float64.
        """
        x = np.asarray(x, np.float64)
        missing = np.isnan(x)
        variance = np.square(self.noise / _like(confidence, x))
        if self._value is None or self._value.shape != x.shape:
            self._value, self._speed = x.copy(), np.zeros_like(x)
            self._spread = np.stack([variance, np.zeros_like(x), np.full_like(x, np.square(self.push))], -1)
            self._seen = np.where(missing, -np.inf, t_seconds)
            self._at = np.full_like(x, t_seconds)
            return x.copy()
        anew = ~missing & (~np.isfinite(self._value) | (t_seconds - self._seen > self.forget_seconds))
        seconds = np.maximum(t_seconds - self._at, 0.0)
        going = ~missing & ~anew & (seconds > 0)
        seconds = np.where(going, seconds, 0.0)

        value = self._value + self._speed * seconds
        vv, vs, ss = np.moveaxis(self._spread, -1, 0)
        q = np.square(self.push)
        vv = vv + 2 * seconds * vs + seconds**2 * ss + q * seconds**3 / 3
        vs = vs + seconds * ss + q * seconds**2 / 2
        ss = ss + q * seconds
        gain_value, gain_speed = vv / (vv + variance), vs / (vv + variance)
        surprise = np.where(going, x - np.where(going, value, 0.0), 0.0)
        spread = np.stack([(1 - gain_value) * vv, (1 - gain_value) * vs, ss - gain_speed * vs], -1)
        fresh = np.stack([variance, np.zeros_like(x), np.full_like(x, q)], -1)

        self._value = np.where(anew, x, np.where(going, value + gain_value * surprise, self._value))
        self._speed = np.where(anew, 0.0, np.where(going, self._speed + gain_speed * surprise, self._speed))
        self._spread = np.where(anew[..., None], fresh, np.where(going[..., None], spread, self._spread))
        self._seen = np.where(anew | going, t_seconds, self._seen)
        self._at = np.where(anew | going, t_seconds, self._at)
        return np.where(missing, np.nan, self._value)


def _like(confidence: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    if confidence is None:
        return np.ones_like(x)
    confidence = np.asarray(confidence, np.float64)
    if confidence.shape == x.shape[:-1] and confidence.ndim < x.ndim:
        confidence = confidence[..., None]
    return np.clip(np.nan_to_num(np.broadcast_to(confidence, x.shape)), LEAST_CONFIDENCE, 1.0)
