"""How good a lifter is on tracks of a video whose exact truth is known: what a 2D model found in them is lifted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streampose.errors import ConfigError
from streampose.evaluation.compared import match_joints
from streampose.evaluation.lifted import BEST_OF
from streampose.evaluation.summary import by_joint
from streampose.evaluation.truth import Matched, known_frames
from streampose.geometry.hypotheses import REGION, squared_radius
from streampose.geometry.project import camera_from_world
from streampose.metrics.hypotheses import best_of
from streampose.metrics.intervals import group_interval
from streampose.metrics.keypoints_3d import mpjpe, pa_mpjpe
from streampose.runtime.lifter import CONFIDENT, Lifting
from streampose.structures import Skeleton


def measure_lifted_tracks(matched: Sequence[Matched], lifting: Lifting, skeleton: Skeleton) -> dict[str, Any]:
    """Lift the joints of each track and compare the poses with the truth, along the camera's axes, from the root.

    Metres are the lifter's, the size of its prior's typical subject: `lifted/mpjpe_mm` and the region are also wrong
    where a subject is of another size. Joints outside the picture do not count, nor frames that cannot be lifted.

    Args:
        skeleton: of the 2D model.

    Returns:
        {"metrics", "intervals", "per_joint"}: `lifted/pa_mpjpe_mm` and `lifted/mpjpe_mm` of the zero code's pose,
        `lifted/best10_pa_mpjpe_mm`, `lifted/coverage90`: share of true joints in the stated 90 % region, and
        `lifted/share`: frames that could be lifted.

    Raises:
        BundleError: the 2D model does not find a joint that is lifted. ConfigError: the truth has no root joint, or
            nothing could be lifted.
    """
    index, lifted = lifting.match(skeleton.joints), lifting.skeleton
    common = set.intersection(*(set(exact.joints.tolist()) for _, exact, _, _ in matched))
    known_names = [name for name in matched[0].exact.joints.tolist() if name in common]
    joints, columns, _ = match_joints(lifted, known_names, "the truth")
    if lifted.root not in columns:
        raise ConfigError(f"the truth has no joint {lifted.joints[lifted.root]}; lifted poses are measured from it")
    root = columns.tolist().index(lifted.root)
    parts: list[dict[str, np.ndarray]] = []
    total = 0
    for item, exact, subject, session in matched:
        names, _, places = match_joints(lifted, exact.joints.tolist(), "the truth")
        order = [places[names.index(joint)] for joint in joints]
        known = known_frames(item, exact)
        frames, total = item.frame_index[known], total + len(known)
        found = lifting.lift(item.xy[known][:, index], item.confidence[known][:, index] >= CONFIDENT, count=BEST_OF + 1)
        truth = camera_from_world(exact.joints_3d[frames, subject], exact.R[frames], exact.t[frames])[:, order]
        truth = truth - truth[:, [root]]
        truth[exact.visibility[frames, subject][:, order] == 0] = np.nan
        truth[:, root] = 0.0
        some = np.isfinite(found.pose).all((1, 2)) & (np.isfinite(truth).all(2).sum(1) >= 3)
        pose, truth = found.pose[some][:, columns], truth[some]
        drawn = np.moveaxis(found.hypotheses[some][:, 1:][:, :, columns], 1, 0)  # the first one is no draw
        radius = squared_radius(truth, pose, found.covariance[some][:, columns])
        inside = np.where(np.isfinite(radius), radius <= REGION, np.nan)
        inside[:, root] = np.nan  # is never wrong
        part = {
            "lifted/pa_mpjpe_mm": pa_mpjpe(1000 * pose, 1000 * truth),
            "lifted/mpjpe_mm": mpjpe(1000 * pose, 1000 * truth, root),
            "lifted/best10_pa_mpjpe_mm": best_of(np.stack([pa_mpjpe(1000 * one, 1000 * truth) for one in drawn])),
            "lifted/coverage90": inside,
        }
        parts.append(part | {"groups": np.full(len(pose), session or Path(item.source).stem)})
    every = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    groups = every.pop("groups")
    if not len(groups):
        raise ConfigError("the lifter could lift no frame of these tracks: too few joints are found with confidence")
    result: dict[str, Any] = {"metrics": {}, "intervals": {}, "per_joint": {}}
    for name, values in every.items():
        result["metrics"][name] = float(np.nanmean(values))
        result["per_joint"][name] = by_joint(values, joints)
        if (interval := group_interval(values, groups)) is not None:
            result["intervals"][name] = list(interval)
    result["metrics"]["lifted/share"] = len(groups) / max(total, 1)
    return result
