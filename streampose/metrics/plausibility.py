"""Could a body take this pose? Joint limits and bone ratios learnt from a prior's 3D poses.

Each bone's direction is looked at in the frame of the joint that it hangs from. Where a joint carries a left and a
right bone (pelvis, thorax) the frame comes from their line and the trunk; elsewhere it is the parent's, turned as
little as possible onto the bone. A limb's second bone (forearm, shin) is judged together with the first, since an elbow
bends another way when the arm is raised. What the prior shows is kept as a set of directions; a pose is judged by its
angle to the nearest of them. How large an angle is usual is measured between groups of the prior; beyond that,
keypoints may be off by `NOISE` of the subject's size, which turns short bones further than long ones.

Bone ratios are lengths relative to all bones' lengths together; the scale of a pose does not matter.

On motion capture of dances that were not learnt from, 99.7 % of the poses pass; of the same poses with reversed depth,
or with left and right exchanged, none; with the arms alone exchanged 2 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streampose.structures import Skeleton

RARE = 0.002  # share of a prior's own poses, of groups not seen, that a bone's limit leaves outside
NOISE = 0.03  # of a standing person's height that the two ends of a bone may be off together: 5 cm
PROTOTYPES, CANDIDATES = 400, 4000  # directions that are kept of each bone, and poses that they are chosen from
LIMB_DEGREES = 45.0  # bones that swing further are limbs
RATIO = 0.25  # people differ: a ratio may be off by so much (its logarithm) whatever the prior says
CHUNK = 2048


@dataclass(frozen=True)
class Limits:
    """What a prior says of B bones.

    Attributes:
        skeleton: whose bones.
        prototypes: B arrays (M, 3 or 6) of unit directions in the parent joint's frame; 6 with the first bone's before.
        reach_degrees: (B,) how far from the nearest prototype a direction may be.
        ratio: (B,) mean logarithm of each bone's share of the length of all bones.
        ratio_reach: (B,) how far the logarithm may be from it.
    """

    skeleton: Skeleton
    prototypes: tuple[np.ndarray, ...]
    reach_degrees: np.ndarray
    ratio: np.ndarray
    ratio_reach: np.ndarray


@dataclass(frozen=True)
class Plausibility:
    """Judgement of N poses: excess (N, B) degrees beyond a bone's limit, ratio_error (N, B) beyond its ratio's reach.

    Both are 0 where all is well, and NaN where a joint that is needed is missing.
    """

    excess_degrees: np.ndarray
    ratio_error: np.ndarray

    @property
    def within_limits(self) -> np.ndarray:
        """(N, B) 1, 0, or NaN where nobody knows."""
        return np.where(np.isnan(self.excess_degrees), np.nan, self.excess_degrees <= 0)

    @property
    def within_ratios(self) -> np.ndarray:
        """(N, B) 1, 0, or NaN where nobody knows."""
        return np.where(np.isnan(self.ratio_error), np.nan, self.ratio_error <= 0)

    @property
    def plausible(self) -> np.ndarray:
        """(N,) whether nothing that is known speaks against the pose; False where nothing is known."""
        known = np.isfinite(self.excess_degrees).any(1) | np.isfinite(self.ratio_error).any(1)
        return known & ~(self.excess_degrees > 0).any(1) & ~(self.ratio_error > 0).any(1)


def learn_limits(poses: np.ndarray, groups: np.ndarray, skeleton: Skeleton, seed: int = 0) -> Limits:
    """Learn joint limits and bone ratios from a prior.

    Args:
        poses: (N, K, 3) in the order of the skeleton's joints, x right, y down, z forward; NaN where missing. Each is
            also taken mirrored.
        groups: (N,) names; the limits' reach is measured from one half of the groups to the other, where there are
            several, so that it holds for people who are not in the prior.

    Raises:
        ValueError: no pose shows any bone.
    """
    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(groups))
    first = np.isin(groups, names[: max(1, len(names) // 2)]) if len(names) > 1 else rng.random(len(poses)) < 0.5
    halves = [_some(poses[side], CANDIDATES // 2, rng) for side in (first, ~first)]
    features = [_features(np.concatenate([half, _mirrored(half, skeleton)]), skeleton) for half in halves]
    lengths = np.array([bone.length for bone in skeleton.bones])
    prototypes, reach = [], np.full(len(skeleton.bones), 180.0)
    for b in range(len(skeleton.bones)):
        one, other = (feature[b][np.isfinite(feature[b]).all(1)] for feature in features)
        both = np.concatenate([one, other])
        prototypes.append(_cover(both, PROTOTYPES, rng))
        if len(one) and len(other):
            apart = np.concatenate([_nearest_degrees(one, _cover(other, PROTOTYPES, rng)),
                                    _nearest_degrees(other, _cover(one, PROTOTYPES, rng))])  # fmt: skip
            reach[b] = np.quantile(apart, 1 - RARE) + np.degrees(np.arctan(NOISE / lengths[b]))
    logs = _log_ratios(np.concatenate(halves), skeleton)
    if not np.isfinite(logs).any() and not any(map(len, prototypes)):
        raise ValueError("learn_limits: no pose shows a bone of the skeleton")
    known = np.isfinite(logs).any(0)
    ratio, spread = (np.full(len(known), np.nan) for _ in range(2))
    ratio[known], spread[known] = np.nanmedian(logs[:, known], 0), np.nanstd(logs[:, known], 0)
    ratio_reach = np.maximum(np.maximum(4 * spread, RATIO), np.log1p(NOISE / lengths))
    return Limits(skeleton, tuple(prototypes), reach, ratio, ratio_reach)


def judge(poses: np.ndarray, limits: Limits) -> Plausibility:
    """Judge poses (N, K, 3), of any scale and anywhere, by the limits; leading dimensions must be flattened."""
    excess = np.full((len(poses), len(limits.prototypes)), np.nan)
    for start in range(0, len(poses), CHUNK):
        part = slice(start, start + CHUNK)
        for b, values in enumerate(_features(np.asarray(poses[part], float), limits.skeleton)):
            known = np.isfinite(values).all(1)
            if len(limits.prototypes[b]) and known.any():
                apart = _nearest_degrees(values[known], limits.prototypes[b]) - limits.reach_degrees[b]
                excess[start + np.flatnonzero(known), b] = np.maximum(apart, 0.0)
    logs = _log_ratios(np.asarray(poses, float), limits.skeleton)
    return Plausibility(excess, np.maximum(np.abs(logs - limits.ratio) - limits.ratio_reach, 0.0))


def bone_directions(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Each bone's unit direction in the frame of the joint that it hangs from: (N, K, 3) -> (N, B, 3).

    In the skeleton's rest pose they are the bones' rest directions. NaN where a joint that is needed is missing, or
    where the frame is not determined.
    """
    rest = _rest_pose(skeleton)
    frames: dict[int, np.ndarray] = {skeleton.root: _pair_frame(poses, rest, skeleton, skeleton.root, None)}
    result = np.full((len(poses), len(skeleton.bones), 3), np.nan)
    for b, bone in enumerate(skeleton.bones):
        way = _unit(poses[:, bone.child] - poses[:, bone.parent])
        frame = frames[bone.parent]
        result[:, b] = np.einsum("nji,nj->ni", frame, way)
        own = _pair_frame(poses, rest, skeleton, bone.child, bone.parent)
        carried = _turn_onto(frame @ _unit(rest[bone.child] - rest[bone.parent]), way) @ frame
        frames[bone.child] = np.where(np.isfinite(own), own, carried)
    return result


def _features(poses: np.ndarray, skeleton: Skeleton) -> list[np.ndarray]:
    """What each bone is judged by: its direction, (N, 3), or with the first bone's before it, (N, 6)."""
    directions = bone_directions(poses, skeleton)
    into = {bone.child: b for b, bone in enumerate(skeleton.bones)}
    features = []
    for b, bone in enumerate(skeleton.bones):
        above = into.get(bone.parent)
        limb = above is not None and skeleton.bones[above].swing_degrees > LIMB_DEGREES
        features.append(np.concatenate([directions[:, above], directions[:, b]], 1) if limb else directions[:, b])
    return features


def _pair_frame(poses: np.ndarray, rest: np.ndarray, skeleton: Skeleton, joint: int, parent: int | None) -> np.ndarray:
    """Rotation from rest of a joint that carries a left and a right bone: (N, 3, 3); NaN where it carries none."""
    children = [bone.child for bone in skeleton.bones if bone.parent == joint]
    pairs = [pair for pair in skeleton.flip_pairs if pair[0] in children and pair[1] in children]
    if not pairs:
        return np.full((len(poses), 3, 3), np.nan)
    left, right = max(pairs, key=lambda pair: float(np.linalg.norm(rest[pair[0]] - rest[pair[1]])))
    paired = {joint for pair in skeleton.flip_pairs for joint in pair}
    middle = [child for child in children if child not in paired]
    frames = []
    for points in (poses, rest[None]):
        if parent is not None:
            axis = points[:, joint] - points[:, parent]
        elif middle:
            axis = points[:, middle[0]] - points[:, joint]
        else:
            axis = (points[:, left] + points[:, right]) / 2 - points[:, joint]
        x = _unit(points[:, left] - points[:, right])
        z = _unit(np.cross(x, axis))
        frames.append(np.stack([x, np.cross(z, x), z], -1))
    return frames[0] @ np.swapaxes(frames[1], -1, -2)


def _rest_pose(skeleton: Skeleton) -> np.ndarray:
    rest = np.zeros((skeleton.num_joints, 3))
    for bone in skeleton.bones:
        rest[bone.child] = rest[bone.parent] + bone.length * np.asarray(bone.direction)
    return rest


def _turn_onto(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotations that turn unit vectors a onto b: (N, 3), (N, 3) -> (N, 3, 3)."""
    c = (a * b).sum(-1)
    x, y, z = np.cross(a, b).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    return np.eye(3) + cross + cross @ cross / np.maximum(1 + c, 1e-6)[:, None, None]


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 1e-9, length, np.nan)


def _mirrored(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    return poses[:, skeleton.flip_index] * (-1.0, 1.0, 1.0)


def _some(poses: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    if len(poses) > count:
        poses = poses[rng.choice(len(poses), count, replace=False)]
    return np.asarray(poses, float)


def _cover(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Some of the points, each the farthest from those before: they cover all of them evenly, rare ones too."""
    if len(points) <= count:
        return points
    chosen = np.empty(count, int)
    chosen[0] = rng.integers(len(points))
    likest = np.full(len(points), -np.inf)
    for n in range(1, count):
        likest = np.maximum(
            likest, points @ points[chosen[n - 1]]
        )  # unit vectors: the nearest have the largest product
        chosen[n] = likest.argmin()
    return points[chosen]


def _nearest_degrees(values: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Angle to the nearest prototype: (N, 3 or 6), (M, 3 or 6) -> (N,) degrees.

    Of two bones the larger angle counts, that of the first one halved: cos(a / 2) = sqrt((1 + cos a) / 2).
    """
    likeness = values[:, -3:] @ prototypes[:, -3:].T
    if values.shape[1] == 6:
        above = np.sqrt((1 + np.clip(values[:, :3] @ prototypes[:, :3].T, -1, 1)) / 2)
        likeness = np.minimum(likeness, above)
    return np.degrees(np.arccos(np.clip(likeness.max(1), -1, 1)))


def _log_ratios(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Logarithm of each bone's share of the lengths of all bones: (N, B); NaN in poses that lack a joint."""
    parents, children = ([getattr(bone, end) for bone in skeleton.bones] for end in ("parent", "child"))
    lengths = np.linalg.norm(poses[:, children] - poses[:, parents], axis=-1)
    known = np.isfinite(lengths)
    standard = np.array([bone.length for bone in skeleton.bones])
    # Of a pose that lacks joints: as if the bones that are not seen had the skeleton's proportions.
    total = np.where(known, lengths, 0).sum(1) / np.maximum(np.where(known, standard, 0).sum(1), 1e-12)
    return np.log(np.maximum(lengths, 1e-9) / np.maximum(total, 1e-9)[:, None] / standard)
