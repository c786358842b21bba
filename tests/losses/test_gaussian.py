"""Terms of lower bounds with Gaussians: distance, divergence, sampling, heatmaps."""

import pytest
import torch

from streampose.losses.gaussian import gaussian_distance, gaussian_peaks, kl_to_standard, sample


def test_distance_is_zero_for_equal_and_half_a_square_over_the_variance():
    x = torch.rand(2, 3, 4)
    assert gaussian_distance(x, x, 0.01).tolist() == [0, 0]
    off = torch.zeros(1, 2, 2)
    off[0, 0, 0], off[0, 1, 1] = 0.2, 0.1
    assert gaussian_distance(off, torch.zeros_like(off), 0.01).item() == pytest.approx(0.5 * 0.05 / 0.01)


def test_what_is_left_out_counts_nothing_and_pulls_nothing():
    mean = torch.rand(1, 2, 3, requires_grad=True)
    weight = torch.tensor([[[1.0], [0.0]]])
    gaussian_distance(torch.zeros(1, 2, 3), mean, 1.0, weight).sum().backward()
    torch.testing.assert_close(mean.grad[0, 0], mean.detach()[0, 0])  # (mean - x) / variance
    assert not mean.grad[0, 1].any()


def test_divergence_from_the_standard_normal():
    zeros = torch.zeros(2, 5)
    assert kl_to_standard(zeros, zeros).tolist() == [0, 0]
    one = torch.tensor([[1.0]])
    assert kl_to_standard(one, torch.zeros(1, 1)).item() == pytest.approx(0.5)
    assert kl_to_standard(torch.zeros(1, 1), one).item() == pytest.approx(0.5 * (2.718282 - 2), abs=1e-5)
    exact = torch.distributions.kl_divergence(torch.distributions.Normal(0.3, 2.0), torch.distributions.Normal(0, 1))
    found = kl_to_standard(torch.tensor([[0.3]]), torch.tensor([[4.0]]).log())
    assert found.item() == pytest.approx(exact.item(), abs=1e-6)


def test_samples_have_the_mean_and_variance_and_carry_gradients():
    torch.manual_seed(0)
    mean = torch.full((20000,), 0.5, requires_grad=True)
    drawn = sample(mean, torch.full((20000,), -2.0))
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert drawn.var().item() == pytest.approx(0.1353, abs=0.005)
    drawn.sum().backward()
    assert mean.grad.unique().tolist() == [1]


def test_heatmaps_have_height_one_at_the_point():
    maps = gaussian_peaks(torch.tensor([[[1 / 16, -7 / 16]]]), 16, 1.5)  # the centre of cell (4, 8)
    assert maps.shape == (1, 1, 16, 16)
    assert maps[0, 0, 4, 8].item() == pytest.approx(1, abs=1e-5)
    assert maps[0, 0, 4, 9].item() == pytest.approx(0.8007, abs=1e-3)
    assert gaussian_peaks(torch.tensor([[[3.0, 0.0]]]), 16, 1.5).max() < 1e-6
