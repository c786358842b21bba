"""Losses on heatmaps and on the keypoints read from them; unreduced."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_targets(xy: Tensor, size: int, sigma_cells: float = 0.8) -> Tensor:
    """Distributions over the cells around target points.

    Args:
        xy: (B, K, 2) in [-1, 1]; a point outside gets its mass at the nearest edge.
        size: cells a side.
        sigma_cells: spread.

    Returns:
        (B, K, size, size), each summing to one.
    """
    centres = torch.arange(size, device=xy.device, dtype=xy.dtype)
    cells = ((xy + 1) * (size / 2) - 0.5).clamp(-0.5, size - 0.5)  # (B, K, 2)
    lines = torch.softmax(-((cells[..., None] - centres) ** 2) / (2 * sigma_cells**2), -1)  # (B, K, 2, size)
    return lines[..., 1, :, None] * lines[..., 0, None, :]


def heatmap_cross_entropy(log_probability: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the target to the heatmap: (B, K, h, w) twice -> (B, K), zero where equal."""
    entropy = torch.special.entr(target).flatten(2).sum(-1)
    return -(target * log_probability).flatten(2).sum(-1) - entropy


def flip_choice(error: Tensor, error_flipped: Tensor) -> Tensor:
    """Which samples are closer to the left-right swapped target: (B, ...) twice -> (B,) bool, judged by the sum."""
    return error_flipped.flatten(1).sum(1) < error.flatten(1).sum(1)


def robust_distance(a: Tensor, b: Tensor, delta: float = 0.05) -> Tensor:
    """Euclidean distance, quadratic below delta: (B, K, D) twice -> (B, K)."""
    square = ((a - b) ** 2).sum(-1)
    return (square + delta**2).sqrt() - delta


def spread(log_probability: Tensor) -> Tensor:
    """Entropy of heatmaps as a share of the largest possible: (B, K, h, w) -> (B, K) in [0, 1]."""
    entropy = -(log_probability.exp() * log_probability).flatten(2).sum(-1)
    return entropy / float(torch.tensor(float(log_probability[0, 0].numel())).log())
