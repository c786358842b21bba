"""Losses of hypotheses: zero on equal inputs, values by hand, gradients, and what is hidden counts for nothing."""

import math

import pytest
import torch

from streampose.losses.hypotheses import (
    ALPHAS,
    bone_products,
    code_distance,
    displacement,
    diversity,
    feature_size,
    gradient_penalty,
    mixed_kernel,
    mmd,
    out_of_proportion,
    pose_distance,
    reprojection,
    weak_perspective,
    witness,
)


def test_bone_products_hold_lengths_and_angles():
    pose = torch.tensor([[[0.0, 0, 0], [3, 0, 0], [3, 4, 0]]], requires_grad=True)
    products = bone_products(pose, torch.tensor([[0, 1], [1, 2]]))
    torch.testing.assert_close(products, torch.tensor([[9.0, 0, 16]]))
    products.sum().backward()
    assert pose.grad.abs().sum() > 0


def test_kernel_by_hand():
    a, b = torch.tensor([[1.0, 0]]), torch.tensor([[1.0, 2]])
    expected = sum((1 + 4 / (2 * alpha)) ** -alpha for alpha in ALPHAS) + 1
    assert mixed_kernel(a, b).item() == pytest.approx(expected, rel=1e-5)
    assert mixed_kernel(a, a).item() == pytest.approx(len(ALPHAS) + 1)


def test_mmd_by_hand_and_about_zero_for_one_distribution():
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    kernel = lambda x, y: sum((1 + (x - y) ** 2 / (2 * alpha)) ** -alpha for alpha in ALPHAS) + x * y  # noqa: E731
    cross = (kernel(0, 2) + kernel(0, 3) + kernel(1, 2) + kernel(1, 3)) / 4
    assert mmd(a, b).item() == pytest.approx(kernel(0, 1) + kernel(2, 3) - 2 * cross, rel=1e-4)
    torch.manual_seed(0)
    same, other = mmd(torch.randn(400, 3), torch.randn(400, 3)), mmd(torch.randn(400, 3), torch.randn(400, 3) + 1)
    assert abs(same.item()) < 0.05 < 0.5 < other.item()


def test_witness_tells_real_from_made():
    real, made = torch.zeros(5, 2) + 2, torch.zeros(5, 2) - 2
    values = witness(torch.tensor([[2.0, 2.0], [-2.0, -2.0], [0.0, 0.0]]), real, made)
    assert values[0] > 0 > values[1] and values[2].abs() < 1e-6


def test_gradient_penalty_is_zero_for_a_slope_of_one():
    poses = torch.randn(4, 3, requires_grad=True)
    torch.testing.assert_close(gradient_penalty(poses[:, 0], poses), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient_penalty(3 * poses[:, 0], poses), torch.full((4,), 4.0))


def test_reprojection_ignores_hidden_joints_and_shifts():
    torch.manual_seed(0)
    poses, camera = torch.randn(2, 5, 3), torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]).expand(2, 2, 3)
    seen = torch.ones(2, 5)
    joints = poses[..., :2] + torch.tensor([0.3, -2.0])
    torch.testing.assert_close(reprojection(poses, camera, joints, seen), torch.zeros(2, 5), atol=1e-6, rtol=0)
    seen[:, 3] = 0
    joints[:, 3] = math.nan
    poses.requires_grad_()
    apart = reprojection(poses, camera, joints, seen)
    assert apart.abs().max() < 1e-6
    apart.sum().backward()
    assert torch.isfinite(poses.grad).all() and poses.grad[:, 3].abs().max() == 0


def test_reprojection_by_hand():
    poses = torch.zeros(1, 2, 3)
    joints = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    camera = torch.zeros(1, 2, 3)
    torch.testing.assert_close(reprojection(poses, camera, joints, torch.ones(1, 2)), torch.ones(1, 2))


def test_scaled_rotations_are_weak_perspective():
    camera = torch.tensor([[[2.0, 0, 0], [0, 0, 2]], [[2.0, 0, 0], [0, 1, 0]], [[1.0, 0, 0], [1, 0, 0]]])
    found = weak_perspective(camera)
    assert found[0] < 1e-5
    assert found[1].item() == pytest.approx(math.sqrt(2) * 0.6, rel=1e-4)  # diag(1.6, 0.4) - 1
    assert found[2].item() == pytest.approx(math.sqrt(2), rel=1e-4)


def test_diversity_is_a_ratio_with_a_ceiling():
    one, other = torch.zeros(1, 2, 3), torch.full((1, 2, 3), 0.5)
    codes = torch.zeros(1, 4), torch.ones(1, 4)
    assert diversity(one, other, *codes, tau=2.0).item() == pytest.approx(0.5)
    assert diversity(one, 100 * other, *codes, tau=2.0).item() == 2.0
    assert diversity(one, one, *codes, tau=2.0).item() == 0


def test_pose_distance_by_hand():
    one = torch.zeros(1, 2, 3, requires_grad=True)
    other = torch.tensor([[[3.0, 4, 0], [0, 0, 0]]])
    found = pose_distance(one, other)
    torch.testing.assert_close(found, torch.tensor([(2.5 + 12.5**0.5) / 2]), atol=1e-3, rtol=0)
    found.sum().backward()
    assert torch.isfinite(one.grad).all() and one.grad[0, 0].norm() > 0.5
    assert pose_distance(other, other).item() < 1e-3


def test_samples_score_best_where_they_are_as_likely_as_the_truth():
    rng = torch.Generator().manual_seed(0)

    def score(width: float) -> float:
        true, one, other = (torch.randn(4000, 4, 3, generator=rng) for _ in range(3))
        return float((pose_distance(width * one, true) - pose_distance(width * one, width * other) / 2).mean())

    assert score(1.0) < min(score(0.5), score(1.6))


def test_features_are_held_small():
    features = torch.tensor([[3.0, 4], [0, 0]], requires_grad=True)
    assert feature_size(features).item() == 12.5 and feature_size(torch.zeros(2, 3)).item() == 0
    feature_size(features).backward()
    torch.testing.assert_close(features.grad, features.detach())


def test_displacement_of_seen_joints_by_hand():
    poses = torch.zeros(1, 2, 3, requires_grad=True)
    joints = torch.tensor([[[1.0, -3], [9, 9]]])
    found = displacement(poses, joints, torch.tensor([[1.0, 0]]))
    assert found.item() == 2
    found.sum().backward()
    torch.testing.assert_close(poses.grad[0], torch.tensor([[-0.5, 0.5, 0], [0, 0, 0]]))
    assert displacement(poses, torch.zeros(1, 2, 2), torch.ones(1, 2)).item() == 0


def test_proportions_within_the_usual_cost_nothing():
    poses = torch.tensor([[[-1.0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]]]).repeat(3, 1, 1).requires_grad_()
    size = torch.tensor([10.0, 14.0, 40.0]) * 0.5**0.5
    found = out_of_proportion(poses, size, 12.0, 16.0)
    expected = torch.tensor([math.log(1.2) ** 2, 0, math.log(2.5) ** 2])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    found.sum().backward()
    assert torch.isfinite(poses.grad).all() and poses.grad[0].abs().sum() > 0 and poses.grad[1].abs().sum() == 0


def test_code_distance():
    codes = torch.tensor([[1.0, -1.0]])
    assert code_distance(codes, codes).item() == 0
    assert code_distance(codes, torch.zeros(1, 2)).item() == 1
