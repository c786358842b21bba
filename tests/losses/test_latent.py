"""Divergence and reconstruction errors: zero where nothing differs, by hand, gradients, missing joints."""

import math

import torch

from streampose.losses.latent import image_error, kl_to_standard_normal, mean_over, pose_error


def test_divergence_is_zero_for_the_prior_and_known_by_hand():
    zero = torch.zeros(2, 5)
    assert kl_to_standard_normal(zero, zero).abs().max() == 0
    found = kl_to_standard_normal(torch.tensor([[2.0]]), torch.tensor([[math.log(4.0)]]))
    torch.testing.assert_close(found, torch.tensor([[0.5 * (4 + 4 - 1 - math.log(4.0))]]))


def test_divergence_equals_the_one_of_torch_and_pulls_towards_the_prior():
    mean, log_variance = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    q = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    found = kl_to_standard_normal(mean, log_variance)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    torch.testing.assert_close(mean.grad, mean.detach())


def test_image_error():
    image = torch.rand(2, 3, 4, 4)
    assert image_error(image, image).abs().max() == 0
    torch.testing.assert_close(image_error(image + 0.5, image), torch.full((2,), 0.25))
    moved = (image + 0.5).requires_grad_()
    image_error(moved, image).sum().backward()
    torch.testing.assert_close(moved.grad, torch.full_like(image, 2 * 0.5 / 48))


def test_pose_error_is_the_mean_squared_distance_of_known_joints():
    pose = torch.randn(2, 5, 3)
    assert pose_error(pose, pose).abs().max() == 0
    torch.testing.assert_close(pose_error(pose + torch.tensor([3.0, 0.0, 4.0]), pose), torch.full((2,), 25.0))
    missing = pose.clone()
    missing[:, 1] = torch.nan
    predicted = (pose + 1).requires_grad_()
    found = pose_error(predicted, missing)
    torch.testing.assert_close(found, torch.full((2,), 3.0))
    found.sum().backward()
    assert predicted.grad[:, 1].abs().max() == 0 and predicted.grad[:, 0].abs().min() > 0
    assert pose_error(predicted, torch.full_like(pose, torch.nan)).tolist() == [0.0, 0.0]


def test_mean_over_some_rows():
    values = torch.tensor([1.0, 2.0, 30.0])
    assert mean_over(values, torch.tensor([True, True, False])) == 1.5
    assert mean_over(values, torch.zeros(3, dtype=torch.bool)) == 0
