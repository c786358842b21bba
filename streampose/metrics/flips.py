"""Left and right: what a method without labels cannot tell apart, measured apart (`<metric>/flips`).

Only the names are exchanged; depth stays as predicted, as in the literature. A model that takes a back for a front but
is consistent in itself (its depth is that of a person seen from the other side) therefore gains from it in 2D, and
little in PA-MPJPE, where a pose and its renamed self are mirror images.
"""

from __future__ import annotations

import numpy as np


def swap_left_right(keypoints: np.ndarray, flip_index: list[int]) -> np.ndarray:
    """Keypoints with left and right exchanging their names: (N, K, ...) -> (N, K, ...)."""
    return keypoints[:, flip_index]


def better_of(values: np.ndarray, swapped: np.ndarray, *, higher_is_better: bool) -> np.ndarray:
    """For each image as a whole, the values of the prediction or of its left-right swap, whichever are better.

    Args:
        values, swapped: (N, K) a metric's values of the prediction and of the swapped prediction; NaN is left out.

    Returns:
        (N, K).

    Source: "with flips" of Zhang et al. 2018 and Jakab et al. (`landmarks`), Sec. 5.1.
    """
    sign = 1.0 if higher_is_better else -1.0
    take = sign * _row_means(swapped) > sign * _row_means(values)
    return np.where(take[:, None], swapped, values)


def ambiguity_ratio(errors: np.ndarray, swapped: np.ndarray) -> float:
    """How often the views of one scene disagree on which side is left: `ambiguity_ratio`.

    Args:
        errors, swapped: (S, V) mean error of the prediction and of its left-right swap, of V views of S scenes.

    Returns:
        The mean over scenes of min(f, V - f), where f views are better swapped; 0 for a single view.

    Source: Yang et al., Mask as Supervision (`mask`), Eq. 11.
    """
    _, V = errors.shape
    better_swapped = (swapped < errors).sum(1)
    return float(np.minimum(better_swapped, V - better_swapped).mean())


def _row_means(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(1) / np.maximum(known.sum(1), 1)
