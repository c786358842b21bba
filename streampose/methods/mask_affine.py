"""Joints of a crop in its augmented views and back, for `methods/mask.py`."""

from __future__ import annotations

import torch
from torch import Tensor


def to_view(keypoints: Tensor, matrix: Tensor, flipped: Tensor, flip_index: list[int]) -> Tensor:
    """Joints of a crop as its augmented view shows them: (B, K, 3), (B, 2, 3), (B,) -> (B, K, 3)."""
    linear = matrix[:, :, :2]
    xy = _apply(linear, keypoints[..., :2]) + matrix[:, None, :, 2]
    scale = torch.linalg.det(linear).abs().sqrt()
    moved = torch.cat([xy, keypoints[..., 2:] * scale[:, None, None]], -1)
    return torch.where(flipped[:, None, None], moved[:, flip_index], moved)


def from_view(keypoints: Tensor, matrix: Tensor, flipped: Tensor, flip_index: list[int]) -> Tensor:
    """The inverse of `to_view`."""
    keypoints = torch.where(flipped[:, None, None], keypoints[:, flip_index], keypoints)
    linear = matrix[:, :, :2].float()
    xy = _apply(torch.linalg.inv(linear), keypoints[..., :2].float() - matrix[:, None, :, 2])
    scale = torch.linalg.det(linear).abs().sqrt()
    return torch.cat([xy, keypoints[..., 2:] / scale[:, None, None]], -1)


def _apply(linear: Tensor, xy: Tensor) -> Tensor:
    """(B, 2, 2) times (B, K, 2) without a matrix product, which autocast would round to a third of a pixel."""
    return (linear[:, None] * xy[..., None, :]).sum(-1)
