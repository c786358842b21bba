"""The encoder of the `base` preset: torchvision's ResNet-18 with GroupNorm."""

from __future__ import annotations

from torch import Tensor, nn

from streampose.models.blocks import group_norm
from streampose.models.torchvision_shim import import_torchvision


class ResNetEncoder(nn.Module):
    """Features at strides 4, 8, 16 and 32."""

    widths = (64, 64, 128, 256, 512)

    def __init__(self, channels: int = 3):
        super().__init__()
        network = import_torchvision().models.resnet18(weights=None, norm_layer=group_norm)
        if channels != 3:
            network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.levels = nn.ModuleList([network.layer1, network.layer2, network.layer3, network.layer4])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features
