"""The simple baseline: a ResNet, then three transposed convolutions up to a quarter of the image.

Source: Xiao, Wu, Wei, Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from streampose.models.blocks import Encoder
from streampose.models.torchvision_shim import import_torchvision


class SimpleBaseline(nn.Module):
    """An encoder, and as many doublings by transposed convolutions as bring the heatmaps to their stride.

    Attributes:
        width: channels of the features.
    """

    def __init__(self, encoder: Encoder, *, width: int, doublings: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.encoder, self.width = encoder, width
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([encoder.widths[-1], *[width] * doublings]):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), norm(outputs), nn.ReLU()]
        self.up = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, S, S) -> features (B, width, h, h); no heatmaps on the way."""
        return self.up(self.encoder(images)[-1]), []


def resnet50_encoder() -> Encoder:
    """torchvision's ResNet-50, untrained; its tensors have torchvision's names but for the stem's and levels'."""
    network = import_torchvision().models.resnet50(weights=None)
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    levels = [network.layer1, network.layer2, network.layer3, network.layer4]
    return Encoder(stem, levels, (64, 256, 512, 1024, 2048))
