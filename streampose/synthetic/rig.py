"""The bones that every synthetic person has, and forward kinematics.

Body frame: x forward, y to the subject's left, z up, metres, origin between the hip joints. The rest pose stands
upright with the arms hanging down. A bone's rotation is its *world* rotation away from that rest pose, so a motion
fits any body whatever its proportions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BONES = (
    "pelvis", "spine", "chest", "neck", "head",
    "left_collar", "left_upper_arm", "left_forearm", "left_hand",
    "right_collar", "right_upper_arm", "right_forearm", "right_hand",
    "left_thigh", "left_shin", "left_foot", "right_thigh", "right_shin", "right_foot",
)  # fmt: skip
BONE = {name: i for i, name in enumerate(BONES)}
PARENTS = (-1, 0, 1, 2, 3, 2, 5, 6, 7, 2, 9, 10, 11, 0, 13, 14, 0, 16, 17)


@dataclass(frozen=True)
class Landmark:
    """A point of the body: the mean of its places on one or two bones.

    Attributes:
        bones: names of the bones that carry it.
        points: (len(bones), 3) where on each, in the rest pose, metres.
        depth: how far below the skin it may lie while it still counts as seen, metres.
    """

    bones: tuple[str, ...]
    points: np.ndarray
    depth: float


@dataclass(frozen=True)
class Rig:
    """Proportions of one person.

    Attributes:
        heads: (B, 3) where each bone starts in the rest pose.
        ankle_height: of the ankle joints above the soles, metres.
        landmarks: where each named joint of a skeleton lies.
    """

    heads: np.ndarray
    ankle_height: float
    landmarks: dict[str, Landmark]

    @property
    def leg(self) -> tuple[float, float]:
        """Lengths of thigh and shin in metres."""
        return self._length("left_thigh", "left_shin"), self._length("left_shin", "left_foot")

    @property
    def arm(self) -> tuple[float, float]:
        """Lengths of upper arm and forearm in metres."""
        return self._length("left_upper_arm", "left_forearm"), self._length("left_forearm", "left_hand")

    def _length(self, a: str, b: str) -> float:
        return float(np.linalg.norm(self.heads[BONE[b]] - self.heads[BONE[a]]))


@dataclass(frozen=True)
class Motion:
    """How one person moves.

    Attributes:
        rotations: (T, B, 3, 3) world rotation of each bone away from the rest pose.
        root: (T, 3) world position of the pelvis, metres.
    """

    rotations: np.ndarray
    root: np.ndarray


def bone_heads(rig: Rig, motion: Motion) -> np.ndarray:
    """World position of each bone's start: (T, B, 3)."""
    T = len(motion.root)
    heads = np.empty((T, len(BONES), 3))
    for bone, parent in enumerate(PARENTS):
        if parent < 0:
            heads[:, bone] = motion.root
        else:
            offset = rig.heads[bone] - rig.heads[parent]
            heads[:, bone] = heads[:, parent] + motion.rotations[:, parent] @ offset
    return heads


def bone_transforms(rig: Rig, motion: Motion) -> np.ndarray:
    """World from rest transform of each bone: (T, B, 3, 4)."""
    offset = bone_heads(rig, motion) - np.einsum("tbij,bj->tbi", motion.rotations, rig.heads)
    return np.concatenate([motion.rotations, offset[..., None]], -1)


def landmarks_3d(rig: Rig, transforms: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """World positions of named landmarks: (T, K, 3)."""
    result = np.empty((len(transforms), len(names), 3))
    for k, name in enumerate(names):
        landmark = rig.landmarks[name]
        bones = transforms[:, [BONE[bone] for bone in landmark.bones]]  # (T, A, 3, 4)
        result[:, k] = (np.einsum("taij,aj->tai", bones[..., :3], landmark.points) + bones[..., 3]).mean(1)
    return result
