"""Which people seen by several cameras are the same: those whose joints meet in space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampose.geometry.distortion import undistort_pixels
from streampose.geometry.triangulate import condition, invert_symmetric, reproject
from streampose.structures import Camera

JOINT_SHARE = 0.08  # of a person's extent in the picture: joints that miss by more do not meet
LEAST_JOINTS = 3  # that both views must see
MOST_COST = 0.6  # of a pair; 0 where all joints meet exactly, 1 where none does


def pair_costs(
    cameras: Sequence[Camera],
    xy: np.ndarray,
    confidence: np.ndarray,
    view: np.ndarray,
    flip_index: Sequence[int] | None = None,
) -> np.ndarray:
    """How badly the joints of every two people seen at one moment meet in space.

    Each joint is triangulated from the two views and projected back; its distance is taken in shares of what counts
    as met (`JOINT_SHARE` of the person's extent), one at most, and averaged by confidence.

    Args:
        cameras: V posed cameras.
        xy: (M, K, 2) pixels as the lenses showed them; NaN for missing joints.
        confidence: (M, K).
        view: (M,) which camera saw the person.
        flip_index: permutation that swaps left and right; given, the better of both ways counts, since detectors
            confuse the two.

    Returns:
        (M, M) in [0, 1], symmetric; 1 for two of one view, and where too few joints are seen by both.
    """
    M, K = confidence.shape
    costs = np.ones((M, M))
    one, other = np.nonzero((view[:, None] != view[None]) & np.triu(np.ones((M, M), bool)))
    if not len(one):
        return costs
    ideal = np.full((M, K, 2), np.nan)
    for v, camera in enumerate(cameras):
        ideal[view == v] = undistort_pixels(xy[view == v], camera)
    P = condition(np.stack([camera.P for camera in cameras]))[0][view]
    met = JOINT_SHARE * np.maximum(extent(xy), 1e-6)  # (M,) pixels
    best = np.ones(len(one))
    for flip in (None, flip_index):
        second = ideal[other] if flip is None else ideal[other][:, flip]
        weight = np.minimum(confidence[one], confidence[other] if flip is None else confidence[other][:, flip])
        known = np.isfinite(ideal[one]).all(-1) & np.isfinite(second).all(-1) & (weight > 0)
        weight = np.where(known, weight, 0.0)
        miss = _two_view_miss(np.stack([ideal[one], second], 1), np.stack([P[one], P[other]], 1))  # (pairs, 2, K)
        share = np.minimum(np.nan_to_num(miss / np.stack([met[one], met[other]], 1)[..., None], nan=1.0), 1.0).max(1)
        total = weight.sum(-1)
        cost = np.where(known.sum(-1) >= LEAST_JOINTS, (weight * share).sum(-1) / np.where(total > 0, total, 1), 1.0)
        best = np.minimum(best, cost)
        if flip_index is None:
            break
    costs[one, other] = costs[other, one] = best
    return costs


def extent(xy: np.ndarray) -> np.ndarray:
    """The longer side of the box around each person's joints: (..., K, 2) -> (...); 0 where none is seen."""
    seen = np.isfinite(xy).all(-1, keepdims=True)
    low, high = np.where(seen, xy, np.inf).min(-2), np.where(seen, xy, -np.inf).max(-2)
    return np.maximum(np.where(high >= low, high - low, 0.0).max(-1), 0.0)


def group(costs: np.ndarray, apart: np.ndarray, most: float = MOST_COST) -> list[list[int]]:
    """Groups of people that are the same, the best pairs joined first, by the mean cost between whole groups.

    Args:
        costs: (M, M) as `pair_costs`; NaN for two that were never seen at the same time.
        apart: (M, M) bool, two that cannot be the same, such as two in one picture.

    Returns:
        Disjoint lists of at least two.
    """
    groups = [[n] for n in range(len(costs))]
    while len(groups) > 1:
        best, pair = most, None
        for i in range(len(groups)):
            for j in range(i):
                block = np.ix_(groups[i], groups[j])
                known = np.isfinite(costs[block])
                if known.any() and not apart[block].any() and (cost := float(costs[block][known].mean())) < best:
                    best, pair = cost, (i, j)
        if pair is None:
            break
        groups[pair[1]] += groups.pop(pair[0])
    return [sorted(members) for members in groups if len(members) > 1]


def _two_view_miss(ideal: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Re-projection error of joints triangulated from two views: (B, 2, K, 2), (B, 2, 3, 4) -> (B, 2, K)."""
    xy = np.nan_to_num(ideal)
    rows = xy[..., None] * P[:, :, None, 2:3, :] - P[:, :, None, :2, :]  # (B, 2, K, 2, 4)
    system = np.einsum("bvkri,bvkrj->bkij", rows[..., :3], rows)
    points = -np.einsum("bkij,bkj->bki", invert_symmetric(system[..., :3]), system[..., 3])
    return np.linalg.norm(reproject(points, P) - ideal, axis=-1)
