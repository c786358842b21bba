import torch

from streampose.losses.heatmaps import gaussian_targets
from streampose.losses.supervised import XY_WEIGHT, counting, mean_of_placed, supervised


def example(requires_grad=False):
    generator = torch.Generator().manual_seed(3)
    xy = torch.rand(4, 5, 2, generator=generator) * 1.6 - 0.8
    logits = torch.randn(4, 5, 8, 8, generator=generator)
    xy.requires_grad_(requires_grad), logits.requires_grad_(requires_grad)
    return xy, logits, logits.flatten(2).log_softmax(-1).reshape(4, 5, 8, 8)


def test_zero_on_equal_inputs():
    xy, _, _ = example()
    maps = gaussian_targets(xy, 8).clamp_min(1e-30).log()
    torch.testing.assert_close(supervised(xy, xy, torch.ones(4, 5), maps), torch.zeros(4, 5), atol=1e-5, rtol=0)
    assert (supervised(xy, xy, torch.ones(4, 5)) == 0).all()


def test_a_value_by_hand():
    xy, target = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[0.3, 0.4]]])
    expected = XY_WEIGHT * ((0.5**2 + 0.05**2) ** 0.5 - 0.05)
    torch.testing.assert_close(supervised(xy, target, torch.tensor([[0.5]])), torch.tensor([[0.5 * expected]]))


def test_what_is_not_placed_or_outside_contributes_nothing():
    xy, logits, maps = example(requires_grad=True)
    target, weight = torch.zeros(4, 5, 2), torch.ones(4, 5)
    target[0, 1] = float("nan")
    target[1, 2, 0] = 1.4
    weight[2, 3] = 0
    distance = supervised(xy, target, weight, maps)
    out = [(0, 1), (1, 2), (2, 3)]
    assert all(distance[at] == 0 for at in out) and (counting(target, weight) > 0).sum() == 17
    mean = mean_of_placed(distance, target, weight)
    mean.backward()
    assert torch.isfinite(xy.grad).all() and torch.isfinite(logits.grad).all()
    assert all((xy.grad[at] == 0).all() and (logits.grad[at] == 0).all() for at in out)
    assert (xy.grad.abs().sum(-1) > 0).sum() == 17
    torch.testing.assert_close(mean, distance.sum() / 17)


def test_nothing_placed_is_zero_and_the_gradient_points_to_the_label():
    xy = torch.zeros(1, 1, 2, requires_grad=True)
    nothing = torch.full((1, 1, 2), float("nan"))
    assert mean_of_placed(supervised(xy, nothing, torch.ones(1, 1)), nothing, torch.ones(1, 1)) == 0
    target = torch.tensor([[[0.5, -0.5]]])
    supervised(xy, target, torch.ones(1, 1)).sum().backward()
    assert xy.grad[0, 0, 0] < 0 < xy.grad[0, 0, 1]
    torch.autograd.gradcheck(
        lambda x: supervised(x, target.double(), torch.ones(1, 1)), torch.rand(1, 1, 2).double().requires_grad_()
    )
