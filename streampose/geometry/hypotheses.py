"""What many poses of one subject say together: their mode, the most different ones, and how sure each joint is.

All functions take (B, H, K, D) hypotheses of B subjects; numpy only.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammainc

STEPS = 10  # of the mean shift, at most
COVERED = 0.9
REGION = 6.251  # squared radius, in standard deviations, of the 90 % region of a normal distribution in space
WITHIN_METRES = 0.15  # confidence is the probability that a joint lies within 3DPCK's distance


def mean_shift(hypotheses: np.ndarray, bandwidth: float, start: np.ndarray | None = None) -> np.ndarray:
    """The mode of each subject's hypotheses, by mean shift with a Gaussian kernel (Eq. 11).

    Args:
        bandwidth: of the kernel, as the distance of a joint in the unit of the poses.
        start: (B, K, D) where to begin; None for the hypothesis in the densest place.

    Returns:
        (B, K, D).

    Source: Comaniciu & Meer, Mean shift, PAMI 2002.
    """
    B, H, K, D = hypotheses.shape
    points = hypotheses.reshape(B, H, K * D)
    norms = (points**2).sum(-1)  # (B, H)
    scale = -0.5 / (K * bandwidth**2)
    if start is None:
        squared = norms[:, :, None] + norms[:, None] - 2 * points @ points.swapaxes(1, 2)
        at = np.take_along_axis(points, np.exp(scale * squared).sum(-1).argmax(1)[:, None, None], 1)[:, 0]
    else:
        at = start.reshape(B, K * D)
    for _ in range(STEPS):
        squared = norms - 2 * (points @ at[..., None])[..., 0]  # less what is the same for all
        weights = np.exp(scale * (squared - squared.min(1, keepdims=True)))
        weights /= weights.sum(1, keepdims=True)
        moved = (weights[:, None] @ points)[:, 0]
        near = np.abs(moved - at).max() < 1e-3 * bandwidth
        at = moved
        if near:
            break
    return at.reshape(B, K, D)


def farthest_points(hypotheses: np.ndarray, count: int) -> np.ndarray:
    """The most different hypotheses: from the first one on, always the one that is farthest from all chosen.

    Args:
        count: how many; all of them where there are fewer.

    Returns:
        (B, count) their places among H.

    Source: Eldar et al., The farthest point strategy for progressive image sampling, 1997.
    """
    B, H, K, D = hypotheses.shape
    points = hypotheses.reshape(B, H, K * D)
    chosen = np.zeros((B, min(count, H)), int)
    nearest = np.full((B, H), np.inf)
    for n in range(1, chosen.shape[1]):
        last = np.take_along_axis(points, chosen[:, n - 1, None, None], 1)
        nearest = np.minimum(nearest, ((points - last) ** 2).sum(-1))
        nearest[np.arange(B), chosen[:, n - 1]] = -1.0
        chosen[:, n] = nearest.argmax(1)
    return chosen


def covariance(hypotheses: np.ndarray, centre: np.ndarray, least: float) -> np.ndarray:
    """How each joint spreads about a pose: (B, H, K, 3), (B, K, 3) -> (B, K, 3, 3).

    Args:
        least: standard deviation, in the unit of the poses, that is added along every axis: nothing is known exactly.
    """
    apart = hypotheses - centre[:, None]
    found = np.einsum("bhki,bhkj->bkij", apart, apart, optimize=True) / hypotheses.shape[1]
    return found + least**2 * np.eye(hypotheses.shape[-1], dtype=hypotheses.dtype)


def squared_radius(points: np.ndarray, centre: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance: (B, K, 3), (B, K, 3), (B, K, 3, 3) -> (B, K); inside the region up to `REGION`."""
    apart = (points - centre)[..., None]
    return (apart * np.linalg.solve(covariances, apart)).sum((-2, -1))


def probability_within(covariances: np.ndarray, distance: float = WITHIN_METRES) -> np.ndarray:
    """About how likely each joint is within a distance of its stated place: (..., 3, 3) -> (...) in [0, 1].

    As if it spread alike in every direction, by the mean of its variances.
    """
    variance = np.maximum(np.trace(covariances, axis1=-2, axis2=-1) / 3, 1e-12)
    return gammainc(1.5, distance**2 / (2 * variance))
