"""How far 2D keypoints are from the truth, relative to the subject or to the image.

All functions return one value a sample and joint, (N, K), NaN where the truth is missing or not visible, so that means
over joints, over samples, and the better of two (`metrics.flips`) can be taken from them with `np.nanmean`. A joint
that the truth knows and the prediction lacks (NaN) is a miss in PCK, and left out of the mean distances.
"""

from __future__ import annotations

import numpy as np


def distances(predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray | None = None) -> np.ndarray:
    """Euclidean distance of each joint.

    Args:
        predicted, truth: (N, K, D) in the same unit.
        visible: (N, K), True where the truth counts; None counts all of it. In COCO's terms visibility 1 (occluded)
            and 2 count, 0 does not.

    Returns:
        (N, K) in that unit.
    """
    N, K, _ = truth.shape
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted is {predicted.shape}, truth {truth.shape}; they must be alike")
    found = np.linalg.norm(np.asarray(predicted, float) - np.asarray(truth, float), axis=-1)
    return found if visible is None else np.where(np.asarray(visible, bool).reshape(N, K), found, np.nan)


def pck(
    predicted: np.ndarray,
    truth: np.ndarray,
    size: np.ndarray,
    threshold: float,
    visible: np.ndarray | None = None,
) -> np.ndarray:
    """Percentage of correct keypoints, as 1 (within `threshold` sizes of the truth) and 0.

    `pck@0.2` is of the torso, `segment_size(truth, skeleton.torso)`; `pckh@0.5` of the head: `head_size_of_boxes` where
    the truth has head boxes, else the length of the head segment, `segment_size(truth, skeleton.head)`.

    Args:
        predicted, truth: (N, K, 2) pixels.
        size: (N,) pixels; a sample where it is NaN or zero is left out.

    Returns:
        (N, K) of 0, 1 and NaN.

    Source: Yang & Ramanan, Articulated human detection with flexible mixtures of parts, PAMI 2013, with the torso of
    Sapp & Taskar, MODEC, CVPR 2013; Andriluka et al., 2D human pose estimation: new benchmark, CVPR 2014 (the head).
    """
    limit = threshold * np.where(np.asarray(size) > 0, size, np.nan)[:, None]
    known = np.isfinite(truth).all(-1) & np.isfinite(limit)
    if visible is not None:
        known &= np.asarray(visible, bool)
    return np.where(known, distances(predicted, truth) <= limit, np.nan)


def mse_percent(
    predicted: np.ndarray, truth: np.ndarray, image_size: np.ndarray | float, visible: np.ndarray | None = None
) -> np.ndarray:
    """Distance in percent of the image's side: `mse_percent`.

    The literature calls it "%-MSE"; it is a mean distance, not a squared one.

    Args:
        predicted, truth: (N, K, 2) pixels.
        image_size: the crop's side in those pixels, a number or (N,).

    Source: Zhang et al., Unsupervised discovery of object landmarks, CVPR 2018; Jakab et al. (`landmarks`), Table 2.
    """
    return 100 * distances(predicted, truth, visible) / np.reshape(np.asarray(image_size, float), (-1, 1))


def segment_size(points: np.ndarray, joints: tuple[int, int]) -> np.ndarray:
    """Distance between two joints, for instance of the torso: (N, K, D) -> (N,)."""
    a, b = joints
    return np.linalg.norm(points[:, a] - points[:, b], axis=-1)


def head_size_of_boxes(boxes: np.ndarray) -> np.ndarray:
    """The head size that PCKh divides by: 0.6 x the diagonal of the head's box, (N, 4) xyxy -> (N,)."""
    return 0.6 * np.hypot(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
