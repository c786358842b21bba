"""How good keypoints are where nobody knows the truth: do they fill the mask, stay inside it, move like a body?

None of these can see that left and right are exchanged for good, or that a joint sits at the wrong place of a limb; use
them to compare models on the same video, and to find what is plainly wrong.
"""

from __future__ import annotations

import cv2
import numpy as np

from streampose.structures import Skeleton

SIZE_WINDOW_SECONDS = 3.0
LONGEST_STEP_SECONDS = 0.25  # frames further apart are not neighbours
LONGEST_QUANTILE = 0.9  # of a bone's projections: about its true length
SHIFT = 4  # OpenCV draws at 1/16 pixel


def render_skeletons(xy: np.ndarray, size_px: np.ndarray, skeleton: Skeleton, size: int) -> np.ndarray:
    """The silhouette that keypoints stand for: a capsule a bone, and one along each line of the trunk's outline.

    A capsule ends `reach` radii beyond the bone's end: hands reach further than the wrist, a head's top is its end.

    Args:
        xy: (N, K, 2) crop pixels; a bone with a NaN end is not drawn.
        size_px: (N,) the subject's size in crop pixels, which the radii of the bones are relative to.
        size: side of the crop in pixels.

    Returns:
        (N, S, S) uint8, 255 inside.
    """
    radius = np.full(skeleton.num_joints, np.inf)
    for bone in skeleton.bones:
        radius[[bone.parent, bone.child]] = np.minimum(radius[[bone.parent, bone.child]], bone.radius)
    lines = [(bone.parent, bone.child, bone.radius, bone.reach) for bone in skeleton.bones]
    # Lines that the cascade adds between shoulders and hips belong to the flesh of the trunk.
    lines += [(a, b, max(radius[a], radius[b]), 1.0) for a, b in skeleton.connections.get("tight", ())]
    masks = np.zeros((len(xy), size, size), np.uint8)
    for mask, points, scale in zip(masks, xy, size_px, strict=True):
        for a, b, thickness, reach in lines:
            if np.isfinite(points[[a, b]]).all():
                half = thickness * float(scale)
                _capsule(mask, points[a], _tip(points[a], points[b], (reach - 1) * half), half)
    return masks


def mask_iou(rendered: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Intersection over union of two masks: (N, S, S), > 127 inside -> (N,); NaN where the second is empty."""
    a, b = rendered > 127, masks > 127
    union = np.sum(a | b, axis=(1, 2))
    return np.where(np.any(b, axis=(1, 2)), np.sum(a & b, axis=(1, 2)) / np.maximum(union, 1), np.nan)


def inside_mask(xy: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """1 where the pixel under a joint is inside the mask, else 0 (also outside the crop).

    Args:
        xy: (N, K, 2) crop pixels, NaN counts as outside.
        masks: (N, S, S) uint8.

    Returns:
        (N, K); NaN where the mask is empty.
    """
    N, S, _ = masks.shape
    known = np.isfinite(xy).all(-1)
    pixel = np.rint(np.where(known[..., None], xy, -1)).astype(int)
    within = np.logical_and(pixel >= 0, pixel < S).all(-1)
    x, y = (pixel.clip(0, S - 1)[..., i] for i in (0, 1))
    hit = within & (masks[np.arange(N)[:, None], y, x] > 127)
    return np.where(np.any(masks > 127, axis=(1, 2))[:, None], hit, np.nan)


def jitter(xy: np.ndarray, pts_seconds: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Acceleration of each joint relative to the subject's size, in sizes per second squared.

    True motion is part of it: a walking hand reaches some 10, so only compare models on the same video.

    Args:
        xy: (T, K, 2) source pixels of one clip, in order of time.
        pts_seconds: (T,) time of each frame; a gap of over a quarter of a second is not bridged.
        size: (T,) the subject's size in source pixels.

    Returns:
        (T - 2, K), NaN at gaps; (0, K) for clips shorter than three frames.
    """
    if len(xy) < 3:
        return np.zeros((0, xy.shape[1]))
    steps = np.diff(pts_seconds)
    usable = (steps > 0) & (steps <= LONGEST_STEP_SECONDS)
    safe = np.where(usable, steps, 1.0)[:, None, None]
    velocity = np.diff(xy, axis=0) / safe
    acceleration = np.diff(velocity, axis=0) / ((safe[1:] + safe[:-1]) / 2)  # (T - 2, K, 2)
    relative = np.linalg.norm(acceleration, axis=-1) / size[1:-1, None]
    return np.where((usable[1:] & usable[:-1])[:, None], relative, np.nan)


def left_right_swaps(
    xy: np.ndarray, pts_seconds: np.ndarray, size: np.ndarray, flip_pairs: tuple[tuple[int, int], ...]
) -> np.ndarray:
    """1 where a left and a right joint exchange their places from one frame to the next, else 0.

    A pair counts where its joints are at least a tenth of the subject's size apart in both frames; it has swapped where
    exchanging the names would have halved the way that the two have come.

    Args:
        xy: (T, K, 2) source pixels of one clip, in order of time.
        pts_seconds: (T,); frames over a quarter of a second apart are not compared.
        size: (T,) the subject's size in source pixels.

    Returns:
        (T - 1, P) of 0, 1 and NaN, P pairs.
    """
    if len(xy) < 2 or not flip_pairs:
        return np.zeros((max(len(xy) - 1, 0), len(flip_pairs)))
    left, right = (xy[:, [pair[side] for pair in flip_pairs]] for side in (0, 1))  # (T, P, 2)
    apart = np.linalg.norm(left - right, axis=-1) / size[:, None]
    kept = _step(left[:-1], left[1:]) + _step(right[:-1], right[1:])
    exchanged = _step(left[:-1], right[1:]) + _step(right[:-1], left[1:])
    steps = np.diff(pts_seconds)
    near = ((steps > 0) & (steps <= LONGEST_STEP_SECONDS))[:, None]
    counts = near & (np.minimum(apart[:-1], apart[1:]) >= 0.1) & np.isfinite(kept + exchanged)
    return np.where(counts, exchanged < 0.5 * kept, np.nan)


def bone_lengths(xy: np.ndarray, size: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Projected length of each bone, in sizes of the subject: (N, K, 2), (N,) -> (N, B)."""
    parents, children = ([getattr(bone, end) for bone in skeleton.bones] for end in ("parent", "child"))
    return np.linalg.norm(xy[:, children] - xy[:, parents], axis=-1) / size[:, None]


def bone_fit(lengths: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """How well each bone's length agrees with the skeleton's: 1 is just as long, 0.5 twice or half as long.

    A projection only shortens, so that the longest tenth of many frames shows a bone at about its true length. Points
    that fill a mask without being a body have bones of any length; no mask measure sees it.

    Args:
        lengths: (N, B) of `bone_lengths`, of frames in which the subject turns and moves.

    Returns:
        (B,); NaN where a bone is never seen.
    """
    known = np.isfinite(lengths).any(0)
    longest = np.full(lengths.shape[1], np.nan)
    if known.any():
        longest[known] = np.nanquantile(lengths[:, known], LONGEST_QUANTILE, axis=0)
    ratio = longest / np.array([bone.length for bone in skeleton.bones])
    return np.minimum(ratio, 1 / np.maximum(ratio, 1e-6))


def mirror_distance(xy: np.ndarray, mirrored: np.ndarray, size: np.ndarray, flip_index: list[int]) -> np.ndarray:
    """How far keypoints lie from those of the mirrored picture, mirrored back, in sizes of the subject.

    Args:
        xy, mirrored: (N, K, 2) source pixels; `mirrored` of the mirrored crop, its x mapped back, joints as predicted.
        size: (N,) the subject's size in source pixels.
        flip_index: the permutation that swaps left and right: a mirrored left hand is a right hand.

    Returns:
        (N, K).
    """
    return np.linalg.norm(mirrored[:, flip_index] - xy, axis=-1) / size[:, None]


def subject_sizes(masks: np.ndarray, boxes: np.ndarray, pts_seconds: np.ndarray) -> np.ndarray:
    """The subject's size in source pixels, for one clip: (T,).

    Bones are measured in standing heights, but a mask's box shrinks when a person sits down. So the size is the 90th
    percentile of the longer side of the mask's box within three seconds before and after.

    Args:
        masks: (T, S, S) uint8.
        boxes: (T, 4) what the crops show, edges in source pixels.
    """
    size = masks.shape[1]
    inside = masks > 127
    extent = np.maximum(_extent(np.any(inside, axis=2)), _extent(np.any(inside, axis=1)))
    pixels = extent / size * (boxes[:, 2] - boxes[:, 0])
    first = np.searchsorted(pts_seconds, pts_seconds - SIZE_WINDOW_SECONDS, side="left")
    last = np.searchsorted(pts_seconds, pts_seconds + SIZE_WINDOW_SECONDS, side="right")
    sizes = [np.percentile(pixels[a:b], 90) for a, b in zip(first, last, strict=True)]
    return np.maximum(np.array(sizes, float).reshape(len(masks)), 1.0)


def _tip(a: np.ndarray, b: np.ndarray, further: float) -> np.ndarray:
    """The point so far beyond b as seen from a; where it is before b, not before a."""
    length = float(np.hypot(*(b - a)))
    return b if length < 1e-6 else b + (b - a) / length * max(further, -length)


def _capsule(mask: np.ndarray, a: np.ndarray, b: np.ndarray, radius: float) -> None:
    """Fill the pixels within `radius` of the segment a-b."""
    one = 1 << SHIFT
    start, end = (np.clip(np.rint(point * one), -(2**24), 2**24).astype(int) for point in (a, b))
    along = b - a
    length = np.hypot(*along)
    if length > 1e-6:
        normal = np.array([-along[1], along[0]]) / length * radius
        corners = np.rint(np.clip([a + normal, b + normal, b - normal, a - normal], -1e6, 1e6) * one)
        cv2.fillConvexPoly(mask, corners.astype(np.int32), 255, cv2.LINE_8, SHIFT)
    for x, y in (start, end):
        cv2.circle(mask, (int(x), int(y)), round(radius * one), 255, cv2.FILLED, cv2.LINE_8, SHIFT)


def _extent(lines: np.ndarray) -> np.ndarray:
    """Length from the first to the last true entry: (T, S) bool -> (T,)."""
    last = lines.shape[1] - lines[:, ::-1].argmax(1)
    return np.where(lines.any(1), last - lines.argmax(1), 0)


def _step(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(b - a, axis=-1)
