"""Boxes, crops and the one mapping between source pixels and crop pixels.

Pixel centres are integers. A box is (x0, y0, x1, y1) in *edge* coordinates: the pixel columns 10..19 are x0 = 10,
x1 = 20. A point maps as `(xy + 0.5 - corner) * scale - 0.5`; images, principal points and soft-argmax grids follow it.
Works alike on numpy arrays and torch tensors; imports neither torch nor anything of the package.
"""

from __future__ import annotations

import math
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


def crop_boxes(image: np.ndarray, boxes: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Cut many boxes out of one image, as `crop_resize` does, into a buffer that is there already.

    Args:
        image: (H, W, C) uint8.
        boxes: (N, 4) edges in source pixels; may leave the image.
        out: (N, size, size, C) uint8, contiguous; written and returned.
    """
    for crop, box in zip(out, boxes, strict=True):
        crop_resize(image, box, out.shape[1], out=crop)
    return out


def crop_resize(
    image: np.ndarray, box: np.ndarray, size: int, border_value: int = 0, out: np.ndarray | None = None
) -> np.ndarray:
    """Cut a box out of an image and resize it to (size, size); what lies outside the image is `border_value`.

    Args:
        image: (H, W) or (H, W, C) uint8.
        box: (4,) edges in source pixels; may leave the image.
        size: side of the result in pixels.
        out: (size, size, C) to write into; None for a new array.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"crop_resize: box {tuple(box)} is empty")
    halvings = halvings_for(min(x1 - x0, y1 - y0), size)
    if halvings:  # an affine warp aliases when it shrinks: average first
        block = 2**halvings
        height, width = image.shape[:2]
        left, right = whole_blocks(x0, x1, block, width)
        top, bottom = whole_blocks(y0, y1, block, height)
        if right <= left or bottom <= top:
            out = np.empty((size, size, *image.shape[2:]), image.dtype) if out is None else out
            out[:] = border_value
            return out
        part = image[top:bottom, left:right]
        if right > width or bottom > height:  # the last block reaches beyond the image
            part = cv2.copyMakeBorder(part, 0, max(0, bottom - height), 0, max(0, right - width), cv2.BORDER_REPLICATE)
        image = halve(part, halvings)
        x0, y0, x1, y1 = (x0 - left) / block, (y0 - top) / block, (x1 - left) / block, (y1 - top) / block
    scale_x, scale_y = size / (x1 - x0), size / (y1 - y0)
    matrix = np.array([[scale_x, 0, (0.5 - x0) * scale_x - 0.5], [0, scale_y, (0.5 - y0) * scale_y - 0.5]], np.float64)
    border = (border_value,) * (image.shape[2] if image.ndim == 3 else 1)
    return cv2.warpAffine(
        image, matrix, (size, size), out,
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border,
    )  # fmt: skip


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to (width, height), by averaging where it shrinks; many times faster than INTER_AREA at most ratios.

    Args:
        image: (H, W) or (H, W, C).
    """
    width, height = size
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        if image.shape[1] % 2 or image.shape[0] % 2:
            image = cv2.blur(image, (3, 3))  # halving would shift an odd size: average, then let the last step pick
            break
        image = halve(image, 1)
    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def halve(image: np.ndarray, times: int) -> np.ndarray:
    """Average blocks of 2 x 2 so many times; sides must be multiples of 2 ** times."""
    for _ in range(times):
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return image


def halvings_for(side: float, size: int) -> int:
    """How often a side may be halved and still be at least `size`."""
    return max(0, math.floor(math.log2(side / size))) if side > 0 else 0


def whole_blocks(low: float, high: float, block: int, limit: int) -> tuple[int, int]:
    """Start and stop, multiples of `block`, of the blocks that low..high touches inside 0..limit."""
    start = max(math.floor(low), 0) // block * block
    stop = min(math.ceil(high), limit)
    return start, -(-stop // block) * block
