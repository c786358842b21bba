"""Skeleton images drawn from joints, differentiably and in little memory (Jakab et al., `landmarks`, Eq. 1, 2).

Coordinates are in [-1, 1] from edge to edge, pixel n of N at (n + 0.5) * 2 / N - 1, as everywhere in the package.

Memory. The nearest bone of each pixel is kept instead of the distance to every bone, so Eq. 1 needs a handful of
(B, H, W) maps, forwards and backwards, however many bones there are. Eq. 2 is a product of two thin matrices, because a
Gaussian is one of x times one of y: no map of a single joint is ever made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

GAMMA = 1 / 0.04  # Sec. 4, of the *squared* distance in [-1, 1] coordinates
SIGMA = 0.02  # Sec. 4


def limb_image(xy: Tensor, bones: Tensor, size: int, gamma: float = GAMMA) -> Tensor:
    """The exponential of the squared distance to the nearest bone (Eq. 1).

    Args:
        xy: (B, K, 2) joints in [-1, 1]; where either end of a bone is NaN, that bone is not drawn.
        bones: (N, 2) joint indices.
        size: side of the image in pixels.
        gamma: sharpness.

    Returns:
        (B, size, size) in [0, 1].
    """
    with torch.autocast(xy.device.type, enabled=False):
        return _LimbImage.apply(xy.float(), bones, size, gamma)  # type: ignore[no-untyped-call]


def sided_image(xy: Tensor, groups: list[Tensor], size: int, gamma: float = GAMMA) -> Tensor:
    """One limb image for each group of bones: (B, K, 2), G x (N, 2) -> (B, G, size, size)."""
    return torch.stack([limb_image(xy, bones, size, gamma) for bones in groups], 1)


def point_image(xy: Tensor, size: int, sigma: float = SIGMA) -> Tensor:
    """The sum of a Gaussian at every joint (Eq. 2): (B, K, 2) -> (B, size, size); joints that are NaN are not drawn."""
    across, down = _lines(xy, size, sigma)
    return torch.matmul(down.transpose(1, 2), across)


def point_images(xy: Tensor, size: int, sigma: float) -> Tensor:
    """An image for each joint, as the decoder without a prior reads them: (B, K, 2) -> (B, K, size, size)."""
    across, down = _lines(xy, size, sigma)
    return down[..., :, None] * across[..., None, :]


def _lines(xy: Tensor, size: int, sigma: float) -> tuple[Tensor, Tensor]:
    """The x and the y factor of each joint's Gaussian: 2 x (B, K, size)."""
    xy = xy.float()
    known = torch.isfinite(xy).all(-1, keepdim=True)
    factors = torch.exp(-((_centres(size, xy) - xy.nan_to_num()[..., None]) ** 2) / (2 * sigma**2))  # (B, K, 2, size)
    factors = factors * known[..., None]
    return factors[..., 0, :], factors[..., 1, :]


def _centres(size: int, like: Tensor) -> Tensor:
    return (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) * (2.0 / size) - 1.0


class _LimbImage(torch.autograd.Function):
    """The nearest bone's distance, bone by bone; the gradient goes to the two ends of the nearest bone only."""

    @staticmethod
    def forward(context: Any, xy: Tensor, bones: Tensor, size: int, gamma: float) -> Tensor:
        B = len(xy)
        u = _centres(size, xy)
        nearest = xy.new_full((B, size, size), float("inf"))
        which = torch.zeros((B, size, size), dtype=torch.uint8 if len(bones) < 256 else torch.int16, device=xy.device)
        for number, (i, j) in enumerate(bones.tolist()):
            start = xy[:, i]
            ax, ay = (xy[:, j] - start).unbind(-1)
            dx, dy = u - start[:, :1], u - start[:, 1:]  # (B, size)
            length = (ax * ax + ay * ay).clamp_min(1e-8)[:, None, None]
            along = (dx * ax[:, None])[:, None, :] + (dy * ay[:, None])[:, :, None]  # (B, size, size)
            r = (along / length).clamp_(0, 1)
            # |d - r a|^2 = |d|^2 - r (2 d.a - r |a|^2)
            distance = (
                r.mul(length).sub_(along, alpha=2).mul_(r).add_((dx * dx)[:, None, :]).add_((dy * dy)[:, :, None])
            )
            closer = distance < nearest
            which.masked_fill_(closer, number)
            torch.where(closer, distance, nearest, out=nearest)
        image = torch.exp(nearest.clamp_min_(0).mul_(-gamma))
        context.save_for_backward(xy, bones, which, image)
        context.gamma = gamma
        return image

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        xy, bones, which, image = context.saved_tensors
        B, K, _ = xy.shape
        size = image.shape[-1]
        u = _centres(size, xy)
        ends = bones[which.flatten(1).long()]  # (B, P, 2) joints at the ends of each pixel's bone
        xy = xy.nan_to_num()
        flat = (gradient * image).flatten(1) * (2 * context.gamma)  # -d/d(distance) times two
        parts = torch.zeros(B, K, 2, device=xy.device)
        sx, sy = (xy[..., axis].gather(1, ends[..., 0]) for axis in (0, 1))
        ax, ay = (xy[..., axis].gather(1, ends[..., 1]) - s for axis, s in ((0, sx), (1, sy)))
        dx, dy = u.repeat(size) - sx, u.repeat_interleave(size) - sy
        r = ((dx * ax + dy * ay) / (ax * ax + ay * ay).clamp_min(1e-8)).clamp_(0, 1)
        for axis, offset in ((0, dx - r * ax), (1, dy - r * ay)):
            pull = flat * offset
            parts[..., axis].scatter_add_(1, ends[..., 1], r * pull)
            parts[..., axis].scatter_add_(1, ends[..., 0], pull - r * pull)
        return parts, None, None, None
