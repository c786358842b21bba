"""Bones of 3D poses: how long they are, and poses whose bones have one length each."""

from __future__ import annotations

import numpy as np

from streampose.structures import Skeleton


def bone_lengths(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Length of each bone: (..., K, D) -> (..., B), NaN where an end is missing."""
    parents, children = ([getattr(bone, end) for bone in skeleton.bones] for end in ("parent", "child"))
    return np.linalg.norm(poses[..., children, :] - poses[..., parents, :], axis=-1)


def with_bones(poses: np.ndarray, skeleton: Skeleton, lengths: np.ndarray, *, scale_root: bool = True) -> np.ndarray:
    """Poses with bones of given lengths in their own directions.

    Args:
        poses: (N, K, 3), NaN where missing. A joint whose parent is missing keeps its way from the nearest ancestor
            that is known, scaled as the whole pose is.
        lengths: (B,).
        scale_root: scale the root's place along, as where the unit of length is another; else it stays.

    Returns:
        (N, K, 3); a joint at its parent's place is missing, since nobody knows which way the bone points.
    """
    known = np.isfinite(poses).all(-1)
    actual = bone_lengths(poses, skeleton)
    counted = np.isfinite(actual)
    scale = np.where(counted, lengths, 0).sum(1) / np.maximum(np.where(counted, actual, 0).sum(1), 1e-9)
    scale = np.where(counted.any(1), scale, 1.0)[:, None]
    result = np.full(poses.shape, np.nan)
    result[:, skeleton.root] = poses[:, skeleton.root] * (scale if scale_root else 1.0)
    old, new = np.array(poses, float), result.copy()  # where a joint is missing: of its nearest known ancestor
    for b, bone in enumerate(skeleton.bones):
        way = poses[:, bone.child] - old[:, bone.parent]
        length = np.linalg.norm(way, axis=-1, keepdims=True)
        factor = np.where(known[:, [bone.parent]], lengths[b] / np.where(length > 0, length, np.nan), scale)
        placed = new[:, bone.parent] + way * factor
        first = ~np.isfinite(new[:, [bone.parent]]).all(-1)  # nothing above it is known
        result[:, bone.child] = np.where(first, poses[:, bone.child] * scale, placed)
        here = known[:, [bone.child]] & np.isfinite(result[:, bone.child]).all(-1, keepdims=True)
        old[:, bone.child] = np.where(here, poses[:, bone.child], old[:, bone.parent])
        new[:, bone.child] = np.where(here, result[:, bone.child], new[:, bone.parent])
    return result
