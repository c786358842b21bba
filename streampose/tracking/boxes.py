"""Blobs of a foreground mask and the square boxes that are cut around a followed subject."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

HISTOGRAM_BINS = 6  # a channel
MARGIN = 0.1  # of the subject's longer side, kept free around it on each side


@dataclass(frozen=True)
class Blob:
    """One connected part of a mask.

    Attributes:
        labels: its numbers in the label picture (several where near fragments were joined).
        box: (4,) float32 edges in the mask's pixels.
        area: pixels.
    """

    labels: tuple[int, ...]
    box: np.ndarray
    area: int


def find_blobs(mask: np.ndarray) -> tuple[np.ndarray, list[Blob]]:
    """Connected parts of a mask (h, w): the label picture (h, w) uint16 and the parts, largest first."""
    labels = np.zeros(mask.shape, np.uint16)
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return labels, []
    window = np.s_[top : top + height, left : left + width]
    count, labels[window], statistics, _ = cv2.connectedComponentsWithStats(
        mask[window], connectivity=8, ltype=cv2.CV_16U
    )
    blobs = []
    for n in range(1, count):
        x, y, width, height, area = (int(v) for v in statistics[n])
        box = np.array([left + x, top + y, left + x + width, top + y + height], np.float32)
        blobs.append(Blob((n,), box, area))
    return labels, sorted(blobs, key=lambda blob: -blob.area)


def join_fragments(blobs: list[Blob], reach: float = 0.3) -> list[Blob]:
    """Join blobs that stand over each other with a small gap: the parts of one body that the mask has torn.

    Args:
        reach: largest gap, as a share of the larger one's longer side.
    """
    joined: list[Blob] = []
    for blob in sorted(blobs, key=lambda blob: -blob.area):
        for n, other in enumerate(joined):
            gap_x = max(blob.box[0], other.box[0]) - min(blob.box[2], other.box[2])
            gap_y = max(blob.box[1], other.box[1]) - min(blob.box[3], other.box[3])
            side = max(other.box[2] - other.box[0], other.box[3] - other.box[1])
            if gap_x < 0.05 * side and gap_y < reach * side:
                joined[n] = merge_blobs([other, blob])
                break
        else:
            joined.append(blob)
    return joined


def merge_blobs(blobs: list[Blob]) -> Blob:
    """Several blobs as one."""
    boxes = np.stack([blob.box for blob in blobs])
    box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    return Blob(tuple(n for blob in blobs for n in blob.labels), box, sum(blob.area for blob in blobs))


def blob_mask(labels: np.ndarray, blob: Blob) -> np.ndarray:
    """The blob alone: (h, w) bool."""
    if len(blob.labels) == 1:
        return labels == blob.labels[0]
    own = np.zeros(int(labels.max()) + 1, bool)
    own[list(blob.labels)] = True
    return own[labels]


def colour_histogram(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What colours a subject has: (h, w, 3) uint8 and (h, w) bool -> (bins ** 3,) float32 that sums to 1."""
    rows = np.flatnonzero(mask.any(1))
    columns = np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.full(HISTOGRAM_BINS**3, 1.0 / HISTOGRAM_BINS**3, np.float32)
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    part = np.ascontiguousarray(image[window])
    histogram = cv2.calcHist(
        [part], [0, 1, 2], mask[window].astype(np.uint8), [HISTOGRAM_BINS] * 3, [0, 256] * 3
    ).ravel()
    return histogram / max(float(histogram.sum()), 1.0)


def histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Hellinger distance of two histograms, 0 (equal) to 1 (nothing in common)."""
    return float(np.sqrt(max(0.0, 1.0 - float(np.sqrt(a * b).sum()))))


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair: (N, 4), (M, 4) -> (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)
    return inside / np.maximum(area_a[:, None] + area_b[None] - inside, 1e-9)


def touches_border(box: np.ndarray, size: tuple[int, int], slack: float = 1.5) -> bool:
    """Whether a tight box (4,) reaches the edge of a picture of (width, height): the subject may be cut off there."""
    return bool(box[0] <= slack or box[1] <= slack or box[2] >= size[0] - slack or box[3] >= size[1] - slack)


def steady_square(boxes: np.ndarray, now: int, margin: float = MARGIN) -> np.ndarray:
    """The square to cut at one moment: steady over the moments around it, and never cutting the subject.

    Args:
        boxes: (W, 4) tight boxes at the moments around; NaN rows where the subject was not seen.
        now: which row is the moment itself; it must not be NaN.
        margin: free space on each side, as a share of the subject's longer side.

    Returns:
        (4,) float32 square; it may leave the picture.
    """
    weight, seen = _closeness(len(boxes), now), ~np.isnan(boxes[:, 0])
    tight = boxes[now]
    if not seen.all():
        weight, boxes = weight[seen], boxes[seen]
    total = weight.sum()
    centre = weight @ (boxes[:, :2] + boxes[:, 2:]) / (2 * total)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1)
    side = 0.5 * (sides[weight > 0.3].max() + weight @ sides / total)
    free = margin * (tight[2:] - tight[:2]).max()
    needed = 2 * max((centre - tight[:2]).max(), (tight[2:] - centre).max()) + 2 * free
    half = max(side * (1 + 2 * margin), needed) / 2
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


@lru_cache(maxsize=256)
def _closeness(count: int, now: int) -> np.ndarray:
    """How much each of so many moments counts for the one that is now: (count,)."""
    return np.exp(-0.5 * np.square((np.arange(count) - now) / max(count / 4, 1.0)))


def subject_boxes(
    mask: np.ndarray,
    source_size: tuple[int, int],
    *,
    max_subjects: int = 4,
    margin: float = MARGIN,
    least_area: float = 0.002,
) -> np.ndarray:
    """Square boxes around what moves in one mask, largest first; for a live picture that nothing is followed in yet.

    Args:
        mask: (h, w) uint8 at the model's size.
        source_size: (width, height) of the picture that the boxes are for.
        least_area: smallest subject, as a share of the picture.

    Returns:
        (N, 4) float32 edges in source pixels.
    """
    h, w = mask.shape
    scale = np.array([source_size[0] / w, source_size[1] / h] * 2, np.float32)
    blobs = [blob for blob in join_fragments(find_blobs(mask)[1]) if blob.area >= least_area * h * w]
    blobs = sorted(blobs, key=lambda blob: -blob.area)[:max_subjects]
    squares = [steady_square((blob.box * scale)[None], 0, margin) for blob in blobs]
    return np.stack(squares) if squares else np.zeros((0, 4), np.float32)
