"""What VAE_y of `methods/disentangle.py` is of: 3D poses or sketches. Each kind makes its networks, takes its part of a
batch, draws unpaired samples and says how far a reconstruction is off; the method itself is the same."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from torch import Tensor, nn

from streampose.losses.latent import image_error, pose_error
from streampose.methods.disentangle_data import Known, mirror_poses, turn_poses
from streampose.methods.mask_data import Frames
from streampose.models.disentangle import (
    PRESETS,
    UNIT_METRES,
    ImageEncoder,
    PoseEncoder,
    Translator,
    build_pose_translator,
    build_sketch_translator,
)
from streampose.structures import Skeleton

STROKE_REACH = 0.06  # of the side of a sketch: distance from a stroke at which its distance image has fallen to 0


class PoseTarget:
    """3D joints (B, K, 3) in metres about the root, NaN where unknown.

    Args:
        poses: (M, K, 3) unpaired ones, in any direction.
    """

    def __init__(self, skeleton: Skeleton, known: Known, poses: np.ndarray):
        self.skeleton, self.known, self.poses = skeleton, known, poses
        self.paired, self.count = known.paired, len(poses)

    def networks(self, preset: str, input_size: int) -> tuple[Translator, nn.Module]:
        """The translator with the decoder of VAE_y, and the encoder of VAE_y."""
        K = self.skeleton.num_joints
        return build_pose_translator(preset, K, input_size), PoseEncoder(PRESETS[preset], K)

    def of_views(self, index: np.ndarray, views: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Poses and points of augmented views of frames: {"y": (B, K, 3), "xy": (B, K, 2)}."""
        linear = views["matrix"][:, :, :2]
        scale = np.sqrt(np.abs(np.linalg.det(linear)))[:, None, None]
        flip, swap = self.skeleton.flip_index, views["flipped"][:, None, None]
        pose = self.known.pose[index].copy()
        pose[..., :2] = np.einsum("bij,bkj->bki", linear / scale, pose[..., :2])
        xy = np.einsum("bij,bkj->bki", linear, self.known.xy[index]) + views["matrix"][:, None, :, 2]
        return {
            "y": np.where(swap, pose[:, flip], pose).astype(np.float32),
            "xy": np.where(swap, xy[:, flip], xy).astype(np.float32),
        }

    def unpaired(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Random poses, turned and mirrored as cameras may see them."""
        poses = self.poses[rng.integers(0, self.count, count)]
        mirrored = mirror_poses(poses, rng.random(count) < 0.5, self.skeleton.flip_index)
        return turn_poses(mirrored, self.skeleton.turn_degrees, rng)

    def error(self, predicted: Tensor, y: Tensor) -> Tensor:
        """Mean squared distance of the known joints in (25 cm)^2: (B,)."""
        return pose_error(predicted, y) / UNIT_METRES**2


class SketchTarget:
    """Monochrome pictures (B, 1, S, S) in [0, 1]: distance images of sketches that are drawn from crops and masks.

    Args:
        unpaired: numbers of the frames whose sketch is known and whose picture is not.
    """

    def __init__(self, frames: Frames, unpaired: np.ndarray, image_weight: float):
        self.frames, self.of, self.image_weight = frames, unpaired, image_weight
        self.paired, self.count = np.setdiff1d(np.arange(len(frames)), unpaired), len(unpaired)

    def networks(self, preset: str, input_size: int) -> tuple[Translator, nn.Module]:
        return build_sketch_translator(preset, input_size), ImageEncoder(PRESETS[preset])

    def of_views(self, index: np.ndarray, views: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": draw_sketches(views["images"], views["masks"])}

    def unpaired(self, count: int, rng: np.random.Generator) -> np.ndarray:
        index = self.of[rng.integers(0, self.count, count)]
        sketches = draw_sketches(self.frames.crops[index], self.frames.masks[index])
        return np.where(rng.random(count)[:, None, None, None] < 0.5, sketches, sketches[..., ::-1]).copy()

    def error(self, predicted: Tensor, y: Tensor) -> Tensor:
        return self.image_weight * image_error(predicted, y)


Target = PoseTarget | SketchTarget


def draw_sketches(crops: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Distance images of the sketches of crops (B, S, S, 3), (B, S, S) uint8: (B, 1, S, S) float32, 1 on strokes."""
    return np.stack([distance_image(draw_sketch(c, m)) for c, m in zip(crops, masks, strict=True)])[:, None]


def draw_sketch(crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Strokes along the outline of a subject and where the colours of its parts meet: (S, S) uint8, 255 on strokes."""
    size = len(mask)
    inside = (mask > 127).astype(np.uint8)
    strokes = np.zeros((size, size), np.uint8)
    outlines: Any = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(strokes, outlines, -1, 255, 1)
    flat = cv2.bilateralFilter(crop, 5, 40, 3)
    edges = cv2.Canny(flat, 60, 140, L2gradient=True)
    return np.maximum(strokes, edges * cv2.erode(inside, np.ones((5, 5), np.uint8)))


def distance_image(strokes: np.ndarray) -> np.ndarray:
    """1 on strokes, falling to 0 at a small distance: (S, S) uint8 -> (S, S) float32. A loss then sees near misses.

    Source: Borgefors, Distance transformations in digital images, 1986; as the paper prepares its sketches.
    """
    if not strokes.any():
        return np.zeros(strokes.shape, np.float32)
    distance = cv2.distanceTransform(255 - strokes, cv2.DIST_L2, 3)
    return np.clip(1 - distance / (STROKE_REACH * len(strokes)), 0, 1).astype(np.float32)
