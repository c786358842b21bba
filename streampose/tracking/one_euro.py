"""The one-euro filter: smooth when slow, prompt when fast. Causal, for live keypoints and for boxes.

Source: Casiez, Roussel, Vogel, 1€ Filter, CHI 2012.
"""

from __future__ import annotations

import numpy as np


class OneEuroFilter:
    """Smooth an array of any shape from one time to the next; each element is filtered on its own.

    Args:
        min_cutoff: cut-off in Hz of what stands still; lower is smoother.
        beta: how much the cut-off rises with speed, in Hz per (unit of x per second); higher lags less.
        d_cutoff: cut-off in Hz of the speed itself.
        forget_seconds: an element that was missing for longer starts anew instead of gliding to its new place.
    """

    def __init__(
        self, min_cutoff: float = 1.0, beta: float = 0.05, d_cutoff: float = 1.0, forget_seconds: float = 0.5
    ) -> None:
        if min_cutoff <= 0 or d_cutoff <= 0 or beta < 0:
            raise ValueError(
                f"one-euro filter: min_cutoff={min_cutoff} and d_cutoff={d_cutoff} must be positive, "
                f"beta={beta} not negative"
            )
        self.min_cutoff, self.beta, self.d_cutoff, self.forget_seconds = min_cutoff, beta, d_cutoff, forget_seconds
        self.reset()

    def reset(self) -> None:
        """Forget everything, as when the subject changes."""
        self._value: np.ndarray | None = None
        self._speed = np.zeros(0)
        self._seen = np.zeros(0)

    def apply(self, x: np.ndarray, t_seconds: float, confidence: np.ndarray | None = None) -> np.ndarray:
        """Smooth the values of one moment, given those before it.

        Args:
            x: values, for example (N, K, 2) keypoints; NaN is missing and stays NaN, and disturbs nothing.
            t_seconds: the moment; a value at or before the last one replaces nothing and returns the last estimate.
            confidence: weights in [0, 1] of x's shape or without its last axis; unsure values move the estimate less.

        Returns:
            The smoothed values, same shape, float64.
        """
        x = np.asarray(x, np.float64)
        missing = np.isnan(x)
        if self._value is None or self._value.shape != x.shape:
            self._value, self._speed = x.copy(), np.zeros_like(x)
            self._seen = np.where(missing, -np.inf, t_seconds)
            return x.copy()
        seconds = t_seconds - self._seen
        anew = ~missing & (~np.isfinite(self._value) | (seconds > self.forget_seconds))
        going = ~missing & ~anew & (seconds > 0)
        weight = np.ones_like(x) if confidence is None else _like(np.clip(confidence, 0.0, 1.0), x)

        step = np.where(going, x - np.where(going, self._value, 0.0), 0.0)
        seconds = np.where(going, seconds, 1.0)
        speed = self._speed + _alpha(self.d_cutoff, seconds) * weight * (step / seconds - self._speed)
        speed = np.where(going, speed, self._speed)
        moved = _alpha(self.min_cutoff + self.beta * np.abs(speed), seconds) * weight * step

        self._value = np.where(anew, x, np.where(going, self._value + moved, self._value))
        self._speed = np.where(anew, 0.0, speed)
        self._seen = np.where(anew | going, t_seconds, self._seen)
        return np.where(missing, np.nan, self._value)


def _alpha(cutoff: np.ndarray | float, seconds: np.ndarray) -> np.ndarray:
    """Weight of the new value in a first-order low pass with this cut-off in Hz."""
    turn = 2.0 * np.pi * cutoff * seconds
    return turn / (turn + 1.0)


def _like(confidence: np.ndarray, x: np.ndarray) -> np.ndarray:
    confidence = np.asarray(confidence, np.float64)
    if confidence.shape == x.shape[:-1] and confidence.ndim < x.ndim:
        confidence = confidence[..., None]
    return np.nan_to_num(np.broadcast_to(confidence, x.shape))
