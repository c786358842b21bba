"""Labels of a store beside what a method learns without them: a few labelled frames in every batch.

Any method takes labels by three lines: `read_labelled` in its `make_task`, `labelled_batch` in its `batch`, and
`supervised_term` (of `losses/supervised.py`) in its `loss`; its settings hold a `SupervisionConfig` as `supervision`.
Methods that make pseudo-labels also put the labels in their place (`pin`), from which they spread along the clips: a
person who labels one frame says which side is left in the frames around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from streampose.console import logger
from streampose.errors import TrainingError
from streampose.losses.supervised import mean_of_placed, supervised
from streampose.methods.mask_affine import to_view
from streampose.methods.mask_config import SupervisionConfig
from streampose.methods.mask_data import Augmentation, Frames, make_frames, random_views, resize_images
from streampose.methods.mask_labels import Labels
from streampose.models.detector import DetectorOutput
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton

NAMED_SECONDS = 1.0  # so far around a label are left and right taken to be known


@dataclass(frozen=True)
class Labelled:
    """N labelled frames, one row a frame however many people labelled it.

    Attributes:
        frames: as the method's own, at training resolution.
        joints: (N, K, 2) in [-1, 1]; NaN where a joint was not placed.
        weight: (N, K) 1 for visible joints, less for hidden ones, 0 where not placed.
        clip: (N,) names of the clips.
    """

    frames: Frames
    joints: np.ndarray
    weight: np.ndarray
    clip: np.ndarray

    def __len__(self) -> int:
        return len(self.joints)


def read_labelled(reader: StoreReader, skeleton: Skeleton, config: SupervisionConfig, size: int) -> Labelled | None:
    """Read the labelled frames of a store, of those that the reader gives; None where no labels are asked for.

    Raises:
        StoreError: no such set of labels.
        TrainingError: none of the labels can be used.
    """
    if not config.labels:
        return None
    if config.version and reader.labels_version(config.labels) != config.version:
        logger.warning(
            "labels %s have changed since this run began; it goes on with what they hold now", ", ".join(config.labels)
        )
    labels = reader.labels(config.labels).for_skeleton(skeleton).merged()
    labels = labels.pick(np.flatnonzero((labels.visibility > 0).any(1)))
    if not len(labels):
        raise TrainingError(
            f"{reader.name}: labels {', '.join(config.labels)} place no joint of skeleton {skeleton.name} in a frame "
            "that is trained on; `streampose labels list` says which joints they have"
        )
    names = sorted(set(labels.clip.tolist()))
    data = reader.read_many(list(zip(labels.clip.tolist(), labels.frame.tolist(), strict=True)))
    clip = np.array([names.index(name) for name in labels.clip])
    frames = make_frames(
        resize_images(data.frames, size), resize_images(data.masks, size), data.boxes, clip, data.pts_seconds
    )
    joints = (labels.keypoints + 0.5) * (2 / reader.crop_size) - 1
    weight = np.choose(labels.visibility, [0.0, config.hidden, 1.0]).astype(np.float32)
    logger.info(
        "%d labelled frames of %d clips, %d joints placed", len(labels), len(names), int((labels.visibility > 0).sum())
    )
    return Labelled(frames, joints.astype(np.float32), weight, labels.clip)


def labelled_count(labelled: Labelled | None, config: SupervisionConfig, batch_size: int) -> int:
    """How many labelled frames belong into a batch."""
    return 0 if labelled is None else max(1, round(config.share * batch_size))


def labelled_batch(
    labelled: Labelled,
    skeleton: Skeleton,
    count: int,
    rng: np.random.Generator,
    how: Augmentation,
    backgrounds: Frames | None = None,
) -> dict[str, Tensor]:
    """Augmented views of random labelled frames.

    Args:
        backgrounds: frames whose surroundings the subjects are put on, now and then; None for the labelled ones.

    Returns:
        `labelled_images` (B, S, S, 3) uint8, `labelled_joints` (B, K, 2) as the views show them, NaN where not placed,
        `labelled_weight` (B, K).
    """
    index = rng.integers(0, len(labelled), count)
    views = random_views(labelled.frames, index, rng, replace(how, empty=0.0), backgrounds)
    flip, flipped = skeleton.flip_index, torch.from_numpy(views["flipped"])
    joints = torch.from_numpy(np.concatenate([labelled.joints[index], 0 * labelled.joints[index][..., :1]], -1))
    weight = torch.from_numpy(labelled.weight[index])
    return {
        "labelled_images": torch.from_numpy(views["images"]),
        "labelled_joints": to_view(joints, torch.from_numpy(views["matrix"]), flipped, flip)[..., :2],
        "labelled_weight": torch.where(flipped[:, None], weight[:, flip], weight),
    }


def supervised_term(out: DetectorOutput, batch: dict[str, Tensor]) -> Tensor:
    """The mean distance of what a detector says about a batch's labelled images to their labels."""
    target, weight = batch["labelled_joints"], batch["labelled_weight"]
    distance = supervised(out.keypoints[..., :2], target, weight, out.heatmaps)
    return mean_of_placed(distance, target, weight)


# ---------------------------------------------------------------------------------------------------- pseudo-labels


@dataclass(frozen=True)
class Pinned:
    """Which of a method's frames were labelled.

    Attributes:
        frame: (P,) frames.
        row: (P,) their rows in `Labelled`.
        named: (N,) bool: frames near enough to a label that their left and right are known.
    """

    frame: np.ndarray
    row: np.ndarray
    named: np.ndarray


def find_pinned(labelled: Labelled, frames: Frames, clips: list[str]) -> Pinned:
    """Find the labelled frames among a method's frames.

    Args:
        clips: names of the clips that `frames.clip` counts.
    """
    place = {
        (int(number), float(at)): i for i, (number, at) in enumerate(zip(frames.clip, frames.seconds, strict=True))
    }
    number = {name: n for n, name in enumerate(clips)}
    found = [
        (place[key], row)
        for row, (name, at) in enumerate(zip(labelled.clip.tolist(), labelled.frames.seconds, strict=True))
        if (key := (number.get(name, -1), float(at))) in place
    ]
    frame, row = (np.array([pair[side] for pair in found], int) for side in (0, 1))
    named = np.zeros(len(frames), bool)
    for i in frame:
        named |= (frames.clip == frames.clip[i]) & (np.abs(frames.seconds - frames.seconds[i]) <= NAMED_SECONDS)
    return Pinned(frame, row, named)


def pin(pseudo: Labels, labelled: Labelled, pinned: Pinned, flip_index: list[int]) -> Labels:
    """Put labels in the place of the pseudo-labels of their frames, sure; z, and joints not placed, stay.

    Where the pseudo-label has left and right exchanged, what stays of it is exchanged first.
    """
    keypoints, confidence = pseudo.keypoints.copy(), pseudo.confidence.copy()
    for frame, row in zip(pinned.frame, pinned.row, strict=True):
        joints, placed = labelled.joints[row], labelled.weight[row] > 0
        own = keypoints[frame]
        near, far = (
            np.minimum(np.linalg.norm(points[placed, :2] - joints[placed], axis=-1), 0.5).sum()
            for points in (own, own[flip_index])
        )
        if far < near:
            keypoints[frame] = own[flip_index] * (1, 1, -1)
            confidence[frame] = confidence[frame][flip_index]
        keypoints[frame, placed, :2] = joints[placed]
        confidence[frame, placed] = np.maximum(confidence[frame, placed], labelled.weight[row, placed])
    return Labels(keypoints, confidence)
