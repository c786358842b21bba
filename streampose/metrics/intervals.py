"""How sure a mean is: bootstrap intervals over recordings, not over frames, which are alike within a recording."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DRAWS = 1000


def group_interval(
    values: np.ndarray, groups: np.ndarray, *, share: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of a mean, groups drawn with replacement.

    Args:
        values: (N,) or (N, K); NaN is left out.
        groups: (N,) what the samples belong to: clips, subjects, photos.

    Returns:
        (low, high), or None where fewer than two groups have a value: one recording says nothing about others.

    Source: Efron & Tibshirani, An introduction to the bootstrap, 1993, Sec. 13.3; the cluster bootstrap.
    """
    values = np.asarray(values, float)
    values = values[:, None] if values.ndim == 1 else values
    known = np.isfinite(values)
    _, number = np.unique(groups, return_inverse=True)
    counts = np.bincount(number, known.sum(1))
    sums = np.bincount(number, np.where(known, values, 0.0).sum(1))
    counts, sums = counts[counts > 0], sums[counts > 0]
    G = len(counts)
    if G < 2:
        return None
    drawn = np.random.default_rng(seed).multinomial(G, np.full(G, 1 / G), size=draws)  # (draws, G)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def seed_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval over seeds (Student's t); infinite for a single seed."""
    from scipy.stats import t as student

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.inf
    return mean, float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
