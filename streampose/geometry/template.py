"""Bring 3D poses into one frame, that of a template which faces the camera: what a pose is, apart from the view."""

from __future__ import annotations

import numpy as np

from streampose.errors import ConfigError
from streampose.geometry.align import procrustes
from streampose.structures import Skeleton

TRUNK = ("hip", "shoulder")  # parts of names of the joints that are aligned


def rest_pose(skeleton: Skeleton) -> np.ndarray:
    """The skeleton at rest, facing the camera: (K, 3) in heights, x right, y down, z forward, the root at 0."""
    pose = np.zeros((skeleton.num_joints, 3))
    for bone in skeleton.bones:
        pose[bone.child] = pose[bone.parent] + bone.length * np.asarray(bone.direction)
    return pose


def template_joints(skeleton: Skeleton) -> list[int]:
    """The joints whose places say how a subject stands: hips and shoulders; without both of these all joints."""
    found = {part: [k for k, name in enumerate(skeleton.joints) if part in name] for part in TRUNK}
    complete = all(len(joints) >= 2 for joints in found.values())
    return sorted(k for joints in found.values() for k in joints) if complete else list(range(skeleton.num_joints))


def bone_lengths(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(..., K, 3) -> (..., bones)."""
    parents, children = np.array([(bone.parent, bone.child) for bone in skeleton.bones]).T
    return np.linalg.norm(poses[..., children, :] - poses[..., parents, :], axis=-1)


def align_to_template(poses: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Turn poses so that their hips and shoulders lie as those of the skeleton at rest, and make all of one size.

    The rotation is that of Procrustes on hips and shoulders. The size is that of all bones together: the similarity's
    own scale grows when a trunk bends, and bones would change their lengths with it.

    Args:
        poses: (N, K, 3) x right, y down, z forward, any unit, facing any way; all joints known.

    Returns:
        (N, K, 3) in heights of the skeleton, the root at the origin, and (N,) the poses' unit per height.

    Raises:
        ConfigError: the skeleton has fewer than three joints, or a pose no extent.
    """
    joints = template_joints(skeleton)
    if len(joints) < 3:
        raise ConfigError(f"skeleton {skeleton.name}: poses of {len(joints)} joints cannot be aligned; it needs three")
    target = np.broadcast_to(rest_pose(skeleton)[joints], (len(poses), len(joints), 3))
    _, R, _ = procrustes(np.asarray(poses, float)[:, joints], target)
    size = bone_lengths(poses, skeleton).sum(-1) / sum(bone.length for bone in skeleton.bones)
    if not (np.isfinite(R).all() and (size > 0).all()):
        raise ConfigError(f"skeleton {skeleton.name}: a pose has no extent, or misses a joint; it cannot be aligned")
    turned = poses @ np.swapaxes(R, -1, -2) / size[:, None, None]
    return turned - turned[:, [skeleton.root]], size
