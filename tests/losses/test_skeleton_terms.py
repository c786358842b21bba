"""Skeleton terms: zero where the pose is plausible, values worked by hand, and gradients."""

import pytest
import torch

from streampose.losses.skeleton_terms import (
    constant_length,
    equal_lengths,
    length_ceiling,
    length_in_space,
    perpendicular,
    symmetry,
    tied,
)

BONE = torch.tensor([[0, 1]])


def test_constant_length_is_measured_in_heights():
    xy = torch.tensor([[[0.0, 0.0], [0.3, 0.4]]])  # 0.5 long
    height = torch.tensor([1.0])
    torch.testing.assert_close(constant_length(xy, BONE, torch.tensor([0.5]), height), torch.zeros(1, 1))
    torch.testing.assert_close(constant_length(xy, BONE, torch.tensor([0.2]), height), torch.tensor([[0.09]]))
    torch.testing.assert_close(constant_length(2 * xy, BONE, torch.tensor([0.2]), 2 * height), torch.tensor([[0.09]]))


def test_ceiling_lets_short_bones_be():
    xy = torch.tensor([[[0.0, 0.0], [0.3, 0.4]]])
    ceilings = torch.tensor([0.5])
    assert length_ceiling(xy, BONE, ceilings, torch.tensor([1.0])).item() == 0
    assert length_ceiling(0.1 * xy, BONE, ceilings, torch.tensor([1.0])).item() == 0
    assert length_ceiling(2 * xy, BONE, ceilings, torch.tensor([1.0])).item() == pytest.approx(0.25)


def test_symmetry_and_ties():
    xy = torch.tensor([[[0.1, 0.0], [0.3, 0.2], [-0.1, -0.2]]])
    midpoints = torch.tensor([[0, 1, 2]])
    torch.testing.assert_close(symmetry(xy, midpoints), torch.zeros(1, 1))
    moved = xy + torch.tensor([[[0.3, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(symmetry(moved, midpoints), torch.tensor([[0.09]]))
    assert tied(xy, torch.tensor([[1, 1]])).item() == 0
    torch.testing.assert_close(tied(xy, torch.tensor([[1, 2]])), torch.tensor([[0.32]]))


def test_depth_makes_up_for_a_short_projection():
    X = torch.tensor([[[0.0, 0.0, 0.0], [0.3, 0.0, 0.4]]], requires_grad=True)
    term = length_in_space(X, BONE, torch.tensor([0.5]), torch.tensor([1.0]))
    assert term.item() == pytest.approx(0, abs=1e-6)
    longer = length_in_space(X, BONE, torch.tensor([0.9]), torch.tensor([1.0]))
    longer.sum().backward()
    assert X.grad[0, 1, 2] < 0  # descending makes the bone longer in depth


def test_left_and_right_bones_compare_in_space():
    X = torch.tensor([[[0.0, 0.0, 0.0], [0.3, 0.0, 0.4], [-0.5, 0.0, 0.0]]])
    left, right = torch.tensor([[0, 1]]), torch.tensor([[0, 2]])
    torch.testing.assert_close(equal_lengths(X, left, right, torch.tensor([1.0])), torch.zeros(1, 1))
    X[0, 2, 0] = -0.3
    torch.testing.assert_close(equal_lengths(X, left, right, torch.tensor([2.0])), torch.tensor([[0.01]]))


def test_perpendicular_is_a_squared_cosine():
    X = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 2.0, 0.0]]])
    trunk = torch.tensor([[0, 1]])
    assert perpendicular(X, torch.tensor([[2, 3]]), trunk).item() == pytest.approx(0)
    assert perpendicular(X, torch.tensor([[2, 4]]), trunk).item() == pytest.approx(0.5)
    assert torch.isfinite(perpendicular(X * 0, torch.tensor([[2, 3]]), trunk)).all()


@pytest.mark.parametrize(
    "term",
    [
        lambda X: constant_length(X[..., :2], BONE, X.new_tensor([0.3]), X.new_ones(2)),
        lambda X: length_ceiling(X[..., :2], BONE, X.new_tensor([0.1]), X.new_ones(2)),
        lambda X: length_in_space(X, BONE, X.new_tensor([0.3]), X.new_ones(2)),
        lambda X: perpendicular(X, BONE, torch.tensor([[1, 2]])),
    ],
)
def test_gradients_agree_with_differences(term):
    torch.manual_seed(0)
    X = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(term, (X,))
