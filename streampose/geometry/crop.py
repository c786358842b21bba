"""Boxes, crops and the one mapping between source pixels and crop pixels.

Pixel centres are integers. A box is (x0, y0, x1, y1) in *edge* coordinates: the pixel columns 10..19 are x0 = 10,
x1 = 20. A point maps as `(xy + 0.5 - corner) * scale - 0.5`; images, principal points and soft-argmax grids follow it.
Works alike on numpy arrays and torch tensors; imports neither torch nor anything of the package.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

Array = Any  # numpy array or torch tensor


def resize_points(xy: Array, scale: float | Array) -> Array:
    """Points of an image resized by `scale`: (..., 2) -> (..., 2)."""
    return (xy + 0.5) * scale - 0.5


def crop_from_source(xy: Array, box: Array, size: int) -> Array:
    """Map points from source pixels to the pixels of a square crop.

    Args:
        xy: (..., K, 2) source pixels.
        box: (..., 4) square box, edges in source pixels.
        size: side of the crop in pixels.
    """
    scale = size / (box[..., None, 2:4] - box[..., None, 0:2])
    return (xy + 0.5 - box[..., None, 0:2]) * scale - 0.5


def source_from_crop(xy: Array, box: Array, size: int) -> Array:
    """Map points from crop pixels back to source pixels; the inverse of `crop_from_source`."""
    scale = (box[..., None, 2:4] - box[..., None, 0:2]) / size
    return (xy + 0.5) * scale - 0.5 + box[..., None, 0:2]


def square_box(box: np.ndarray, padding: float = 0.0) -> np.ndarray:
    """The square around the centre of a box whose side is its longer side times (1 + 2 * padding): (..., 4)."""
    box = np.asarray(box, np.float32)
    centre = (box[..., 0:2] + box[..., 2:4]) / 2
    half = (box[..., 2:4] - box[..., 0:2]).max(-1, keepdims=True) * (0.5 + padding)
    return np.concatenate([centre - half, centre + half], -1)


def crop_resize(image: np.ndarray, box: np.ndarray, size: int, border_value: int = 0) -> np.ndarray:
    """Cut a box out of an image and resize it to (size, size); what lies outside the image is `border_value`.

    Args:
        image: (H, W) or (H, W, C) uint8.
        box: (4,) edges in source pixels; may leave the image.
        size: side of the result in pixels.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"crop_resize: box {tuple(box)} is empty")
    scale_x, scale_y = size / (x1 - x0), size / (y1 - y0)
    shrink = 1.0 / min(scale_x, scale_y)
    if shrink >= 2.0:  # an affine warp aliases when it shrinks: average first
        height, width = image.shape[:2]
        left, top = max(int(np.floor(x0)), 0), max(int(np.floor(y0)), 0)
        right, bottom = min(int(np.ceil(x1)), width), min(int(np.ceil(y1)), height)
        if right <= left or bottom <= top:
            return np.full((size, size, *image.shape[2:]), border_value, image.dtype)
        part = image[top:bottom, left:right]
        small_size = (max(1, round(part.shape[1] / (shrink / 1.2))), max(1, round(part.shape[0] / (shrink / 1.2))))
        small = cv2.resize(part, small_size, interpolation=cv2.INTER_AREA)
        ratio_x, ratio_y = small.shape[1] / part.shape[1], small.shape[0] / part.shape[0]
        box = np.array([(x0 - left) * ratio_x, (y0 - top) * ratio_y, (x1 - left) * ratio_x, (y1 - top) * ratio_y])
        image = small
        x0, y0, x1, y1 = (float(v) for v in box)
        scale_x, scale_y = size / (x1 - x0), size / (y1 - y0)
    matrix = np.array([[scale_x, 0, (0.5 - x0) * scale_x - 0.5], [0, scale_y, (0.5 - y0) * scale_y - 0.5]], np.float64)
    border = (border_value,) * (image.shape[2] if image.ndim == 3 else 1)
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border
    )
