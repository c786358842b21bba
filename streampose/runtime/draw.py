"""Draw skeletons, boxes and ids into pictures."""

from __future__ import annotations

import cv2
import numpy as np

from streampose.structures import Keypoints, Skeleton

LEFT, RIGHT, MIDDLE = (60, 200, 255), (255, 150, 40), (120, 255, 120)  # RGB
TRACKS = ((255, 255, 255), (255, 235, 90), (160, 220, 255), (255, 170, 220), (190, 255, 170), (220, 190, 255))
SHIFT = 4  # OpenCV draws at 1/16 pixel


def joint_colors(skeleton: Skeleton) -> list[tuple[int, int, int]]:
    """RGB of each joint: left and right differ, what lies between them has a third colour."""
    colors = [MIDDLE] * skeleton.num_joints
    for left, right in skeleton.flip_pairs:
        colors[left], colors[right] = LEFT, RIGHT
    return colors


def draw_skeletons(
    image: np.ndarray,
    keypoints: Keypoints,
    skeleton: Skeleton,
    *,
    boxes: np.ndarray | None = None,
    ids: list[int] | None = None,
    thickness: int | None = None,
) -> np.ndarray:
    """Draw subjects over an image, as opaque as they are certain.

    Args:
        image: (H, W, 3) uint8 RGB; left as it is.
        keypoints: N subjects in pixels of the image; joints that are NaN are not drawn.
        boxes: (N, 4) xyxy edges to draw too.
        ids: N numbers to write at the boxes.
        thickness: of the bones in pixels; None chooses by the subject's size.

    Returns:
        (H, W, 3) uint8 RGB, a new image.
    """
    image = image.copy()
    for n in range(len(keypoints.xy)):
        _draw_one(image, keypoints.xy[n], keypoints.confidence[n], skeleton, thickness)
        color = TRACKS[(ids[n] if ids else n) % len(TRACKS)]
        if boxes is not None:
            x0, y0, x1, y1 = (round(float(v)) for v in boxes[n])
            cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), color, 1)
            if ids:
                corner = max(x0, 0) + 4, max(y0, 0) + 18
                cv2.putText(image, str(ids[n]), corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
                cv2.putText(image, str(ids[n]), corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1, cv2.LINE_AA)
    return image


def _draw_one(
    image: np.ndarray, xy: np.ndarray, confidence: np.ndarray, skeleton: Skeleton, thickness: int | None
) -> None:
    """Blend one subject into `image`, touching only the part of the image where it is."""
    seen = np.isfinite(xy).all(-1)
    if not seen.any():
        return
    height, width = image.shape[:2]
    low, high = xy[seen].min(0), xy[seen].max(0)
    thick = thickness or int(np.clip((high - low).max() / 50, 1, 8))
    left, top = (int(max(v - 3 * thick, 0)) for v in low)
    right, bottom = int(min(high[0] + 3 * thick + 1, width)), int(min(high[1] + 3 * thick + 1, height))
    if right <= left or bottom <= top:
        return
    part = image[top:bottom, left:right]
    ink, alpha = part.copy(), np.zeros(part.shape[:2], np.uint8)
    local = np.clip(np.nan_to_num(xy) - (left, top), -4096, 4096)
    points = [(int(x), int(y)) for x, y in np.rint(local * (1 << SHIFT))]
    opacity = [int(v) for v in np.rint(np.clip(0.15 + 0.85 * np.nan_to_num(confidence), 0, 1) * 255)]
    colors = joint_colors(skeleton)
    order = sorted(skeleton.bones, key=lambda bone: min(opacity[bone.parent], opacity[bone.child]))
    for bone in order:
        if seen[bone.parent] and seen[bone.child]:
            strength = min(opacity[bone.parent], opacity[bone.child])
            ends = points[bone.parent], points[bone.child]
            cv2.line(ink, *ends, colors[bone.child], thick, cv2.LINE_AA, SHIFT)
            cv2.line(alpha, *ends, strength, thick + 1, cv2.LINE_8, SHIFT)
    for joint in np.flatnonzero(seen):
        cv2.circle(ink, points[joint], (thick + 1) << SHIFT, colors[joint], -1, cv2.LINE_AA, SHIFT)
        cv2.circle(alpha, points[joint], (thick + 2) << SHIFT, opacity[joint], -1, cv2.LINE_8, SHIFT)
    weight = alpha[..., None].astype(np.uint16)
    part[:] = ((ink * weight + part * (255 - weight) + 127) // 255).astype(np.uint8)
