"""Draw a subject's mask at the resolution of its crop, from the coarse mask of the small picture."""

from __future__ import annotations

import cv2
import numpy as np

from streampose.geometry.crop import crop_resize
from streampose.masks.background import Background, difference_score, fill_holes, is_shadow

EDGE = 0.42


def refine_mask(
    crop: np.ndarray, scene: Background, scene_box: np.ndarray, coarse: np.ndarray, others: np.ndarray | None = None
) -> np.ndarray:
    """Compare the crop with the empty scene near the coarse mask.

    Args:
        crop: (S, S, 3) uint8 RGB.
        scene: the empty scene of the whole picture, at any size.
        scene_box: (4,) the crop's square in the scene's pixels.
        coarse: (S, S) uint8, the subject's own mask enlarged.
        others: (S, S) uint8, what belongs to somebody else.

    Returns:
        (S, S) uint8, 255 where the subject is.
    """
    S = crop.shape[0]
    # compare at the scene's own resolution: an enlarged scene has lost its texture and differs everywhere
    side = int(np.clip(round(float(scene_box[2] - scene_box[0])), 16, S))
    empty = crop_resize(scene.image, scene_box, side)
    noise = crop_resize(scene.noise, scene_box, side)
    now: np.ndarray = crop
    if side != S:
        now = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
    rough = coarse if side == S else cv2.resize(coarse, (side, side), interpolation=cv2.INTER_AREA)
    near = cv2.dilate(rough, _disk(0.05 * side)) > 127
    now = _match_brightness(now, empty, ~near)
    score = difference_score(now, Background(empty, noise))
    smooth = cv2.GaussianBlur(score, (3, 3), 0.8)
    beside = cv2.dilate(np.minimum(score, 8.0), np.ones((5, 5), np.uint8))
    likely = smooth > np.maximum(0.85, EDGE * beside)  # the outline lies where the difference falls to about half
    likely &= near
    likely &= ~is_shadow(now, empty, score, likely, scene.grey)
    mask = (likely | (cv2.erode(rough, _disk(0.04 * side)) > 127)).astype(np.uint8) * 255
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disk(0.02 * side)).astype(np.uint8)
    if side != S:
        mask = (cv2.resize(mask, (S, S), interpolation=cv2.INTER_LINEAR) > 127).astype(np.uint8) * 255
    if others is not None:
        mask[(others > 127) & (coarse <= 127)] = 0
    return fill_holes(_keep_touching(cv2.medianBlur(mask, 3), coarse), 0.004 * S * S)


def _keep_touching(mask: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Parts of a mask that overlap the coarse one and are no crumbs."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_16U)
    touched = np.bincount(labels[coarse > 127], minlength=count)
    areas = statistics[:, cv2.CC_STAT_AREA]
    keep = (touched > 0.3 * areas) & (areas >= 0.0008 * mask.size)
    keep[0] = False
    return keep[labels].astype(np.uint8) * 255


def _match_brightness(image: np.ndarray, empty: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Take the difference in brightness around the subject out of the crop."""
    if np.count_nonzero(outside) < 0.15 * outside.size:
        return image
    sparse = np.s_[::4, ::4]
    some = outside[sparse]
    shift = np.median(image[sparse][some].astype(np.int16) - empty[sparse][some], 0)
    largest = np.abs(shift).max()
    if largest < 2 or largest > 40:
        return image
    return np.clip(image - shift, 0, 255).astype(np.uint8)


def _disk(radius: float) -> np.ndarray:
    size = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
