"""Convolution blocks that all networks share: GroupNorm instead of BatchNorm (Mask as Supervision, Sec. 4.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with groups of at least four channels, at most eight groups."""
    groups = max(1, min(8, channels // 4))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def conv_block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, GroupNorm, ReLU: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), group_norm(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two convolutions beside a shortcut; the first may halve the resolution and change the channels."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.first = conv_block(inputs, outputs, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), group_norm(outputs))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class Encoder(nn.Module):
    """Features at strides 4, 8, 16 and 32: a stem, then levels of which each gives one.

    Attributes:
        widths: channels after the stem and after each level.
    """

    def __init__(self, stem: nn.Module, levels: list[nn.Module], widths: tuple[int, ...]):
        super().__init__()
        self.stem, self.levels, self.widths = stem, nn.ModuleList(levels), widths

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class Up(nn.Module):
    """Double the resolution of the deep features and merge in the skipped ones."""

    def __init__(self, deep: int, skip: int, outputs: int):
        super().__init__()
        self.deep = nn.Conv2d(deep, outputs, 1, bias=False)
        self.skip = nn.Conv2d(skip, outputs, 1, bias=False)
        self.merge = nn.Sequential(group_norm(outputs), nn.ReLU(inplace=True), conv_block(outputs, outputs))

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = F.interpolate(self.deep(deep), scale_factor=2.0, mode="nearest")
        return self.merge(deep + self.skip(skip))
