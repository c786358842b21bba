"""The shape prior network: range, shape, and that it can learn to thicken a skeleton."""

import torch
import torch.nn.functional as F

from streampose.models.shape_prior import ShapePriorNetwork


def test_range_and_shape():
    mask = ShapePriorNetwork()(torch.rand(2, 1, 32, 32))
    assert mask.shape == (2, 1, 32, 32)
    assert mask.min() > 0 and mask.max() < 1


def test_learns_to_dress_a_line():
    torch.manual_seed(0)
    network = ShapePriorNetwork(8)
    line = torch.zeros(4, 1, 32, 32)
    for sample in range(4):
        line[sample, :, 6 + 4 * sample, 4:28] = 1
    body = F.max_pool2d(line, 5, 1, 2)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = ((network(line) - body) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
