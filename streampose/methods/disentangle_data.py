"""What `methods/disentangle.py` trains on: which frames have a known pose, and the poses that belong to no picture."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError
from streampose.methods.mask_data import Frames
from streampose.methods.supervision import Labelled
from streampose.store.priors import read_prior
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton


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
