"""Unpaired poses for `methods/landmarks.py`: drawn at random, seen by random cameras, framed as the store frames crops.

Also figures painted of them: capsules of the skeleton file's thickness in random colours, near limbs over far ones.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from streampose.console import logger
from streampose.errors import ConfigError, TrainingError
from streampose.geometry.project_prior import random_views
from streampose.methods.mask_prior import facing_sign, random_figures, turns_every_way
from streampose.store.priors import Prior, list_priors, read_prior
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.synthetic.built_in_prior import NAME as BUILT_IN
from streampose.synthetic.built_in_prior import built_in_prior

BUILT_IN_POSES = 4096
MARGIN = 0.1  # kept free around the subject, as `tracking.boxes` does
SHIFT = 4  # binary places of the pixel positions that cv2 draws at


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
    """B poses: xy (B, K, 2) in [-1, 1] over the crop, depth (B, K) forward, half thickness of the bones (B, N)."""

    xy: np.ndarray
    depth: np.ndarray
    radius: np.ndarray


class Poses:
    """Unpaired poses of a skeleton, and how they are drawn at random.

    Args:
        poses: (N, K, 2 or 3), y down, NaN where missing; as `store.priors.Prior.poses`.
        facing: name the sides of subjects that turn every way as if they faced the camera: a picture of sticks is the
            same from before and behind.

    Attributes:
        bones: (n, 2) those of the skeleton's bones that most poses know.
        number: (n,) their places in the skeleton.
    """

    def __init__(self, poses: np.ndarray, skeleton: Skeleton, *, facing: bool = True):
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
        self.radius = np.array([bone.radius for bone in skeleton.bones])[self.number]
        self.reach = np.array([bone.reach for bone in skeleton.bones])[self.number]
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
        mirrored = rng.random(count) < 0.5
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
        build = rng.lognormal(0, 0.15, (count, 1)) * height[:, None]
        radius = self.radius * build * rng.lognormal(0, 0.1, (count, len(self.radius)))  # (B, n)
        if self.facing:
            away_side = facing_sign(self.skeleton, np.nan_to_num(xy)) < 0
            flip = self.skeleton.flip_index
            xy[away_side], depth[away_side] = xy[away_side][:, flip], depth[away_side][:, flip]
        flesh = np.zeros(xy.shape[:2])
        for n, (parent, child) in enumerate(self.bones):
            flesh[:, parent] = np.maximum(flesh[:, parent], 0.8 * radius[:, n])
            flesh[:, child] = np.maximum(flesh[:, child], self.reach[n] * radius[:, n])
        low, high = np.nanmin(xy - flesh[..., None], 1), np.nanmax(xy + flesh[..., None], 1)
        side = (high - low).max(-1) * (1 + 2 * MARGIN) * rng.lognormal(0.0, 0.06, count)
        centre = (low + high) / 2 + rng.normal(0, 0.02, (count, 2)) * side[:, None]
        scale = (2 / side)[:, None]
        xy = (xy - centre[:, None]) * scale[..., None]
        return Drawn(xy.astype(np.float32), depth * scale, radius * scale)

    def _turned(self, poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """3D poses turned as far as the skeleton says that its subject turns: (B, K, 3) -> (B, K, 3)."""
        degrees = rng.uniform(-1, 1, (len(poses), 3)) * self.skeleton.turn_degrees
        turns = Rotation.from_euler("yxz", degrees[:, [1, 0, 2]], degrees=True).as_matrix()
        return poses @ np.swapaxes(turns, -1, -2)

    def paint(self, drawn: Drawn, backgrounds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Paint figures over pictures: (B, S, S, 3) uint8, of which new ones are returned."""
        images = np.empty_like(backgrounds)
        for b in range(len(images)):
            images[b] = self._paint_one(drawn.xy[b], drawn.depth[b], drawn.radius[b], backgrounds[b], rng)
        return images

    def _paint_one(
        self, xy: np.ndarray, depth: np.ndarray, radius: np.ndarray, background: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        size = len(background)
        canvas, inside = background.copy(), np.zeros((size, size), np.uint8)
        pixels = (np.nan_to_num(xy) + 1) * (size / 2) - 0.5
        colours = self._colours(rng)
        shade, light = rng.uniform(0.05, 0.35), rng.normal(0, 0.35, 2)
        limbs = []
        for n, (a, b) in enumerate(self.bones):
            thick, along = float(radius[n]) * size / 2, pixels[b] - pixels[a]
            beyond = (self.reach[n] - 1) * thick * along / max(float(np.hypot(*along)), 1e-6)  # a round end adds 1
            limbs.append((float(depth[[a, b]].mean() - radius[n]), pixels[a], pixels[b] + beyond, thick, colours[n]))
        limbs += self._trunk(pixels, depth, radius, colours, size)
        for _, start, end, thick, colour in sorted(limbs, key=lambda limb: -limb[0]):
            _capsule(canvas, start, end, thick, colour * (1 - shade))
            _capsule(canvas, start + light * thick, end + light * thick, 0.6 * thick, colour * (1 + shade))
            _capsule(inside, start, end, thick, np.array([255.0]))
        grain = rng.normal(1, rng.uniform(0.02, 0.15), (size // 2, size // 2)).astype(np.float32)
        textured = (canvas * cv2.resize(grain, (size, size))[..., None]).clip(0, 255).astype(np.uint8)
        painted = np.where(inside[..., None] > 0, textured, canvas)
        return cv2.GaussianBlur(painted, (0, 0), rng.uniform(0.3, 0.8)) if rng.random() < 0.7 else painted

    def _trunk(self, pixels: np.ndarray, depth: np.ndarray, radius: np.ndarray, colours: np.ndarray, size: int) -> list:
        """The skeleton's extra connections that fill a trunk (the `tight` ones of `mask`), in its colour."""
        limbs = []
        for a, b in self.skeleton.connections.get("tight", ()):
            touching = [n for n, bone in enumerate(self.bones) if a in bone or b in bone]
            if touching:
                trunk = min(touching)
                thick = 0.8 * float(radius[touching].min()) * size / 2
                limbs.append((float(depth[[a, b]].mean()), pixels[a], pixels[b], thick, colours[trunk]))
        return limbs

    def _colours(self, rng: np.random.Generator) -> np.ndarray:
        """A colour for each bone: often its parent bone's, and mostly that of the other side: (n, 3)."""
        flip = self.skeleton.flip_index
        by_child: dict[int, np.ndarray] = {}
        colours = np.zeros((len(self.bones), 3))
        for n, (parent, child) in enumerate(self.bones):
            if flip[child] in by_child and rng.random() < 0.9:
                colour = by_child[flip[child]]
            elif parent in by_child and rng.random() < 0.6:
                colour = by_child[parent]
            else:
                colour = rng.uniform(10, 245) + rng.normal(0, 50, 3)
            colours[n] = by_child[child] = colour.clip(5, 250)
        return colours


def _capsule(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, thick: float, colour: np.ndarray) -> None:
    """A thick line with round ends, in place; positions and thickness in pixels."""
    ends = [tuple(int(v) for v in np.round(point * 2**SHIFT)) for point in (start, end)]
    cv2.line(
        canvas, ends[0], ends[1], colour.clip(0, 255).tolist(), max(1, round(2 * float(thick))), cv2.LINE_AA, SHIFT
    )


def pick_poses(poses: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """The first `count` poses in a random order that is the same for the same seed; None takes all."""
    if count is None or count >= len(poses):
        return poses
    return poses[np.random.default_rng(seed).permutation(len(poses))[:count]]
