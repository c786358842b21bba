"""The networks of MirrorNet beside the recogniser: sizes of Table 9, shapes, what depends on what."""

import pytest
import torch
from torch import nn

from streampose.models.mirrornet import FULL, SMALL, WIDTHS, build_mirror

X, S, A = (1, 3, 64, 64), (1, 16, 64, 64), (1, 512, 8, 8)


@pytest.mark.parametrize(
    ("name", "shapes", "parameters", "operations"),
    [
        ("appearance", [X], 5.28, 1.11),
        ("scene", [X], 5.28, 1.11),
        ("primitive", [S], 5.29, 1.13),
        ("image", [S, A], 12.84, 3.25),
        ("mask", [(1, 19, 64, 64)], 10.28, 1.42),
        ("pose", [(1, 256, 8, 8)], 1.33, 1.13),
    ],
)
def test_published_sizes(name, shapes, parameters, operations):
    """Operations are counted as in `test_heatmap_detector.count`."""
    found = 0

    def add(layer, _, output):
        nonlocal found
        found += layer.weight.numel() * output.shape[2:].numel()

    with torch.device("meta"):
        network = build_mirror(FULL, 16)[name]
        for layer in network.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                layer.register_forward_hook(add)
        network(*(torch.zeros(shape) for shape in shapes))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(parameters, rel=0.05)
    assert found / 2**30 == pytest.approx(operations, rel=0.05)


@pytest.mark.parametrize("size", WIDTHS)
def test_shapes(size):
    widths = WIDTHS[size]
    with torch.device("meta"):
        networks = build_mirror(widths, 5)
        x, s = torch.zeros(2, 3, 16, 16), torch.zeros(2, 5, 16, 16)
        mean, log_variance = networks["appearance"](x)
        assert mean.shape == log_variance.shape == (2, widths.latent, 2, 2)
        z, _ = networks["primitive"](s)
        assert networks["pose"](z).shape == s.shape
        assert networks["image"](s, torch.cat([mean, mean], 1)).shape == x.shape
        assert networks["mask"](torch.cat([x, s], 1)).shape == (2, 1, 16, 16)


def test_the_image_depends_on_pose_appearance_and_scene():
    torch.manual_seed(0)
    networks = build_mirror(SMALL, 5)
    s = torch.rand(1, 5, 16, 16, requires_grad=True)
    latent = torch.rand(1, 2 * SMALL.latent, 2, 2, requires_grad=True)
    networks["image"](s, latent).square().sum().backward()
    assert s.grad.abs().sum() > 0
    assert (latent.grad.abs().sum((0, 2, 3)) > 0).all()
