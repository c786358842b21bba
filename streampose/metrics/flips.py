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
    take = sign * row_means(swapped) > sign * row_means(values)
    return np.where(take[:, None], swapped, values)


def ambiguity_ratio(errors: np.ndarray, swapped: np.ndarray) -> float:
    """How often the views of one moment disagree on which side is left: `ambiguity_ratio`, 0 to 0.5.

    A model that names all sides right, or all wrong, in all views of a moment has 0; one that calls the left of every
    picture left has 0.5 where half of the cameras look at the back. "All evaluation samples" (D of Eq. 11) are read as
    all pictures, which makes 48.7 % of the paper's Table 4 what such a model must have on four cameras.

    Args:
        errors, swapped: (S, V) mean error of the prediction and of its left-right swap, of V views of S moments; NaN
            where a view is missing.

    Returns:
        sum over moments of min(f, n - f), over the sum of n, where f of the n views of a moment are better swapped;
        NaN where there is no view.

    Source: Yang et al., Mask as Supervision (`mask`), Eq. 11.
    """
    known = np.isfinite(errors) & np.isfinite(swapped)
    views = known.sum(1)
    better_swapped = (known & (swapped < errors)).sum(1)
    total = views.sum()
    return float(np.minimum(better_swapped, views - better_swapped).sum() / total) if total else float("nan")


def row_means(values: np.ndarray) -> np.ndarray:
    """The mean of each image's joints, (N, K) -> (N,); NaN where none is known."""
    known = np.isfinite(values)
    counts = known.sum(1)
    return np.where(counts > 0, np.where(known, values, 0.0).sum(1) / np.maximum(counts, 1), np.nan)
