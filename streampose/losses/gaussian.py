"""Terms of variational lower bounds with Gaussians, in nats without their constants; summed over all but the batch."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_distance(x: Tensor, mean: Tensor, variance: float, weight: Tensor | None = None) -> Tensor:
    """-log N(x; mean, variance I) without its constant: half the squared distance over the variance.

    Args:
        x, mean: (B, ...).
        weight: broadcasts to x; 0 leaves an element out.

    Returns:
        (B,).
    """
    square = (x - mean) ** 2
    if weight is not None:
        square = square * weight
    return square.flatten(1).sum(1) / (2 * variance)


def kl_to_standard(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)): (B, ...) twice -> (B,)."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


def sample(mean: Tensor, log_variance: Tensor) -> Tensor:
    """One sample of N(mean, exp(log_variance)) through which gradients flow (the reparametrisation trick)."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()


def gaussian_peaks(xy: Tensor, size: int, sigma_cells: float) -> Tensor:
    """Heatmaps with a Gaussian of height one at each point.

    Args:
        xy: (B, K, 2) in [-1, 1].
        size: cells a side.
        sigma_cells: its standard deviation.

    Returns:
        (B, K, size, size).
    """
    centres = torch.arange(size, device=xy.device, dtype=xy.dtype)
    cells = (xy + 1) * (size / 2) - 0.5
    lines = torch.exp(-((cells[..., None] - centres) ** 2) / (2 * sigma_cells**2))  # (B, K, 2, size)
    return lines[..., 1, :, None] * lines[..., 0, None, :]
