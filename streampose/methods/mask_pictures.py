"""What `methods/mask.py` shows of its training."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from streampose.methods.mask_bones import draw_pose
from streampose.structures import Skeleton

TILE = 128


def draw_silhouettes(masks: Tensor, keypoints: Tensor, skeleton: Skeleton) -> np.ndarray:
    """Masks (B, S, S) uint8 with joints (B, K, 3), six a row: RGB."""
    tiles = [_tile(mask.cpu().numpy()) for mask in masks]
    for tile, points in zip(tiles, keypoints.float().cpu().numpy(), strict=True):
        draw_pose(tile, points, skeleton)
    return np.concatenate([np.concatenate(tiles[i : i + 6], 1) for i in range(0, len(tiles), 6)], 0)


def draw_columns(images: Tensor, maps: list[Tensor], keypoints: Tensor, skeleton: Skeleton) -> np.ndarray:
    """A column for each crop (B, S, S, 3) uint8: the crop, maps (B, m, m) in [0, 1], the crop with its joints: RGB."""
    columns = []
    for b, image in enumerate(images):
        crop = _tile(image.cpu().numpy())
        drawn = crop.copy()
        draw_pose(drawn, keypoints[b].float().cpu().numpy(), skeleton)
        tiles = [_tile((m[b].float().cpu().numpy() * 255).astype(np.uint8)) for m in maps]
        columns.append(np.concatenate([crop, *tiles, drawn], 0))
    return np.concatenate(columns, 1)


def _tile(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, 2)
    return cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
