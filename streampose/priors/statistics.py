"""What a prior holds, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from streampose.geometry.project_prior import fit_to_crop
from streampose.store.priors import Prior
from streampose.structures import Skeleton


def describe_prior(prior: Prior, skeleton: Skeleton) -> dict[str, Any]:
    """Counts, known joints, bone lengths and how much each joint moves, JSON-able.

    Returns:
        poses, dimensions; takes, groups: how many; group_sizes: [smallest, median, largest]; seconds: recorded time,
        where known; known: {joint: share of poses}; bones: {name: {mean, sd}} in metres, of 2D poses as a share of the
        longer side of their box; moves: {joint: standard deviation about the root}, in the same unit.
    """
    poses = prior.poses if prior.dimensions == 3 else fit_to_crop(prior.poses, fill=(0.5, 0.5))
    known = np.isfinite(poses).all(-1)
    bones = {}
    root = 0
    if prior.joints == skeleton.joints:
        root = skeleton.root
        for bone in skeleton.bones:
            lengths = np.linalg.norm(poses[:, bone.child] - poses[:, bone.parent], axis=-1)
            lengths = lengths[np.isfinite(lengths)]
            if len(lengths):
                name = f"{skeleton.joints[bone.parent]}-{skeleton.joints[bone.child]}"
                bones[name] = {"mean": float(lengths.mean()), "sd": float(lengths.std())}
    moves = {}
    for k, joint in enumerate(prior.joints):
        points = (poses[:, k] - poses[:, root])[known[:, k] & known[:, root]]
        if len(points):
            moves[joint] = float(np.sqrt(points.var(0).sum()))
    _, sizes = np.unique(prior.groups, return_counts=True)
    ends = [prior.seconds[prior.takes == take] for take in np.unique(prior.takes)]
    recorded = [float(times[-1] - times[0]) for times in ends if np.isfinite(times).all()]
    return {
        "poses": len(prior), "dimensions": prior.dimensions, "takes": len(ends), "groups": len(sizes),
        "group_sizes": [int(sizes.min()), int(np.median(sizes)), int(sizes.max())],
        "seconds": sum(recorded) if recorded else None,
        "known": {joint: float(known[:, k].mean()) for k, joint in enumerate(prior.joints)},
        "bones": bones, "moves": moves,
    }  # fmt: skip
