"""Several hypotheses of one pose: how good the best of them is, and how much they differ."""

from __future__ import annotations

import numpy as np


def best_of(values: np.ndarray, *, higher_is_better: bool = False) -> np.ndarray:
    """For each sample the values of its best hypothesis as a whole ("best of N", "BH").

    Args:
        values: (H, N, K) a metric's values of H hypotheses, of `keypoints_3d.mpjpe` for instance; NaN is left out. A
            hypothesis without any value is never the best.

    Returns:
        (N, K); NaN where no hypothesis has a value.

    Source: Li & Lee, Weakly supervised generative network for multiple 3D human pose hypotheses (`hypotheses`), Sec. 4.
    """
    H, N, _ = values.shape
    if not H:
        raise ValueError("best_of: no hypotheses")
    known = np.isfinite(values)
    means = np.where(known, values, 0.0).sum(2) / np.maximum(known.sum(2), 1)
    worst = -np.inf if higher_is_better else np.inf
    means = np.where(known.any(2), means, worst)
    best = means.argmax(0) if higher_is_better else means.argmin(0)
    return values[best, np.arange(N)]


def spread(hypotheses: np.ndarray) -> np.ndarray:
    """Standard deviation of each joint over hypotheses, in the unit of the poses: (H, N, K, D) -> (N, K).

    The mean over the D coordinates, as in Table 4 of `hypotheses`; zero says that the model has collapsed.
    """
    return np.nanstd(hypotheses, axis=0).mean(-1)
