"""What a skeleton file says about a plausible pose, as losses (Mask as Supervision, App. A.1, and 3D extensions).

All lengths are in the unit of the coordinates ([-1, 1] over the crop) and are compared relative to the subject's size:
the height of the mask's box in the paper, an estimate of the standing height here (see `methods/mask.py`). Results are
one value a sample and term, unreduced.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bone_vectors(keypoints: Tensor, bones: Tensor) -> Tensor:
    """(B, K, D) joints, (N, 2) bones -> (B, N, D) from parent to child."""
    return keypoints[:, bones[:, 1]] - keypoints[:, bones[:, 0]]


def constant_length(xy: Tensor, bones: Tensor, lengths: Tensor, height: Tensor) -> Tensor:
    """Squared deviation of projected bone lengths from fixed ones (Eq. 12).

    Args:
        xy: (B, K, 2).
        bones: (N, 2) the trunk's bones.
        lengths: (N,) in units of the subject's height.
        height: (B,) the subject's height in the unit of xy.

    Returns:
        (B, N) in squared heights.
    """
    return (bone_vectors(xy, bones).norm(dim=-1) / height[:, None] - lengths) ** 2


def length_ceiling(xy: Tensor, bones: Tensor, ceilings: Tensor, height: Tensor) -> Tensor:
    """Squared excess of projected bone lengths over their ceilings: projection can only shorten a bone.

    Shapes as in `constant_length`; zero for every bone that is short enough.
    """
    return (bone_vectors(xy, bones).norm(dim=-1) / height[:, None] - ceilings).clamp_min(0) ** 2


def symmetry(xy: Tensor, midpoints: Tensor) -> Tensor:
    """Squared distance between a middle joint and the mean of its left and right ends (Eq. 14).

    Args:
        xy: (B, K, 2).
        midpoints: (M, 3) middle, left, right.

    Returns:
        (B, M).
    """
    middle, left, right = xy[:, midpoints[:, 0]], xy[:, midpoints[:, 1]], xy[:, midpoints[:, 2]]
    return (((left + right) / 2 - middle) ** 2).sum(-1)


def tied(xy: Tensor, pairs: Tensor) -> Tensor:
    """Squared distance between left and right joints that are to start from one place (App. A.3): (B, N)."""
    return ((xy[:, pairs[:, 0]] - xy[:, pairs[:, 1]]) ** 2).sum(-1)


def length_in_space(keypoints: Tensor, bones: Tensor, lengths: Tensor, height: Tensor) -> Tensor:
    """Squared deviation of 3D bone lengths from the skeleton file's: it is z that makes up for a short projection.

    Args:
        keypoints: (B, K, 3).
        bones: (N, 2).
        lengths: (N,) in units of the subject's height.
        height: (B,) in the unit of keypoints.

    Returns:
        (B, N) in squared heights.
    """
    vectors = bone_vectors(keypoints, bones)
    return (torch.sqrt((vectors**2).sum(-1) + 1e-8) / height[:, None] - lengths) ** 2


def equal_lengths(keypoints: Tensor, left_bones: Tensor, right_bones: Tensor, height: Tensor) -> Tensor:
    """Squared difference of the 3D lengths of left and right bones: (B, K, 3), (N, 2), (N, 2), (B,) -> (B, N)."""
    left = torch.sqrt((bone_vectors(keypoints, left_bones) ** 2).sum(-1) + 1e-8)
    right = torch.sqrt((bone_vectors(keypoints, right_bones) ** 2).sum(-1) + 1e-8)
    return ((left - right) / height[:, None]) ** 2


def perpendicular(keypoints: Tensor, lines: Tensor, trunk: Tensor) -> Tensor:
    """Squared cosine between left-right lines and the trunk in 3D: shoulders and hips stand across the spine.

    Args:
        keypoints: (B, K, 3).
        lines: (M, 2) left and right joints.
        trunk: (M, 2) the joints of the trunk line that each stands across.

    Returns:
        (B, M) in [0, 1].
    """
    across, along = bone_vectors(keypoints, lines), bone_vectors(keypoints, trunk)
    product = (across * along).sum(-1) ** 2
    return product / ((across**2).sum(-1) * (along**2).sum(-1)).clamp_min(1e-6)
