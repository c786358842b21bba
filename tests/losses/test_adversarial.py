"""Least-squares adversarial terms."""

import pytest
import torch

from streampose.losses.adversarial import discriminator_loss, generator_loss


def test_zero_where_the_discriminator_is_right_and_where_it_is_fooled():
    one, zero = torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    assert discriminator_loss([one, one], [zero, zero]).item() == 0
    assert generator_loss([one]).item() == 0


def test_by_hand_and_gradient():
    real, made = torch.tensor([0.5, 1.0]), torch.tensor([0.2, 0.4], requires_grad=True)
    assert discriminator_loss([real], [made]).item() == pytest.approx(0.125 + 0.1)
    generator_loss([made]).backward()
    torch.testing.assert_close(made.grad, torch.tensor([-0.8, -0.6]))


def test_scales_count_alike_whatever_their_size():
    large, small = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 2, 2)
    assert generator_loss([large, small]).item() == pytest.approx(0.5)
