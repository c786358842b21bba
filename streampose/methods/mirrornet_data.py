"""What `methods/mirrornet.py` trains on: a store's crops, masks and labels in memory, and augmented views of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import TrainingError
from streampose.geometry.project_prior import fit_to_crop, project_randomly
from streampose.methods.mask_data import Augmentation, disturb, pixel_matrix, resize_images
from streampose.methods.mirrornet_config import MirrorAugmentation
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton


@dataclass(frozen=True)
class Pictures:
    """N frames of the clips of a store at training resolution.

    Attributes:
        crops: (N, S, S, 3) uint8 RGB.
        masks: (N, S, S) uint8, 255 where the subject is.
        joints: (N, K, 2) in [-1, 1], NaN where a joint is not labelled.
    """

    crops: np.ndarray
    masks: np.ndarray
    joints: np.ndarray

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def annotated(self) -> np.ndarray:
        """(n,) places of the frames of which any joint is labelled."""
        return np.flatnonzero(np.isfinite(self.joints).all(-1).any(1))

    def keep_share(self, share: float, seed: int) -> Pictures:
        """With the labels of a random part of the labelled frames only; a larger part holds the smaller ones."""
        rows = np.random.default_rng(seed).permutation(self.annotated)
        joints = self.joints.copy()
        joints[rows[max(1, round(share * len(rows))) :]] = np.nan
        return Pictures(self.crops, self.masks, joints)


def read_pictures(
    reader: StoreReader, skeleton: Skeleton, names: Sequence[str] | None, size: int, megabytes: float
) -> Pictures:
    """Read all clips, with their labels; of a store that is too large, every n-th frame and all that are labelled.

    Raises:
        TrainingError: there are no labels, or none of the skeleton's joints.
        StoreError: no set of labels of that name.
    """
    labels = reader.labels(names).for_skeleton(skeleton)
    labels = labels.merged() if len(labels) else labels
    rows: dict[str, dict[int, int]] = {}
    for row, (clip, frame) in enumerate(zip(labels.clip.tolist(), labels.frame.tolist(), strict=True)):
        if (labels.visibility[row] > 0).any():
            rows.setdefault(clip, {})[frame] = row
    if not rows:
        what = f"labels, but none of {', '.join(skeleton.joints[:4])}..." if len(labels) else "no labels"
        raise TrainingError(
            f"{reader.name}: {what}; mirrornet needs some: bring them in by `streampose labels import`, "
            "or train without labels by another --method"
        )
    clips = reader.clips()
    total = sum(clip.num_frames for clip in clips)
    stride = max(1, int(np.ceil(total * size * size * 4 / (megabytes * 2**20))))
    if stride > 1:
        logger.info("training on every %d-th of %d frames, to stay within %.0f MB", stride, total, megabytes)
    crops, masks, joints = [], [], []
    for clip in clips:
        labelled = rows.get(clip.id, {})
        chosen = np.union1d(np.arange(0, clip.num_frames, stride), [n for n in labelled if n < clip.num_frames])
        chosen = chosen.astype(int)
        data = reader.read(clip.id, chosen)
        points = np.full((len(chosen), skeleton.num_joints, 2), np.nan, np.float32)
        for place, frame in enumerate(chosen.tolist()):
            if frame in labelled:
                points[place] = (labels.keypoints[labelled[frame]] + 0.5) * 2 / data.frames.shape[1] - 1
        crops.append(resize_images(data.frames, size))
        masks.append(resize_images(data.masks, size))
        joints.append(points)
    pictures = Pictures(*(np.concatenate(parts) for parts in (crops, masks, joints)))
    if not len(pictures.annotated):
        raise TrainingError(f"{reader.name}: every label is on a frame that is held out; label more frames")
    return pictures


def draw_rows(rows: np.ndarray, step: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """The rows of a step, such that every epoch shows all of them once, in an order of its own: (count,)."""
    places = np.arange(step * count, (step + 1) * count)
    orders = {
        epoch: np.random.default_rng((*seed, epoch)).permutation(rows)
        for epoch in np.unique(places // len(rows)).tolist()
    }
    return np.array([orders[place // len(rows)][place % len(rows)] for place in places.tolist()], int)


def random_views(
    pictures: Pictures,
    index: np.ndarray,
    rng: np.random.Generator,
    how: MirrorAugmentation,
    flip_index: list[int],
    mask_size: int,
) -> dict[str, np.ndarray]:
    """Augmented views of frames.

    Returns:
        images (B, S, S, 3) uint8, masks (B, mask_size, mask_size) uint8, joints (B, K, 2) float32 in [-1, 1] of the
        view, known (B, K) bool: the joints that are labelled and in the picture.
    """
    B, S = len(index), pictures.crops.shape[1]
    disturbance = Augmentation(0, 0, 0, 0, how.colour, 0, how.cutout, 0)
    images, masks = np.empty((B, S, S, 3), np.uint8), np.empty((B, S, S), np.uint8)
    joints = np.empty((B, *pictures.joints.shape[1:]), np.float32)
    for b, i in enumerate(index):
        matrix, flipped = _random_matrix(rng, how)
        to_pixels = pixel_matrix(matrix, S)
        images[b] = cv2.warpAffine(
            pictures.crops[i], to_pixels, (S, S), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        masks[b] = cv2.warpAffine(pictures.masks[i], to_pixels, (S, S), flags=cv2.INTER_LINEAR)
        disturb(images[b], rng, disturbance)
        points = pictures.joints[i] @ matrix[:, :2].T + matrix[:, 2]
        joints[b] = points[flip_index] if flipped else points
    known = np.isfinite(joints).all(-1) & (np.abs(np.nan_to_num(joints)) < 1).all(-1)
    joints = np.where(known[..., None], joints, 0).astype(np.float32)
    return {"images": images, "masks": resize_images(masks, mask_size), "joints": joints, "known": known}


def unpaired_views(
    poses: np.ndarray, count: int, rng: np.random.Generator, how: MirrorAugmentation
) -> dict[str, np.ndarray]:
    """Poses of a prior, as random cameras see them and crops show them.

    Args:
        poses: (N, K, 2 or 3), y down, NaN where missing.

    Returns:
        unpaired (count, K, 2) float32 in [-1, 1], unpaired_known (count, K) bool.
    """
    drawn = poses[rng.integers(0, len(poses), count)]
    if drawn.shape[-1] == 3:
        xy = project_randomly(drawn, rng, roll_degrees=how.rotation_degrees / 3**0.5)
    else:
        xy = fit_to_crop(drawn, rng)
    known = np.isfinite(xy).all(-1) & (np.abs(np.nan_to_num(xy)) < 1).all(-1)
    return {"unpaired": np.where(known[..., None], xy, 0).astype(np.float32), "unpaired_known": known}


def _random_matrix(rng: np.random.Generator, how: MirrorAugmentation) -> tuple[np.ndarray, bool]:
    """A map of crop coordinates to those of a view, (2, 3), and whether it mirrors."""
    angle = np.radians(how.rotation_degrees) * rng.uniform(-1, 1)
    scale = np.exp(np.log1p(how.scale) * rng.uniform(-1, 1))
    shift = how.shift * rng.uniform(-1, 1, 2)
    flipped = bool(rng.random() < how.flip)
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    mirror = -1 if flipped else 1
    return np.array([[cosine * mirror, -sine, shift[0]], [sine * mirror, cosine, shift[1]]]), flipped
