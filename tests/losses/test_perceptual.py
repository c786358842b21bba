"""Distances in features."""

import pytest
import torch

from streampose.losses.perceptual import feature_distance


def test_zero_for_equal_one_for_the_mean_and_layers_count_alike():
    wanted = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert feature_distance([wanted], [wanted]).item() == 0
    mean = wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted)
    assert feature_distance([mean], [wanted]).item() == pytest.approx(1, abs=1e-5)
    assert feature_distance([mean, 100 * mean], [wanted, 100 * wanted]).item() == pytest.approx(1, abs=1e-4)


def test_masked_samples_contribute_nothing():
    wanted = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = wanted.clone()
    found[1] += 5
    found.requires_grad_()
    distance = feature_distance([found], [wanted], torch.tensor([1.0, 0.0]))
    assert distance.item() == 0
    distance.backward()
    assert not found.grad[1].any()


def test_gradient_goes_to_what_was_made_only():
    found, wanted = torch.zeros(1, 1, 2, 2, requires_grad=True), torch.rand(1, 1, 2, 2, requires_grad=True)
    feature_distance([found], [wanted]).backward()
    assert found.grad.abs().sum() > 0 and wanted.grad is None
