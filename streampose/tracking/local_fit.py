"""Smooth tracks of points after the fact: a parabola fitted around each moment, weighted by how sure each point is.

Each point and moment is smoothed as widely as its noise explains the change, so that fast motion stays. Not causal,
hence without lag; for live use see `one_euro`. Neither the steps of time need be even nor all points known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampose.geometry.triangulate import invert_symmetric

WIDTHS_SECONDS = (0.03, 0.06, 0.1)  # standard deviations of the bell around each moment
SAME = 1.5  # standard deviations: a wider bell is taken where its result differs by no more from the narrower one's
REACH = 3.0  # widths, beyond which nothing counts
OUTLIER = 3.0  # standard deviations from the parabola, beyond which a point counts less and less
LEAST_NOISE = 0.1  # of the typical uncertainty: no point counts for more than one of it
PASSES = 3


def smooth_points(
    points: np.ndarray,
    uncertainty: np.ndarray,
    seconds: np.ndarray,
    *,
    widths_seconds: Sequence[float] = WIDTHS_SECONDS,
    longest_gap_seconds: float = 0.25,
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth (T, K, 3) tracks; short gaps are bridged.

    Args:
        points: NaN where missing.
        uncertainty: (T, K) one standard deviation; NaN where the point is missing or its uncertainty unknown.
        seconds: (T,) increasing times.
        widths_seconds: increasing; wider smooths more; empty smooths nothing.
        longest_gap_seconds: a missing point is filled in where the known ones before and after are no further apart.

    Returns:
        (T, K, 3) smoothed points, and (T, K) what is left of their uncertainty.

    Source: the choice of the width is that of Lepski, On a problem of adaptive estimation, 1990.
    """
    T, K, _ = points.shape
    if T == 0 or not len(widths_seconds):
        return points.copy(), uncertainty.copy()
    known = np.isfinite(points).all(-1)
    sigma = np.where(known, np.where(np.isfinite(uncertainty), uncertainty, np.inf), np.nan)
    finite = sigma[np.isfinite(sigma)]
    typical = float(np.median(finite)) if len(finite) else 1.0
    typical = typical if typical > 0 else 1.0
    sigma = np.clip(np.nan_to_num(sigma, nan=typical, posinf=10 * typical), LEAST_NOISE * typical, None)
    weight = np.where(known, 1 / sigma**2, 0.0)
    values = np.where(known[..., None], points, 0.0)
    fitted, variance = np.full_like(points, np.nan), np.full((T, K), np.nan)
    narrower = np.ones((T, K), bool)  # where no wider bell has been refused yet
    for width in widths_seconds:
        wider, spread = _fit_robustly(points, values, sigma, weight, seconds, width)
        apart = np.linalg.norm(wider - fitted, axis=-1)
        fits = narrower & ~(apart > SAME * np.sqrt(3 * variance))  # NaN: there was nothing narrower
        narrower = fits | np.isnan(variance)
        fitted, variance = np.where(fits[..., None], wider, fitted), np.where(fits, spread, variance)
    wanted = known | _bridged(known, seconds, longest_gap_seconds)
    fitted = np.where(np.isfinite(fitted), fitted, points)
    spread = np.sqrt(3 * variance)
    spread = np.where(known, np.fmin(spread, np.where(known, sigma, np.nan)), spread)
    return np.where(wanted[..., None], fitted, np.nan), np.where(wanted, spread, np.nan)


def _fit_robustly(points, values, sigma, weight, seconds, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Parabolas around each moment, points far off them weighing less: (T, K, 3) and the variance (T, K) of an axis."""
    near = _neighbours(seconds, REACH * width)  # (T, M), -1 where there is none
    apart = (seconds[near] - seconds[:, None]) / width
    bell = np.where(near >= 0, np.exp(-0.5 * apart**2), 0.0)
    robust = np.ones(weight.shape)
    for step in range(PASSES):
        fitted, variance = _fit(values, weight * robust, near, bell, apart)
        if step < PASSES - 1:
            off = np.linalg.norm(points - fitted, axis=-1) / sigma
            robust = np.where(np.isfinite(off), np.minimum(1, (OUTLIER / np.maximum(off, 1e-9)) ** 2), 1.0)
    return fitted, variance / 3


def _neighbours(seconds: np.ndarray, reach: float) -> np.ndarray:
    """(T, M) row numbers of the moments within reach of each, filled up with -1."""
    first = np.searchsorted(seconds, seconds - reach, side="left")
    stop = np.searchsorted(seconds, seconds + reach, side="right")
    numbers = first[:, None] + np.arange(int((stop - first).max()))[None]
    return np.where(numbers < stop[:, None], numbers, -1)


def _fit(values: np.ndarray, weight: np.ndarray, near: np.ndarray, bell: np.ndarray, apart: np.ndarray):
    """Parabolas through the neighbours of each moment: their values there (T, K, 3), NaN where they are not fixed, and
    the variance of them (T, K) for independent points."""
    w = weight[near] * bell[..., None]  # (T, M, K)
    powers = np.stack([np.ones_like(apart), apart, apart**2], -1)  # (T, M, 3)
    normal = np.einsum("tmk,tmp,tmq->tkpq", w, powers, powers)
    pull = np.einsum("tmk,tmp,tmkx->tkpx", w, powers, values[near])
    inverse = invert_symmetric(normal)
    fitted = np.einsum("tkp,tkpx->tkx", inverse[..., 0, :], pull)
    blurred = np.einsum("tmk,tmp,tmq->tkpq", w * bell[..., None], powers, powers)
    return fitted, np.einsum("tkp,tkpq,tkq->tk", inverse[..., 0, :], blurred, inverse[..., 0, :])


def _bridged(known: np.ndarray, seconds: np.ndarray, longest: float) -> np.ndarray:
    """(T, K) whether a point lies in a gap between two known ones that are no more than `longest` apart."""
    T = len(seconds)
    rows = np.arange(T)[:, None]
    before = np.maximum.accumulate(np.where(known, rows, -1), 0)
    after = np.minimum.accumulate(np.where(known, rows, T)[::-1], 0)[::-1]
    inside = (before >= 0) & (after < T)
    span = seconds[np.minimum(after, T - 1)] - seconds[np.maximum(before, 0)]
    return inside & (span <= longest)
