"""The two halves of an evidence lower bound: reconstruction as a squared error, and the divergence from the prior.

Results are one value a sample (and element), unreduced, so that samples can be left out by weights.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of N(mean, exp(log_variance)) from N(0, 1) in each dimension: (..., D) twice -> (..., D) nats.

    Source: Kingma & Welling, Auto-Encoding Variational Bayes, App. B.
    """
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)


def image_error(predicted: Tensor, image: Tensor) -> Tensor:
    """Mean squared error over channels and pixels: (B, C, H, W) twice -> (B,)."""
    return ((predicted - image) ** 2).flatten(1).mean(1)


def pose_error(predicted: Tensor, pose: Tensor) -> Tensor:
    """Mean squared distance over the known joints: (B, K, D) twice, NaN where unknown in `pose` -> (B,); 0 for none."""
    known = torch.isfinite(pose).all(-1)
    target = torch.where(known[..., None], pose, torch.zeros_like(pose))
    squared = ((predicted - target) ** 2).sum(-1) * known
    return squared.sum(1) / known.sum(1).clamp_min(1)


def mean_over(values: Tensor, rows: Tensor) -> Tensor:
    """Mean of the values of some rows: (B,), (B,) bool -> scalar; 0 where there are none."""
    return (values * rows).sum() / rows.sum().clamp_min(1)
