"""Positions of joints, of whomever, with the bones of one body: directions are theirs, lengths are ours."""

from __future__ import annotations

import numpy as np

from streampose.geometry.bones import bone_lengths
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
    ratio = bone_lengths(poses, skeleton) / lengths
    return lengths * (np.nanmedian(ratio) if np.isfinite(ratio).any() else 1.0)


def about_root(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Poses with the root at the origin; where it is missing, the middle of the joints that are known."""
    known = np.isfinite(poses).all(-1)
    middle = np.where(known[..., None], poses, 0).sum(1) / np.maximum(known.sum(1), 1)[:, None]
    origin = np.where(known[:, [skeleton.root]], poses[:, skeleton.root], middle)
    return poses - origin[:, None]
