"""Heatmap losses: targets, divergence, robust distance."""

import pytest
import torch

from streampose.losses.heatmaps import gaussian_targets, heatmap_cross_entropy, robust_distance


def test_targets_sum_to_one_and_have_their_mean_at_the_point():
    xy = torch.tensor([[[0.2, -0.35]]])
    target = gaussian_targets(xy, 16)[0, 0]
    centres = (torch.arange(16) + 0.5) / 8 - 1
    assert float(target.sum()) == pytest.approx(1)
    assert float((target.sum(0) * centres).sum()) == pytest.approx(0.2, abs=2e-3)
    assert float((target.sum(1) * centres).sum()) == pytest.approx(-0.35, abs=2e-3)


def test_points_outside_go_to_the_edge():
    target = gaussian_targets(torch.tensor([[[3.0, 0.0]]]), 8)[0, 0]
    assert target.sum(0).argmax() == 7 and torch.isfinite(target).all()


def test_divergence_is_zero_for_equal_and_log_two_for_half():
    target = torch.zeros(1, 1, 1, 2)
    target[..., 0] = 1
    assert heatmap_cross_entropy(torch.log(target.clamp_min(1e-30)), target).item() == pytest.approx(0)
    half = torch.full((1, 1, 1, 2), 0.5)
    assert heatmap_cross_entropy(half.log(), target).item() == pytest.approx(0.6931, abs=1e-4)
    assert heatmap_cross_entropy(half.log(), half).item() == pytest.approx(0, abs=1e-6)


def test_robust_distance():
    a = torch.zeros(1, 1, 2, requires_grad=True)
    assert robust_distance(a, a).item() == 0
    far = robust_distance(a, torch.tensor([[[3.0, 4.0]]]))
    assert far.item() == pytest.approx(4.95, abs=1e-3)
    far.sum().backward()
    assert float(a.grad.norm()) == pytest.approx(1, abs=1e-3)
