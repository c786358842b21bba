"""Unpaired poses for `methods/landmarks.py`: drawn at random, seen by random cameras, framed as the store frames crops.

Also figures painted of them, `methods/landmarks_figures.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from streampose.console import logger
from streampose.errors import ConfigError, TrainingError
from streampose.geometry.project_prior import random_views
from streampose.methods.landmarks_figures import Capsules, paint_figures, random_colours
from streampose.methods.mask_prior import facing_sign, random_figures, turns_every_way, width_across
from streampose.store.priors import Prior, list_priors, read_prior
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.synthetic.built_in_prior import NAME as BUILT_IN
from streampose.synthetic.built_in_prior import built_in_prior

BUILT_IN_POSES = 4096
SIDE_ON = 0.09  # width of hips and shoulders in crops; about 20 degrees off the side
BEYOND = 1.5  # radii that feet and the like add to the last bone of a limb, at most
MIRRORED_LEAST, MIRRORED_LIKE = 10, 2.0  # poses that can tell; times the distance of poses that are alike
MARGIN = 0.1  # kept free around the subject, as `tracking.boxes` does


def find_prior(reader: StoreReader, skeleton: Skeleton, name: str, seed: int) -> Prior:
    """The unpaired poses to train with, in the order of the skeleton's joints.

    Args:
        name: of a prior in the store; `built-in`: procedural people, or of a skeleton that is none of theirs, figures
            drawn from its file; or `auto`: the only one in the store, else the built-in one.

    Raises:
        ConfigError: several priors and none named; poses of other joints.
        StoreError: no prior of that name.
    """
    if name == "auto":
        known = [entry["name"] for entry in list_priors(reader.path)]
        if len(known) > 1:
            raise ConfigError(f"{reader.name}: holds the priors {', '.join(known)}; choose one with --prior NAME")
        name = known[0] if known else BUILT_IN
        logger.info("poses: prior %s", name)
    if name == BUILT_IN:
        try:
            return built_in_prior(skeleton, BUILT_IN_POSES, seed)
        except ConfigError:
            return skeleton_prior(skeleton, BUILT_IN_POSES, seed)
    return read_prior(reader.path, name).for_skeleton(skeleton)


def skeleton_prior(skeleton: Skeleton, count: int, seed: int) -> Prior:
    """2D poses of any subject, from nothing but how its skeleton file says that it moves and turns."""
    figures = random_figures(skeleton, count, np.random.default_rng(seed))
    groups = np.array(["figures"] * count)
    return Prior(BUILT_IN, figures.joints[..., :2], skeleton.joints, groups, f"skeleton {skeleton.name}, seed {seed}")


class Drawn(NamedTuple):
    """B poses: xy (B, K, 2) in [-1, 1] over the crop, depth (B, K) forward; of bones (B, N) half thickness, reach."""

    xy: np.ndarray
    depth: np.ndarray
    radius: np.ndarray
    reach: np.ndarray


class Poses:
    """Unpaired poses of a skeleton, and how they are drawn at random.

    Args:
        poses: (N, K, 2 or 3), y down, NaN where missing; as `store.priors.Prior.poses`.
        facing: name the sides of subjects that turn every way as if they faced the camera: a picture of sticks is the
            same from before and behind.
        followed: crops follow the subject; else they are whole frames, where it may be smaller and off the middle.

    Attributes:
        mirrored: whether mirrored poses are as likely; not of a subject that always heads the same way.
        bones: (n, 2) those of the skeleton's bones that most poses know.
        number: (n,) their places in the skeleton.
    """

    def __init__(self, poses: np.ndarray, skeleton: Skeleton, *, facing: bool = True, followed: bool = True):
        if poses.ndim != 3 or poses.shape[1] != skeleton.num_joints or poses.shape[2] not in (2, 3):
            raise ValueError(f"poses are {poses.shape}, expected (N, {skeleton.num_joints}, 2 or 3)")
        all_bones = np.array([(bone.parent, bone.child) for bone in skeleton.bones]).reshape(-1, 2)
        known = np.isfinite(poses).all(-1)  # (N, K)
        common = known[:, all_bones].all(-1).mean(0) > 0.5 if len(poses) else np.zeros(len(all_bones), bool)
        kept = known.any(1) & (known[:, all_bones[common]].all((1, 2)))
        if not kept.any() or not known.any():
            raise TrainingError(
                "the prior has no pose whose bones are known; look at it with `streampose prior inspect`"
            )
        self.skeleton, self.poses = skeleton, np.asarray(poses[kept], np.float32)
        self.number = np.flatnonzero(common)
        self.bones = all_bones[common]
        self.facing = facing and turns_every_way(skeleton)
        self.mirrored = seen_mirrored(self.poses, skeleton)
        self.shift, self.zoom, self.larger = (0.02, 0.06, 0.0) if followed else (0.06, 0.15, 0.1)  # of crops
        self.radius = np.array([bone.radius for bone in skeleton.bones])[self.number]
        self.reach = np.array([bone.reach for bone in skeleton.bones])[self.number]
        self.last = ~np.isin(self.bones[:, 1], all_bones[:, 0]) & (self.reach > 0)
        self.length = np.array([bone.length for bone in skeleton.bones])[self.number]
        self.height = self._heights()

    def __len__(self) -> int:
        return len(self.poses)

    def _heights(self) -> np.ndarray:
        """The subject's standing height in the unit of each pose: (N,); in 2D most bones are seen shortened."""
        if not len(self.bones):
            extent = np.nanmax(self.poses, 1) - np.nanmin(self.poses, 1)
            return extent.max(-1)
        lengths = np.linalg.norm(self.poses[:, self.bones[:, 0]] - self.poses[:, self.bones[:, 1]], axis=-1)
        return np.percentile(lengths / self.length, 50 if self.poses.shape[2] == 3 else 80, axis=1)

    def draw(self, count: int, rng: np.random.Generator) -> Drawn:
        """Poses at random, mirrored or not, as random cameras see them, in crops like those of a store."""
        index = rng.integers(0, len(self), count)
        poses, height = self.poses[index], self.height[index]
        mirrored = (rng.random(count) < 0.5) & self.mirrored
        poses = np.where(mirrored[:, None, None], poses[:, self.skeleton.flip_index], poses)
        poses[mirrored, :, 0] *= -1
        if poses.shape[2] == 3:
            seen = random_views(poses, rng) if turns_every_way(self.skeleton) else self._turned(poses, rng)
            seen -= np.nanmean(seen, 1, keepdims=True)
            depth = seen[..., 2]
            away = rng.uniform(2.0, 6.0, count) * height
            xy = seen[..., :2] * (away[:, None] / np.maximum(away[:, None] + depth, 0.2 * away[:, None]))[..., None]
        else:
            angle = np.radians(rng.normal(0, 3, count))
            c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
            xy = np.stack([c * poses[..., 0] - s * poses[..., 1], s * poses[..., 0] + c * poses[..., 1]], -1)
            depth = rng.normal(0, 1, xy.shape[:2])
        build = rng.lognormal(-0.08, 0.17, (count, 1)) * height[:, None]
        radius = self.radius * build * rng.lognormal(0, 0.1, (count, len(self.radius)))  # (B, n)
        reach = self.reach + self.last * rng.uniform(0, BEYOND, radius.shape)
        if self.facing:
            away_side = facing_sign(self.skeleton, np.nan_to_num(xy)) < 0
            flip = self.skeleton.flip_index
            xy[away_side], depth[away_side] = xy[away_side][:, flip], depth[away_side][:, flip]
        flesh = np.zeros(xy.shape[:2])
        for n, (parent, child) in enumerate(self.bones):
            flesh[:, parent] = np.maximum(flesh[:, parent], 0.8 * radius[:, n])
            flesh[:, child] = np.maximum(flesh[:, child], reach[:, n] * radius[:, n])
        low, high = np.nanmin(xy - flesh[..., None], 1), np.nanmax(xy + flesh[..., None], 1)
        side = (high - low).max(-1) * (1 + 2 * MARGIN) * rng.lognormal(self.larger, self.zoom, count)
        centre = (low + high) / 2 + rng.normal(0, self.shift, (count, 2)) * side[:, None]
        scale = (2 / side)[:, None]
        xy = (xy - centre[:, None]) * scale[..., None]
        return Drawn(xy.astype(np.float32), depth * scale, radius * scale, reach)

    def side_on(self, xy: np.ndarray) -> np.ndarray:
        """Where naming the sides as if they faced the camera is a toss-up: (B, K, 2) in [-1, 1] -> (B,)."""
        return self.facing & (np.abs(width_across(self.skeleton, np.nan_to_num(xy))) < SIDE_ON)

    def _turned(self, poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """3D poses turned as far as the skeleton says that its subject turns: (B, K, 3) -> (B, K, 3)."""
        degrees = rng.uniform(-1, 1, (len(poses), 3)) * self.skeleton.turn_degrees
        turns = Rotation.from_euler("yxz", degrees[:, [1, 0, 2]], degrees=True).as_matrix()
        return poses @ np.swapaxes(turns, -1, -2)

    def paint(self, drawn: Drawn, backgrounds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Paint figures over pictures: (B, S, S, 3) uint8, of which new ones are returned."""
        colours = random_colours(self.bones, np.array(self.skeleton.flip_index), len(backgrounds), rng)
        return paint_figures(self._capsules(drawn, backgrounds.shape[1], rng), colours, backgrounds, rng)

    def _capsules(self, drawn: Drawn, size: int, rng: np.random.Generator) -> Capsules:
        """A capsule for each bone, a little thicker at one end, and those that fill a trunk."""
        xy, depth = np.nan_to_num(drawn.xy), np.nan_to_num(drawn.depth)
        joints = np.concatenate([(xy + 1) * (size / 2) - 0.5, depth[..., None] * (size / 2)], -1)
        start, end = (joints[:, ends] for ends in self.bones.T)  # (B, n, 3)
        thick = np.maximum(drawn.radius * size / 2, 0.5)
        along = (end - start)[..., :2]
        onward = along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
        end[..., :2] += onward * ((drawn.reach - 1) * thick)[..., None]  # a round end adds 1
        taper = rng.lognormal(0, 0.12, thick.shape)
        radius = np.stack([thick * taper, thick / taper], -1)
        bone = list(range(len(self.bones)))
        for a, b in self.skeleton.connections.get("tight", ()):  # those that fill a trunk, in its colour
            touching = [n for n, ends in enumerate(self.bones) if a in ends or b in ends]
            if touching:
                filling = 0.8 * thick[:, touching].min(1)
                start, end = np.append(start, joints[:, [a]], 1), np.append(end, joints[:, [b]], 1)
                radius = np.append(radius, np.stack([filling, filling], -1)[:, None], 1)
                bone.append(min(touching))
        return Capsules(start, end, radius, np.array(bone))


def seen_mirrored(poses: np.ndarray, skeleton: Skeleton) -> bool:
    """Whether mirror images of poses (N, K, 2 or 3) are seen too.

    They are where the subject turns round, and where the poses' mirror images are like some of them, as those of faces
    are. Those of a mouse that always runs to the right are not: head and tail would be exchanged.
    """
    if max(skeleton.turn_degrees[1:]) > 90 or len(poses) < MIRRORED_LEAST:
        return True
    some = poses[:: max(1, len(poses) // 200)]
    some = np.nan_to_num(some - np.nanmean(some, 1, keepdims=True))
    other = some[:, skeleton.flip_index] * np.where(np.arange(some.shape[2]) == 0, -1, 1)
    apart, mirrored = (cdist(each.reshape(len(some), -1), some.reshape(len(some), -1)) for each in (some, other))
    np.fill_diagonal(apart, np.inf)
    np.fill_diagonal(mirrored, np.inf)
    return bool(np.median(mirrored.min(1)) < MIRRORED_LIKE * np.median(apart.min(1)))


def follows(reader: StoreReader) -> bool:
    """Whether a store's crops follow their subjects; those of `ingest --masks none` may be whole frames."""
    return any(np.ptp(reader.boxes(clip.id), axis=0).max() > 0 for clip in reader.clips() if clip.num_frames)


def pick_poses(poses: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """The first `count` poses in a random order that is the same for the same seed; None takes all."""
    if count is None or count >= len(poses):
        return poses
    return poses[np.random.default_rng(seed).permutation(len(poses))[:count]]
