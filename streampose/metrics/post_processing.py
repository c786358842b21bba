"""Supervised post-processing (SPP): a linear map from what a model predicts to the joints of a dataset.

Methods that find landmarks without names cannot be measured without it; those whose joints have names can, and with it
they are comparable with the former. It uses labels, so its numbers are never those of a label-free model.

Source: Yang et al., Mask as Supervision (`mask`), Sec. 3.3 and Table 1; Thewlis et al., ICCV 2017 (the linear map).
"""

from __future__ import annotations

import numpy as np

RIDGE = 1e-6  # of the mean variance of the features: keeps the map defined where features depend on each other


def fit_linear(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The affine map from features to targets, by least squares with a small ridge.

    Args:
        features: (N, F).
        targets: (N, M); an entry that is NaN counts for nothing.

    Returns:
        (F + 1, M), the last row is the constant; a target that is never known is mapped to NaN.
    """
    F = features.shape[1]
    known = np.isfinite(targets)
    weights = np.full((F + 1, targets.shape[1]), np.nan)
    for columns in _alike(known):
        rows = known[:, columns[0]]
        if not rows.any():
            continue
        x, y = features[rows], targets[np.ix_(rows, columns)]
        mean_x, mean_y = x.mean(0), y.mean(0)
        x = x - mean_x
        gram = x.T @ x
        ridge = RIDGE * max(np.trace(gram) / max(F, 1), 1e-12)
        weights[:-1, columns] = np.linalg.solve(gram + ridge * np.eye(F), x.T @ (y - mean_y))
        weights[-1, columns] = mean_y - mean_x @ weights[:-1, columns]
    return weights


def apply_linear(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    """What `fit_linear` found, applied: (F + 1, M), (N, F) -> (N, M)."""
    return features @ weights[:-1] + weights[-1]


def _alike(known: np.ndarray) -> list[np.ndarray]:
    """Columns in sets that are known in the same rows, which share one factorisation."""
    _, kind = np.unique(known, axis=1, return_inverse=True)
    return [np.flatnonzero(kind.ravel() == number) for number in range(int(kind.max(initial=-1)) + 1)]
