"""Differentiable drawings of a skeleton: bone maps, their union, and points (Mask as Supervision, Sec. 3.2, App. A.2).

Coordinates are in [-1, 1] from edge to edge, so pixel n of N lies at (n + 0.5) * 2 / N - 1: the cell centres that the
detector's soft-argmax uses.

Where we differ: the printed Eq. 16, 17 have the wrong sign and the wrong end. The point of a bone that is closest to p
is `x_i + r (x_j - x_i)` with `r = clamp((p - x_i) . (x_j - x_i) / |x_j - x_i|^2, 0, 1)`. Summing the bone maps (Eq. 5)
exceeds one wherever bones meet, which punishes every joint for being one; `union` keeps 1 - prod(1 - B) instead, which
is the sum to first order, never exceeds one, and does not change where a bone of length zero is covered by another.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_centres(size: int, like: Tensor) -> Tensor:
    """(size, size, 2) x, y of the pixel centres in [-1, 1]."""
    line = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) * (2.0 / size) - 1.0
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)


def squared_distances(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Squared distance of every pixel centre to line segments (Eq. 16, 17 corrected).

    Args:
        start, end: (..., 2) ends in [-1, 1]; a segment of length zero is a point.
        size: side of the map in pixels.

    Returns:
        (..., size, size).
    """
    p = pixel_centres(size, start)
    along = (end - start)[..., None, None, :]  # (..., 1, 1, 2)
    relative = p - start[..., None, None, :]  # (..., size, size, 2)
    length = (along**2).sum(-1).clamp_min(1e-8)
    r = ((relative * along).sum(-1) / length).clamp(0, 1)
    x = relative[..., 0] - r * along[..., 0]
    y = relative[..., 1] - r * along[..., 1]
    return x * x + y * y


def bone_maps(xy: Tensor, bones: Tensor, sigma: Tensor | float, size: int) -> Tensor:
    """Each bone as a line with Gaussian flanks (Eq. 4, 15).

    Args:
        xy: (B, K, 2) joints in [-1, 1].
        bones: (N, 2) joint indices.
        sigma: divisor of the *squared* distance: a number, or (N,) or (B, N) one a bone; the paper's 3e-3 is one such.
        size: side of the maps in pixels.

    Returns:
        (B, N, size, size) in [0, 1].
    """
    distances = squared_distances(xy[:, bones[:, 0]], xy[:, bones[:, 1]], size)
    if isinstance(sigma, Tensor):
        sigma = sigma.reshape(*((1,) if sigma.ndim == 1 else ()), *sigma.shape, 1, 1)
    return torch.exp(-distances / sigma)


def solid_bone_maps(xy: Tensor, bones: Tensor, radius: Tensor, size: int, softness: float = 0.35) -> Tensor:
    """Each bone as a capsule of its own half thickness, with an edge that is soft enough to give gradients.

    Args:
        xy: (B, K, 2) joints in [-1, 1].
        bones: (N, 2) joint indices.
        radius: (B, N) half thickness in the unit of xy.
        size: side of the maps in pixels.
        softness: width of the edge as a share of the radius.

    Returns:
        (B, N, size, size) in (0, 1); 0.5 on the capsule's rim.
    """
    distances = squared_distances(xy[:, bones[:, 0]], xy[:, bones[:, 1]], size)
    radius = radius[..., None, None].clamp_min(1e-4)
    return torch.sigmoid((radius - (distances + 1e-8).sqrt()) / (softness * radius))


def union(maps: Tensor) -> Tensor:
    """Merge bone maps into one mask by 1 - prod(1 - B): (B, N, H, W) in [0, 1] -> (B, H, W) in [0, 1]."""
    return 1 - torch.exp(torch.log1p(-maps.clamp(max=1 - 1e-6)).sum(1))


def point_maps(xy: Tensor, sigma: float, size: int) -> Tensor:
    """Each joint as a Gaussian dot, the structure-free baseline (Eq. 3): (B, K, 2) -> (B, K, size, size)."""
    return torch.exp(-squared_distances(xy, xy, size) / sigma)
