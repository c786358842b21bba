"""What `methods/disentangle.py` trains on: which frames have a known pose, and the poses that belong to no picture."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError, TrainingError
from streampose.geometry.crop import square_box
from streampose.geometry.project import camera_from_world
from streampose.methods.mask_data import Frames
from streampose.methods.supervision import Labelled
from streampose.store.priors import read_prior
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.synthetic.truth import read_truth

LEAST_OVERLAP = 0.2  # of the box of a frame and that of a subject whose pose is known
LONGEST_SECONDS = 0.02  # between a frame and the moment whose pose is known


@dataclass(frozen=True)
class Known:
    """What is known about N frames.

    Attributes:
        pose: (N, K, 3) float32 metres about the root in the camera's frame; NaN where unknown.
        xy: (N, K, 2) float32 in [-1, 1] over the crop; NaN where unknown.
    """

    pose: np.ndarray
    xy: np.ndarray

    @property
    def paired(self) -> np.ndarray:
        """Numbers of the frames with a 3D pose: Algorithm 1's D^sup."""
        return np.flatnonzero(self._posed)

    @property
    def labelled(self) -> np.ndarray:
        """Numbers of the frames of which only 2D joints are known."""
        return np.flatnonzero(~self._posed & np.isfinite(self.xy).all(2).any(1))

    @property
    def _posed(self) -> np.ndarray:
        return np.isfinite(self.pose).all(2).any(1)


def nothing_known(count: int, joints: int) -> Known:
    return Known(np.full((count, joints, 3), np.nan, np.float32), np.full((count, joints, 2), np.nan, np.float32))


def read_pairs(reader: StoreReader, frames: Frames, skeleton: Skeleton, folder: Path) -> Known:
    """The poses of a store's frames from the truth files in a folder.

    Each clip is matched with the true subject whose box it overlaps most, joints by name, frames by their time. Frames
    that show nobody who is known there have no pose.

    Raises:
        TrainingError: none of the store's videos has a file there, or no frame shows a subject that is in it.
        ConfigError: a damaged file, or one without the skeleton's root.
    """
    files = {path.name.removesuffix(".truth.npz"): path for path in sorted(Path(folder).rglob("*.truth.npz"))}
    known = nothing_known(len(frames), skeleton.num_joints)
    for number, clip in enumerate(reader.clips()):
        rows = np.flatnonzero(frames.clip == number)
        path = files.get(Path(clip.source).stem)
        if path is None or not len(rows):
            continue
        truth = read_truth(path)
        if skeleton.joints[skeleton.root] not in truth.joints:
            raise ConfigError(f"{path}: has no {skeleton.joints[skeleton.root]}, which poses are relative to")
        at = np.abs(truth.pts_seconds[None] - frames.seconds[rows, None]).argmin(1)
        near = np.abs(truth.pts_seconds[at] - frames.seconds[rows]) <= LONGEST_SECONDS
        overlap = np.nan_to_num(box_overlap(square_box(truth.boxes[at]), frames.boxes[rows, None]))  # (n, subjects)
        subject = overlap.argmax(1)
        near &= overlap.max(1) >= LEAST_OVERLAP
        at, subject, rows = at[near], subject[near], rows[near]
        ours = [k for k, name in enumerate(skeleton.joints) if name in truth.joints]
        theirs = [truth.joints.tolist().index(skeleton.joints[k]) for k in ours]
        pose = camera_from_world(truth.joints_3d[at, subject], truth.R[at], truth.t[at])[:, theirs]
        root = ours.index(skeleton.root)
        known.pose[np.ix_(rows, ours)] = pose - pose[:, root : root + 1]
        known.xy[np.ix_(rows, ours)] = to_crop(truth.joints_2d[at, subject][:, theirs], frames.boxes[rows])
    if not len(known.paired):
        names = ", ".join(sorted({Path(clip.source).stem for clip in reader.clips()})[:4])
        raise TrainingError(
            f"{folder}: no pose of a frame of the store in it; there must be <video>.truth.npz for some of {names}"
        )
    return known


def add_labelled(frames: Frames, known: Known, labelled: Labelled) -> tuple[Frames, Known]:
    """The frames and what is known about them, and after them those of which only 2D labels are known."""
    parts = [getattr(labelled.frames, field.name) for field in fields(Frames)]
    parts[list(Frames.__dataclass_fields__).index("clip")] = labelled.frames.clip + frames.clip.max() + 1
    joined = [np.concatenate([getattr(frames, f.name), part]) for f, part in zip(fields(Frames), parts, strict=True)]
    xy = np.where(labelled.weight[..., None] > 0, labelled.joints, np.nan)
    pose = np.full((*xy.shape[:2], 3), np.nan, np.float32)
    return Frames(*joined), Known(np.concatenate([known.pose, pose]), np.concatenate([known.xy, xy]))


def keep_share(known: Known, share: float, seed: int) -> Known:
    """Forget the poses and points of all but a random part of the pairs; at least two are kept."""
    paired = known.paired
    count = max(2, round(share * len(paired)))
    if count >= len(paired):
        return known
    forgotten = np.random.default_rng((seed, 7)).permutation(paired)[count:]
    pose, xy = known.pose.copy(), known.xy.copy()
    pose[forgotten], xy[forgotten] = np.nan, np.nan
    return Known(pose, xy)


def box_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over the smaller of two boxes: (..., 4) twice -> (...)."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clip(0).prod(-1) for box in (a, b)]
    return shared / np.maximum(np.minimum(*areas), 1e-9)


def to_crop(xy: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Points in source pixels as crop coordinates in [-1, 1]: (N, K, 2), (N, 4) -> (N, K, 2)."""
    corner, side = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
    return ((xy + 0.5 - corner) / side * 2 - 1).astype(np.float32)


def read_targets(reader: StoreReader, skeleton: Skeleton, prior: str, most: int, seed: int) -> np.ndarray:
    """Unpaired poses (M, K, 3) in metres about the root, y down, NaN where a joint is unknown.

    Args:
        prior: the name of one in the store, `built-in`, or `none`.
        most: so many at most, picked at random.

    Raises:
        ConfigError, StoreError: no such prior, a 2D one, or one without the skeleton's root.
    """
    if prior == "none" or most == 0:
        return np.zeros((0, skeleton.num_joints, 3), np.float32)
    if prior == "built-in":
        from streampose.synthetic.built_in_prior import built_in_prior

        found = built_in_prior(skeleton, count=most, seed=seed)
    else:
        found = read_prior(reader.path, prior)
    if found.dimensions != 3:
        raise ConfigError(f"prior {prior}: its poses are 2D; import one of 3D poses, or use prior=built-in")
    poses = found.for_skeleton(skeleton).poses
    known = np.isfinite(poses).all(2)
    poses = poses[known[:, skeleton.root] & (known.sum(1) >= 3)]
    if not len(poses):
        raise ConfigError(f"prior {prior}: no pose with a {skeleton.joints[skeleton.root]}; use another prior")
    if len(poses) > most:
        poses = poses[np.sort(np.random.default_rng((seed, 11)).permutation(len(poses))[:most])]
    logger.info("prior %s: %d unpaired poses", prior, len(poses))
    return (poses - poses[:, skeleton.root : skeleton.root + 1]).astype(np.float32)


def turn_poses(poses: np.ndarray, degrees: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Poses seen from anywhere: turned about y, then x, then z by up to so many degrees (x, y, z): (B, K, 3)."""
    x, y, z = (np.radians(limit) * rng.uniform(-1, 1, len(poses)) for limit in degrees)
    turned = poses
    for axis, angle in ((1, y), (0, x), (2, z)):
        c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = [n for n in range(3) if n != axis]
        columns = [turned[..., n] for n in range(3)]
        columns[a], columns[b] = c * turned[..., a] - s * turned[..., b], s * turned[..., a] + c * turned[..., b]
        turned = np.stack(columns, -1)
    return turned.astype(np.float32)


def mirror_poses(poses: np.ndarray, which: np.ndarray, flip_index: list[int]) -> np.ndarray:
    """Some of the poses (B, K, 3), (B,) bool, as a mirror shows them, left and right exchanged."""
    mirrored = poses[:, flip_index] * np.array([-1, 1, 1], np.float32)
    return np.where(which[:, None, None], mirrored, poses)


def plain_frames(crops: np.ndarray, masks: np.ndarray, boxes: np.ndarray, clip: np.ndarray) -> Frames:
    """Frames without what other methods derive from masks, for data that are at hand."""
    N = len(crops)
    return Frames(crops, masks, boxes, clip, np.zeros(N), np.ones((N, 1, 1), np.float16), np.full(N, 1.0, np.float32))
