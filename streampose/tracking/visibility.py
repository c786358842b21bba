"""Whether each joint is visible, occluded or absent, judged by where it lies and by the subject's own limbs before it.

A joint is absent where it lies outside of the picture, or the model has no idea of it. It is occluded where a limb lies
before it: bones are capsules as thick as the skeleton says, at the depth that the model gives. Objects before a subject
are known only by a mask, where there is one: a joint off it is hidden by something, or not where the model thinks.
"""

from __future__ import annotations

import numpy as np

from streampose.structures import Keypoints, Skeleton

ABSENT, OCCLUDED, VISIBLE = 0, 1, 2
LEAST_CONFIDENCE = 0.1  # below it the model has no idea where the joint is
COVER = 0.09  # how far a limb must lie before a joint to hide it, in units of the subject's size (SynthPose, train)


def judge_visibility(
    keypoints: Keypoints, skeleton: Skeleton, size: tuple[int, int], masks: np.ndarray | None = None
) -> np.ndarray:
    """Say of each joint whether it can be seen.

    Args:
        keypoints: N subjects.
        size: (width, height) of the picture.
        masks: (N, H, W) uint8 of the picture's size, 255 where each subject is; None where nothing is known.

    Returns:
        (N, K) uint8: 2 visible, 1 occluded, 0 absent.
    """
    xy, confidence = keypoints.xy, keypoints.confidence
    inside = ((xy >= -0.5) & (xy < np.array(size) - 0.5)).all(-1)
    there = inside & (confidence >= LEAST_CONFIDENCE) & np.isfinite(xy).all(-1)
    hidden = np.zeros(confidence.shape, bool)
    if keypoints.z is not None and len(xy):
        hidden = np.stack([cover(one, z, skeleton) > COVER for one, z in zip(xy, keypoints.z, strict=True)])
    if masks is not None and len(xy):
        x, y = (np.rint(np.nan_to_num(xy[..., i])).astype(int).clip(0, size[i] - 1) for i in (0, 1))
        hidden |= masks[np.arange(len(xy))[:, None], y, x] == 0
    return np.where(there, np.where(hidden, OCCLUDED, VISIBLE), ABSENT).astype(np.uint8)


def cover(xy: np.ndarray, z: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """How far the surface of the nearest other limb lies before each joint, in units of the subject's size.

    Args:
        xy, z: (K, 2), (K,) in pixels.

    Returns:
        (K,); minus infinity where no limb lies before it or behind it.
    """
    parents, children = np.array([[bone.parent, bone.child] for bone in skeleton.bones]).T
    radius = np.array([bone.radius for bone in skeleton.bones])
    start, way = xy[parents], xy[children] - xy[parents]  # (B, 2)
    lengths = np.linalg.norm(way, axis=-1)
    size = float(np.quantile(lengths / [bone.length for bone in skeleton.bones], 0.75))
    if not size > 0:
        return np.full(len(xy), -np.inf)
    along = ((xy[:, None] - start) * way).sum(-1) / np.maximum(lengths**2, 1e-6)
    along = along.clip(0, 1)  # (K, B)
    away = np.linalg.norm(start + along[..., None] * way - xy[:, None], axis=-1) / size
    depth = z[parents] + along * (z[children] - z[parents])
    before = (z[:, None] - depth) / size + np.sqrt(np.maximum(radius**2 - away**2, 0))
    own = np.arange(len(xy))[:, None]
    other = (away < radius) & (parents != own) & (children != own)
    return np.where(other, before, -np.inf).max(-1)
