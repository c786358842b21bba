"""The prior of people that needs no file: random persons in the procedural motions of the synthetic videos."""

from __future__ import annotations

import numpy as np

from streampose.errors import ConfigError
from streampose.store.priors import Prior
from streampose.structures import Skeleton
from streampose.synthetic.body import random_rig
from streampose.synthetic.motion import Region, procedural_motion
from streampose.synthetic.rig import Motion, Rig, bone_transforms, landmarks_3d

NAME = "built-in"
POSES_A_PERSON, RATE = 32, 3.0  # poses of one person, and how many a second: far enough apart to differ
OURS_FROM_WORLD = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float)  # world: z up; a prior: y down, z forward


def built_in_prior(skeleton: Skeleton, count: int, seed: int = 0) -> Prior:
    """Poses of people of all proportions, walking, sitting, kicking, waving..., facing all ways; a group is a person.

    Returns:
        `count` 3D poses in metres, x right, y down, z forward, the skeleton's root at the origin.

    Raises:
        ConfigError: the skeleton has joints that a synthetic person has not.
    """
    parts = []
    persons = -(-count // POSES_A_PERSON)
    for person in range(persons):
        rng = np.random.default_rng([seed, person])
        rig, region = random_rig(rng), Region(np.zeros(2), np.eye(2), np.full(2, 4.0))
        motion = procedural_motion(rig, region, POSES_A_PERSON, RATE, rng)
        parts.append(poses_of(rig, motion, skeleton))
    number = np.repeat(np.arange(persons), POSES_A_PERSON)[:count]
    seconds = np.tile(np.arange(POSES_A_PERSON) / RATE, persons)[:count]
    groups = np.array([f"person {n}" for n in range(persons)], str)[number]
    poses = np.concatenate(parts)[:count] if parts else np.zeros((0, skeleton.num_joints, 3))
    return Prior(NAME, poses, skeleton.joints, groups, f"procedural people, seed {seed}", groups, seconds)


def poses_of(rig: Rig, motion: Motion, skeleton: Skeleton) -> np.ndarray:
    """A moving body's joints about the skeleton's root: (T, K, 3) metres, x right, y down, z forward.

    Raises:
        ConfigError: the skeleton has joints that a synthetic person has not.
    """
    missing = [joint for joint in skeleton.joints if joint not in rig.landmarks]
    if missing:
        raise ConfigError(
            f"skeleton {skeleton.name}: people have no joint {', '.join(missing)}; import poses of your own with "
            "`streampose prior import`"
        )
    joints = landmarks_3d(rig, bone_transforms(rig, motion), skeleton.joints) @ OURS_FROM_WORLD.T
    return joints - joints[:, [skeleton.root]]
