"""Distances between images in the features of a network (Jakab et al., `landmarks`, Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def feature_distance(found: Sequence[Tensor], wanted: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Squared distance of features, each layer relative to the variance of the wanted ones, the mean over the layers.

    A layer counts as much as any other, whatever its scale: 1 is the distance of a constant image.

    Args:
        found, wanted: L tensors (B, C, h, w).
        mask: (B,) samples that count; None for all.

    Returns:
        Scalar.
    """
    terms = []
    for f, w in zip(found, wanted, strict=True):
        f, w = f.float(), w.float().detach()
        spread = (w - w.mean((0, 2, 3), keepdim=True)).square().mean().clamp_min(1e-6)
        each = (f - w).square().mean((1, 2, 3)) / spread  # (B,)
        terms.append(each.mean() if mask is None else (each * mask).sum() / mask.sum().clamp_min(1))
    return torch.stack(terms).mean()
