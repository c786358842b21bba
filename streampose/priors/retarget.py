"""Positions of joints, of whomever, with the bones of one body: directions are theirs, lengths are ours."""

from __future__ import annotations

import numpy as np

from streampose.structures import Skeleton
from streampose.synthetic.body import average_rig

AXES = {  # the way that is up in a file -> ours from theirs (x right, y down, z forward), without mirroring
    "-y": np.eye(3),
    "y": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], float),
    "z": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float),
}


def is_human(skeleton: Skeleton) -> bool:
    """Whether synthetic people have all its joints."""
    return set(skeleton.joints) <= set(average_rig().landmarks)


def bone_lengths_of(skeleton: Skeleton, poses: np.ndarray) -> np.ndarray:
    """The lengths that a prior's bones get, (B,): those of an average person, 1.7 m tall.

    Of other subjects the skeleton file's proportions, at the size that the poses (N, K, 3) have on average.
    """
    if is_human(skeleton):
        places = {name: landmark.points.mean(0) for name, landmark in average_rig().landmarks.items()}
        ends = [(skeleton.joints[bone.parent], skeleton.joints[bone.child]) for bone in skeleton.bones]
        return np.array([np.linalg.norm(places[a] - places[b]) for a, b in ends])
    lengths = np.array([bone.length for bone in skeleton.bones])
    ratio = _lengths(poses, skeleton) / lengths
    return lengths * (np.nanmedian(ratio) if np.isfinite(ratio).any() else 1.0)


def with_bones(poses: np.ndarray, skeleton: Skeleton, lengths: np.ndarray) -> np.ndarray:
    """Poses with bones of given lengths in their own directions; the root's places are scaled along.

    Args:
        poses: (N, K, 3), NaN where missing. A joint whose parent is missing keeps its way from the nearest ancestor
            that is known, scaled as the whole pose is.
        lengths: (B,).

    Returns:
        (N, K, 3); a joint at its parent's place is missing, since nobody knows which way the bone points.
    """
    known = np.isfinite(poses).all(-1)
    actual = _lengths(poses, skeleton)
    counted = np.isfinite(actual)
    scale = np.where(counted, lengths, 0).sum(1) / np.maximum(np.where(counted, actual, 0).sum(1), 1e-9)
    scale = np.where(counted.any(1), scale, 1.0)[:, None]
    result = np.full(poses.shape, np.nan)
    result[:, skeleton.root] = poses[:, skeleton.root] * scale
    old, new = poses.copy(), result.copy()  # where a joint is missing: of its nearest known ancestor
    for b, bone in enumerate(skeleton.bones):
        way = poses[:, bone.child] - old[:, bone.parent]
        length = np.linalg.norm(way, axis=-1, keepdims=True)
        factor = np.where(known[:, [bone.parent]], lengths[b] / np.where(length > 0, length, np.nan), scale)
        placed = new[:, bone.parent] + way * factor
        first = ~np.isfinite(new[:, [bone.parent]]).all(-1)  # nothing above it is known
        result[:, bone.child] = np.where(first, poses[:, bone.child] * scale, placed)
        here = known[:, [bone.child]]
        old[:, bone.child] = np.where(here, poses[:, bone.child], old[:, bone.parent])
        new[:, bone.child] = np.where(here, result[:, bone.child], new[:, bone.parent])
    return result


def about_root(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Poses with the root at the origin; where it is missing, the middle of the joints that are known."""
    known = np.isfinite(poses).all(-1)
    middle = np.where(known[..., None], poses, 0).sum(1) / np.maximum(known.sum(1), 1)[:, None]
    origin = np.where(known[:, [skeleton.root]], poses[:, skeleton.root], middle)
    return poses - origin[:, None]


def _lengths(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    parents, children = ([getattr(bone, end) for bone in skeleton.bones] for end in ("parent", "child"))
    return np.linalg.norm(poses[:, children] - poses[:, parents], axis=-1)
