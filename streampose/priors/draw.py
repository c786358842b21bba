"""Stick figures of poses, for people to look at: left blue, right orange, the middle grey."""

from __future__ import annotations

import cv2
import numpy as np

from streampose.geometry.project_prior import fit_to_crop
from streampose.structures import Skeleton

LEFT, RIGHT, MIDDLE = (38, 108, 190), (222, 120, 30), (90, 90, 90)
SHIFT = 4  # OpenCV draws at 1/16 pixel


def draw_pose(pose: np.ndarray, skeleton: Skeleton, size: int) -> np.ndarray:
    """One pose (K, 2) in [-1, 1], or (K, 3) whose z says what lies in front, on white: (size, size, 3) uint8 RGB.

    Bones with a missing end are left out; joints that no bone reaches are dots.
    """
    picture: np.ndarray = np.full((size, size, 3), 255, np.uint8)
    pixels = (np.nan_to_num(pose[:, :2]).clip(-4, 4) + 1) * (size / 2) - 0.5
    known = np.isfinite(pose).all(-1)
    depth = pose[:, 2] if pose.shape[1] == 3 else np.zeros(len(pose))
    thickness = max(1, size // 60)
    lines = [bone for bone in skeleton.bones if known[bone.parent] and known[bone.child]]
    for bone in sorted(lines, key=lambda bone: -(depth[bone.parent] + depth[bone.child])):  # far to near
        a, b = (_point(pixels[end]) for end in (bone.parent, bone.child))
        cv2.line(picture, a, b, (255, 255, 255), 3 * thickness, cv2.LINE_AA, SHIFT)
        cv2.line(picture, a, b, _colour(skeleton, bone.child), thickness, cv2.LINE_AA, SHIFT)
    for k in np.flatnonzero(known).tolist():
        cv2.circle(picture, _point(pixels[k]), (thickness + 1) << SHIFT, _colour(skeleton, k), -1, cv2.LINE_AA, SHIFT)
    return picture


def pose_sheet(poses: np.ndarray, skeleton: Skeleton, columns: int = 10, size: int = 128) -> np.ndarray:
    """A grid of 2D poses (N, K, 2), each as large as its cell: (rows * size, columns * size, 3)."""
    cells = [draw_pose(pose, skeleton, size) for pose in fit_to_crop(poses, fill=(0.85, 0.85))]
    cells += [np.full((size, size, 3), 255, np.uint8)] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[n : n + columns]) for n in range(0, len(cells), columns)])


def turning_sheet(poses: np.ndarray, skeleton: Skeleton, views: int = 8, size: int = 128) -> np.ndarray:
    """3D poses (N, K, 3), a row each, from so many sides around them: (N * size, views * size, 3)."""
    rows = []
    for pose in poses:
        centred = pose - (np.nanmax(pose, 0) + np.nanmin(pose, 0)) / 2
        centred = centred / max(float(np.nanmax(np.linalg.norm(centred, axis=-1))), 1e-9) * 0.92
        cells = []
        for angle in np.arange(views) * 2 * np.pi / views:
            c, s = np.cos(angle), np.sin(angle)
            cells.append(draw_pose(centred @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]), skeleton, size))
        rows.append(np.hstack(cells))
    return np.vstack(rows)


def _colour(skeleton: Skeleton, joint: int) -> tuple[int, int, int]:
    if any(joint == left for left, _ in skeleton.flip_pairs):
        return LEFT
    return RIGHT if any(joint == right for _, right in skeleton.flip_pairs) else MIDDLE


def _point(xy: np.ndarray) -> tuple[int, int]:
    x, y = np.rint(xy * (1 << SHIFT)).astype(int)
    return int(x), int(y)
