"""The encoder of the `base` preset: torchvision's ResNet-18 with GroupNorm."""

from __future__ import annotations

from torch import nn

from streampose.models.blocks import Encoder, group_norm
from streampose.models.torchvision_shim import import_torchvision


def resnet_encoder(channels: int = 3) -> Encoder:
    """Untrained; for images of so many channels."""
    network = import_torchvision().models.resnet18(weights=None, norm_layer=group_norm)
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    levels = [network.layer1, network.layer2, network.layer3, network.layer4]
    return Encoder(stem, levels, (64, 64, 128, 256, 512))
