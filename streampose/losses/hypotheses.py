"""The losses of `hypotheses` (Li & Lee, Weakly supervised generative network for multiple 3D human pose hypotheses).

Equation numbers are the paper's. Poses are (B, K, 3) in the template's frame, 2D joints (B, K, 2) as the lifter sees
them: about the mean of the visible joints, divided by their spread.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)  # of the rational quadratic kernels that are added


def bone_products(poses: Tensor, bones: Tensor) -> Tensor:
    """The KCS matrix: scalar products of all pairs of bones, so lengths on its diagonal and angles beside it.

    Args:
        poses: (B, K, 3); bones: (N, 2) parent, child.

    Returns:
        (B, N (N + 1) / 2) its upper triangle.
    """
    vectors = poses[:, bones[:, 1]] - poses[:, bones[:, 0]]
    row, column = torch.triu_indices(len(bones), len(bones), device=poses.device)
    return (vectors @ vectors.transpose(1, 2))[:, row, column]


def mixed_kernel(one: Tensor, other: Tensor) -> Tensor:
    """Rational quadratic kernels plus the dot kernel (Eq. 9): (M, D), (N, D) -> (M, N)."""
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    squared = squared.clamp_min(0)
    return sum(((1 + squared / (2 * alpha)) ** -alpha for alpha in ALPHAS), one @ other.T)


def mmd(real: Tensor, made: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two sets, unbiased (Eq. 8; its third sum runs over all pairs).

    Args:
        real, made: (M, D), (N, D) features; two rows or more each.

    Returns:
        A scalar, about zero (also below) where both are drawn from one distribution.
    """
    M, N = len(real), len(made)
    same_real, same_made = mixed_kernel(real, real), mixed_kernel(made, made)
    within = (same_real.sum() - same_real.diagonal().sum()) / (M * (M - 1))
    within = within + (same_made.sum() - same_made.diagonal().sum()) / (N * (N - 1))
    return within - 2 * mixed_kernel(real, made).mean()


def witness(features: Tensor, real: Tensor, made: Tensor) -> Tensor:
    """What MMD says of one sample: how much more like the real ones it is than like the made ones: (B, D) -> (B,)."""
    return mixed_kernel(features, real).mean(1) - mixed_kernel(features, made).mean(1)


def gradient_penalty(values: Tensor, poses: Tensor) -> Tensor:
    """Squared deviation of the gradient's norm from one: values (B,) of poses (B, ...) that need gradients -> (B,)."""
    (gradient,) = torch.autograd.grad(values.sum(), poses, create_graph=True)
    return (torch.sqrt((gradient.flatten(1) ** 2).sum(1) + 1e-12) - 1) ** 2


def reprojection(poses: Tensor, camera: Tensor, joints: Tensor, visibility: Tensor) -> Tensor:
    """Distance between the projected pose and the 2D joints in L1, both about the mean of the visible joints.

    Args:
        camera: (B, 2, 3); joints: (B, K, 2); visibility: (B, K) in [0, 1]: what is not seen counts for nothing.

    Returns:
        (B, K) zero for joints that are not visible.
    """
    seen = visibility[..., None]
    total = seen.sum(1, keepdim=True).clamp_min(1e-6)
    projected = poses @ camera.transpose(1, 2)
    difference = torch.where(seen > 0, projected - joints, 0.0)
    difference = difference - (difference * seen).sum(1, keepdim=True) / total
    return (difference.abs() * seen).sum(-1)


def weak_perspective(camera: Tensor) -> Tensor:
    """How far cameras (B, 2, 3) are from scaled rotations: the norm of 2 M M^T / trace(M M^T) - 1, (B,)."""
    product = camera @ camera.transpose(1, 2)
    trace = product.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-6)
    difference = 2 * product / trace[:, None, None] - torch.eye(2, device=camera.device)
    return torch.sqrt((difference**2).sum((1, 2)) + 1e-12)


def diversity(one: Tensor, other: Tensor, one_code: Tensor, other_code: Tensor, tau: float) -> Tensor:
    """How much poses of the same 2D joints differ, by how much their codes do, at most tau (Eq. 6); to be maximised.

    Args:
        one, other: (B, K, 3); one_code, other_code: (B, Z).

    Returns:
        (B,) mean absolute difference of the coordinates over that of the codes.
    """
    between = (one - other).abs().flatten(1).mean(1)
    return (between / (one_code - other_code).abs().mean(1).clamp_min(1e-6)).clamp_max(tau)


def code_distance(codes: Tensor, read: Tensor) -> Tensor:
    """Distance between the codes and what the encoder reads from their poses (Eq. 7): (B, Z), (B, Z) -> (B,)."""
    return (codes - read).abs().mean(1)


def pose_distance(one: Tensor, other: Tensor) -> Tensor:
    """How far poses are apart: the mean of the joints' distances and of the distance of the pose as a whole.

    Both are norms, so that `pose_distance(made, true) - pose_distance(made, made again) / 2` is a proper score: it is
    least, on average, where poses are made as often as they are true. The first sees each joint, the second how joints
    go together.

    Args:
        one, other: (B, K, 3).

    Returns:
        (B,) in the unit of the poses.

    Source: Gneiting & Raftery, Strictly proper scoring rules, prediction, and estimation, JASA 2007 (energy score).
    """
    squared = ((one - other) ** 2).sum(-1) + 1e-8
    return (torch.sqrt(squared).mean(1) + torch.sqrt(squared.mean(1))) / 2


def feature_size(features: Tensor) -> Tensor:
    """Mean squared length of the critic's features (M, D) of real poses.

    The discrepancy does not change when all features move together; without this term they drift until single
    precision no longer tells their differences.

    Source: Binkowski et al., Demystifying MMD GANs, ICLR 2018, whose programs hold activations small in this way.
    """
    return (features**2).sum(1).mean()


def displacement(poses: Tensor, joints: Tensor, visibility: Tensor) -> Tensor:
    """How far joints that are seen are moved in the picture, in L1: (B, K, 3), (B, K, 2), (B, K) -> (B,)."""
    moved = torch.where(visibility[..., None] > 0, poses[..., :2] - joints, 0.0).abs().sum((1, 2))
    return moved / (2 * visibility.sum(1).clamp_min(1.0))


def out_of_proportion(poses: Tensor, size: Tensor, low: float, high: float) -> Tensor:
    """How far the length of all bones, over the deviation of the joints in the picture, is from what is usual.

    Args:
        poses: (B, K, 3) in the camera's axes; size: (B,) length of all their bones together.

    Returns:
        (B,) squared difference of logarithms, zero from low to high.
    """
    flat = poses[..., :2] - poses[..., :2].mean(1, keepdim=True)
    proportion = torch.log(size / torch.sqrt((flat**2).mean((1, 2)) + 1e-6))
    return (proportion - math.log(high)).relu() ** 2 + (math.log(low) - proportion).relu() ** 2
