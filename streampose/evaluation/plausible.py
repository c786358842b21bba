"""Whether predicted 3D poses are ones that a body could take, by the joint limits and bone ratios of a prior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError
from streampose.evaluation.summary import by_joint
from streampose.metrics.plausibility import Limits, judge, learn_limits
from streampose.store.priors import read_prior
from streampose.structures import Skeleton
from streampose.synthetic.built_in_prior import NAME as BUILT_IN
from streampose.synthetic.built_in_prior import built_in_prior

BUILT_IN_POSES = 4096


def limits_of_prior(store: Path, name: str, skeleton: Skeleton) -> Limits:
    """What the 3D poses of a prior show; `built-in` needs no store.

    Raises:
        StoreError: no such prior. ConfigError: a prior of 2D poses, or of other joints.
    """
    if name == BUILT_IN:
        prior = built_in_prior(skeleton, BUILT_IN_POSES)
    else:
        prior = read_prior(store, name).for_skeleton(skeleton)
    if prior.dimensions != 3:
        raise ConfigError(f"prior {name}: its poses are 2D, which say nothing of joint limits; name one of 3D poses")
    return learn_limits(prior.poses, prior.groups, skeleton)


def measure_plausibility(
    poses: Sequence[np.ndarray], limits: Limits
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Shares of what passes, as metrics and by joint (the end of each bone).

    `free/plausible`: poses against which nothing speaks; `free/joint_limits` and `free/bone_ratios`: bones whose
    direction, or whose length, lies within the prior's.

    Args:
        poses: (N, K, 3) each, x right, y down, z forward, of any scale.

    Raises:
        ConfigError: the poses have no depth.
    """
    together = np.concatenate(poses) if len(poses) else np.zeros((0, limits.skeleton.num_joints, 3))
    depth = together[..., 2]
    if len(together) and not (np.isfinite(depth) & (np.abs(depth) > 0)).any():
        raise ConfigError("--prior: plausibility is of 3D poses, and this model's have no depth; leave --prior out")
    found = judge(together, limits)
    joints = [limits.skeleton.joints[bone.child] for bone in limits.skeleton.bones]
    per_bone = {"free/joint_limits": found.within_limits, "free/bone_ratios": found.within_ratios}
    metrics = {name: float(np.nanmean(values)) for name, values in per_bone.items() if np.isfinite(values).any()}
    if len(together):
        metrics["free/plausible"] = float(found.plausible.mean())
    return metrics, {name: by_joint(values, joints) for name, values in per_bone.items()}
