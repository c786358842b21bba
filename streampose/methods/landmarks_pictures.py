"""What `methods/landmarks.py` shows of its training: what it makes of crops, and swaps of pose and appearance."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from streampose.methods.mask_bones import draw_pose
from streampose.structures import Skeleton

TILE = 96


def draw_columns(rows: list[Tensor], images: Tensor, keypoints: Tensor, skeleton: Skeleton | None) -> np.ndarray:
    """A column for each sample: the given rows, then the crop with its joints: RGB.

    Args:
        rows: crops (B, S, S, 3) uint8, images (B, 3, s, s) in [0, 1] or skeleton images (B, 1, s, s).
        keypoints: (B, K, 2 or 3) in [-1, 1]; without a skeleton they are drawn as points.
    """
    columns = []
    for b, image in enumerate(images):
        tiles = [_tile(row[b]) for row in rows]
        drawn = _tile(image)
        points = keypoints[b].float().cpu().numpy()
        if skeleton is None:
            for n, (x, y) in enumerate((points[:, :2] + 1) * (TILE / 2) - 0.5):
                hue = np.array([[[int(180 * n / len(points)), 220, 255]]], np.uint8)
                colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
                cv2.circle(drawn, (round(float(x)), round(float(y))), 2, colour, -1, cv2.LINE_AA)
        else:
            draw_pose(drawn, points, skeleton)
        columns.append(np.concatenate([*tiles, drawn], 0))
    return np.concatenate(columns, 1)


def draw_skeletons(skeletons: Tensor, keypoints: Tensor, skeleton: Skeleton) -> np.ndarray:
    """Skeleton images (B, C, s, s) with joints: RGB."""
    tiles = [_tile(image) // 2 for image in skeletons]
    for tile, points in zip(tiles, keypoints.float().cpu().numpy(), strict=True):
        draw_pose(tile, points, skeleton)
    return np.concatenate(tiles, 1)


def draw_swaps(poses: Tensor, appearances: Tensor, made: list[Tensor]) -> np.ndarray:
    """The first column lends the pose, the first row the appearance: RGB.

    Args:
        poses: (P, 3, S, S) in [0, 1].
        appearances: (A, 3, S, S) in [0, 1].
        made: P x (A, 3, s, s).
    """
    A = len(appearances)
    blank = np.full((TILE, TILE, 3), 255, np.uint8)
    rows = [np.concatenate([blank, *(_tile(image) for image in appearances[: A - 1])], 1)]
    for pose, images in zip(poses[:3], made[:3], strict=True):
        rows.append(np.concatenate([_tile(pose), *(_tile(image) for image in images[: A - 1])], 1))
    return np.concatenate(rows, 0)


def _tile(image: Tensor) -> np.ndarray:
    values = image.detach().float().cpu().numpy()
    if values.shape[0] in (1, 3) and values.ndim == 3 and values.shape[-1] != 3:
        values = np.moveaxis(values, 0, -1) * 255
    if values.shape[-1] == 1:
        values = np.repeat(values, 3, -1)
    return cv2.resize(values.clip(0, 255).astype(np.uint8), (TILE, TILE), interpolation=cv2.INTER_NEAREST)
