"""The high-resolution network: branches at several resolutions side by side that exchange what they see.

Source: Sun, Xiao, Liu, Wang, Deep High-Resolution Representation Learning for Human Pose Estimation, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


def conv(
    inputs: int, outputs: int, norm: Norm, *, kernel: int = 3, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution without bias, normalisation, ReLU."""
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), norm(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.layers = nn.Sequential(conv(width, width, norm), conv(width, width, norm, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + x)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 beside the identity or a 1x1 convolution."""

    def __init__(self, inputs: int, middle: int, outputs: int, norm: Norm):
        super().__init__()
        self.layers = nn.Sequential(
            conv(inputs, middle, norm, kernel=1),
            conv(middle, middle, norm),
            conv(middle, outputs, norm, kernel=1, relu=False),
        )
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, norm, kernel=1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


class Exchange(nn.Module):
    """Blocks on every branch, then each of the first `outputs` branches gets the sum of all, resized.

    Args:
        widths: channels of the branches, the finest first; each has half the resolution of the one before.
    """

    def __init__(self, widths: list[int], outputs: int, blocks: int, norm: Norm):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w, norm) for _ in range(blocks))) for w in widths)
        self.fuse = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target, norm) for source in range(len(widths)))
            for target in range(outputs)
        )

    @staticmethod
    def _path(widths: list[int], source: int, target: int, norm: Norm) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            project = conv(widths[source], widths[target], norm, kernel=1, relu=False)
            return nn.Sequential(project, nn.Upsample(scale_factor=2.0 ** (source - target), mode="nearest"))
        steps = target - source
        middle = [conv(widths[source], widths[source], norm, stride=2) for _ in range(steps - 1)]
        return nn.Sequential(*middle, conv(widths[source], widths[target], norm, stride=2, relu=False))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for paths in self.fuse:
            assert isinstance(paths, nn.ModuleList)
            fused.append(F.relu(torch.stack([path(x) for path, x in zip(paths, maps, strict=True)]).sum(0)))
        return fused


class HRNet(nn.Module):
    """Stem, a stage of bottlenecks, then stages with two, three and four branches; the finest branch comes out.

    Args:
        widths: channels of the branches.
        modules: exchanges in the stages with two, three, four branches.
        stem, bottlenecks: channels of the stem, number of bottlenecks in the first stage.

    Attributes:
        width: channels of the features.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        *,
        modules: tuple[int, ...],
        blocks: int = 4,
        stem: int = 64,
        bottlenecks: int = 4,
        norm: Norm,
    ):
        super().__init__()
        self.width = widths[0]
        self.stem = nn.Sequential(conv(3, stem, norm, stride=2), conv(stem, stem, norm, stride=2))
        wide = 4 * stem
        self.first = nn.Sequential(
            *(BottleneckBlock(stem if n == 0 else wide, stem, wide, norm) for n in range(bottlenecks))
        )
        self.enter, self.stages = nn.ModuleList(), nn.ModuleList()
        for number, (branches, count) in enumerate(zip(range(2, len(widths) + 1), modules, strict=True)):
            entries: list[nn.Module]
            if number == 0:
                entries = [conv(wide, widths[0], norm), conv(wide, widths[1], norm, stride=2)]
            else:
                entries = [nn.Identity() for _ in range(branches - 1)]
                entries.append(conv(widths[branches - 2], widths[branches - 1], norm, stride=2))
            self.enter.append(nn.ModuleList(entries))
            last = number == len(modules) - 1
            self.stages.append(
                nn.Sequential(
                    *(
                        Exchange(list(widths[:branches]), 1 if last and n == count - 1 else branches, blocks, norm)
                        for n in range(count)
                    )
                )
            )

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, S, S) -> features (B, width, S / 4, S / 4); no heatmaps on the way."""
        x = self.first(self.stem(images))
        maps = [x]
        for number, (enter, stage) in enumerate(zip(self.enter, self.stages, strict=True)):
            assert isinstance(enter, nn.ModuleList)
            if number == 0:
                maps = [entry(x) for entry in enter]
            else:
                maps = [entry(m) for entry, m in zip(enter, [*maps, maps[-1]], strict=True)]
            maps = stage(maps)
        return maps[0], []
