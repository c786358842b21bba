"""Bones of 3D poses: how long they are, and poses whose bones have one length each."""

from __future__ import annotations

import numpy as np

from streampose.structures import Skeleton


def bone_lengths(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Length of each bone: (..., K, D) -> (..., B), NaN where an end is missing."""
    return np.linalg.norm(_ways(poses, skeleton), axis=-1)


def with_bones(
    poses: np.ndarray, skeleton: Skeleton, lengths: np.ndarray, *, scale_root: bool = True, depth: float = 1.0
) -> np.ndarray:
    """Poses with bones of given lengths, in their own directions or with a changed depth.

    Args:
        poses: (N, K, 3), NaN where missing. A joint whose parent is missing keeps its way from the nearest ancestor
            that is known, scaled as the whole pose is.
        lengths: (B,).
        scale_root: scale the root's place along, as where the unit of length is another; else it stays.
        depth: how many times less sure than x and y the z of a bone is. 1 keeps each bone's direction; more lets it
            give way in depth first, as is right for what one camera has seen.

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
    fitted = _fit(_ways(poses, skeleton), np.asarray(lengths, float), depth)
    for b, bone in enumerate(skeleton.bones):
        way = poses[:, bone.child] - old[:, bone.parent]
        placed = new[:, bone.parent] + np.where(known[:, [bone.parent]], fitted[:, b], way * scale)
        first = ~np.isfinite(new[:, [bone.parent]]).all(-1)  # nothing above it is known
        result[:, bone.child] = np.where(first, poses[:, bone.child] * scale, placed)
        here = known[:, [bone.child]] & np.isfinite(result[:, bone.child]).all(-1, keepdims=True)
        old[:, bone.child] = np.where(here, poses[:, bone.child], old[:, bone.parent])
        new[:, bone.child] = np.where(here, result[:, bone.child], new[:, bone.parent])
    return result


def _ways(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """From the parent to the child of each bone: (..., K, D) -> (..., B, D)."""
    parents, children = ([getattr(bone, end) for bone in skeleton.bones] for end in ("parent", "child"))
    return poses[..., children, :] - poses[..., parents, :]


def _fit(ways: np.ndarray, length: np.ndarray, depth: float) -> np.ndarray:
    """The nearest vectors of given lengths (B,), where a change in z counts `depth` times less: (N, B, 3) -> the same.

    By Lagrange's multiplier m, x and y are divided by 1 + m, z by 1 + m depth^2; Newton's steps from where the length
    is too large, since it falls with m and is convex.
    """
    size = np.linalg.norm(ways, axis=-1)
    if depth == 1:
        return ways * (length / np.where(size > 0, size, np.nan))[..., None]
    flat, deep = (ways[..., :2] ** 2).sum(-1), np.maximum(ways[..., 2] ** 2, 1e-12)
    m = np.where(flat + deep > length**2, 0.0, (np.sqrt(deep) / length - 1) / depth**2)
    for _ in range(12):
        a, b = 1 + m, 1 + m * depth**2
        excess = flat / a**2 + deep / b**2 - length**2
        m = m + excess / (2 * flat / a**3 + 2 * depth**2 * deep / b**3)
    z = np.where(ways[..., 2] < 0, -1, 1) * np.sqrt(deep) / (1 + m * depth**2)
    fitted = np.concatenate([ways[..., :2] / (1 + m)[..., None], z[..., None]], -1)
    reached = np.linalg.norm(fitted, axis=-1)
    return fitted * np.where((size > 0) & (reached > 0), length / np.where(reached > 0, reached, 1), np.nan)[..., None]
