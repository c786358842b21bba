"""The distance of a detector's joints to labelled ones: the supervised term that every method may add; unreduced."""

from __future__ import annotations

import torch
from torch import Tensor

from streampose.losses.heatmaps import gaussian_targets, heatmap_cross_entropy, robust_distance

XY_WEIGHT = 2.0  # of the distance in x and y beside that of the heatmaps


def supervised(xy: Tensor, target: Tensor, weight: Tensor, log_probability: Tensor | None = None) -> Tensor:
    """Distance of keypoints, and of the heatmaps that they are read from, to labels.

    Args:
        xy: (B, K, 2) predicted, in [-1, 1].
        target: (B, K, 2) labelled; NaN where a joint was not placed. Joints outside of [-1, 1] do not count.
        weight: (B, K), 0 for joints that do not count.
        log_probability: (B, K, h, w) heatmaps; None for a detector that has none.

    Returns:
        (B, K), zero where a joint does not count; reduce it with `mean_of_placed`.
    """
    counts = counting(target, weight)
    target = torch.nan_to_num(target).clamp(-1, 1)
    distance = XY_WEIGHT * robust_distance(xy, target)
    if log_probability is not None:
        maps = gaussian_targets(target, log_probability.shape[-1])
        distance = distance + heatmap_cross_entropy(log_probability, maps)
    return torch.where(counts > 0, distance, 0.0) * counts


def counting(target: Tensor, weight: Tensor) -> Tensor:
    """The weights of joints that were placed and lie in the picture, 0 for the others: (B, K, 2), (B, K) -> (B, K)."""
    inside = torch.isfinite(target).all(-1) & (torch.nan_to_num(target).abs() < 1).all(-1)
    return torch.where(inside, weight, 0.0)


def mean_of_placed(distance: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The mean of `supervised` over the joints that count, by weight; zero where none does."""
    return distance.sum() / counting(target, weight).sum().clamp_min(1e-6)
