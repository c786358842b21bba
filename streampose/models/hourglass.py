"""The stacked hourglass network: top-down and bottom-up again and again, heatmaps after every stack.

Source: Newell, Yang, Deng, Stacked Hourglass Networks for Human Pose Estimation, ECCV 2016.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


class Bottleneck(nn.Module):
    """Pre-activation residual block: 1x1 to half the width, 3x3, 1x1 back."""

    def __init__(self, inputs: int, outputs: int, norm: Norm):
        super().__init__()
        middle = outputs // 2
        self.layers = nn.Sequential(
            norm(inputs), nn.ReLU(), nn.Conv2d(inputs, middle, 1),
            norm(middle), nn.ReLU(), nn.Conv2d(middle, middle, 3, 1, 1),
            norm(middle), nn.ReLU(), nn.Conv2d(middle, outputs, 1),
        )  # fmt: skip
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


class Hourglass(nn.Module):
    """Halves the resolution `depth` times and doubles it again, with a residual block beside every level."""

    def __init__(self, width: int, depth: int, norm: Norm):
        super().__init__()
        self.beside, self.down = Bottleneck(width, width, norm), Bottleneck(width, width, norm)
        self.inner = Hourglass(width, depth - 1, norm) if depth > 1 else Bottleneck(width, width, norm)
        self.up = Bottleneck(width, width, norm)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.beside(x) + F.interpolate(deep, scale_factor=2.0, mode="nearest")


class StackedHourglass(nn.Module):
    """Hourglasses one after the other; each but the last hands its features and heatmaps on.

    Args:
        stacks: how many hourglasses.
        width: channels.
        depth: halvings in an hourglass.

    Attributes:
        width: channels of the last features.
    """

    def __init__(self, num_joints: int, *, stacks: int, width: int, depth: int, norm: Norm):
        super().__init__()
        self.width = width
        quarter = width // 4
        self.stem = nn.Sequential(
            nn.Conv2d(3, quarter, 7, 2, 3), norm(quarter), nn.ReLU(),
            Bottleneck(quarter, width // 2, norm), nn.MaxPool2d(2),
            Bottleneck(width // 2, width, norm), Bottleneck(width, width, norm),
        )  # fmt: skip
        self.hourglasses = nn.ModuleList(Hourglass(width, depth, norm) for _ in range(stacks))
        self.features = nn.ModuleList(
            nn.Sequential(Bottleneck(width, width, norm), nn.Conv2d(width, width, 1), norm(width), nn.ReLU())
            for _ in range(stacks)
        )
        self.earlier = nn.ModuleList(nn.Conv2d(width, num_joints, 1) for _ in range(stacks - 1))
        self.back = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(stacks - 1))
        self.back_heatmaps = nn.ModuleList(nn.Conv2d(num_joints, width, 1) for _ in range(stacks - 1))

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, S, S) -> features (B, width, S / 4, S / 4) of the last stack, heatmaps of each one before it."""
        x = self.stem(images)
        heatmaps: list[Tensor] = []
        for n, (hourglass, features) in enumerate(zip(self.hourglasses, self.features, strict=True)):
            y = features(hourglass(x))
            if n == len(self.hourglasses) - 1:
                return y, heatmaps
            heatmaps.append(self.earlier[n](y))
            x = x + self.back[n](y) + self.back_heatmaps[n](heatmaps[-1])
        raise AssertionError("there is no hourglass")
