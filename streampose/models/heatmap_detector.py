"""Pose recognisers that answer with a heatmap a joint: hourglass, simple baseline, HRNet; in published and small sizes.

A joint lies at the peak of its heatmap, refined below a cell by the parabola through the logarithms of the peak and its
neighbours, which is exact for the Gaussians that the networks are taught. The depth is zero: these are 2D detectors.
Only operations that ONNX has are used.

Sizes: `hourglass` (8 stacks), `simple` (ResNet-50) and `hrnet` (W32) are the published networks, with batch
normalisation; the `-small` ones are for crops of 64 or 128 pixels on a CPU, with group normalisation. Heatmaps are a
quarter of the input in all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streampose.models.blocks import group_norm
from streampose.models.detector import DetectorOutput, light_encoder
from streampose.models.hourglass import StackedHourglass
from streampose.models.hrnet import HRNet
from streampose.models.simple_baseline import SimpleBaseline, resnet50_encoder

HEATMAP_DETECTORS = ("hourglass", "simple", "hrnet", "hourglass-small", "simple-small", "hrnet-small")
STRIDE = 4  # of heatmaps
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in [0, 1]
LEAST_HEIGHT = 1e-3  # below it a heatmap's logarithm is cut


def build_heatmap_detector(preset: str, num_joints: int, input_size: int) -> HeatmapDetector:
    """Make an untrained recogniser.

    Args:
        preset: one of HEATMAP_DETECTORS.
        num_joints: K.
        input_size: side of the crops in pixels, a multiple of 64; of 32 for small ones.
    """
    if preset not in HEATMAP_DETECTORS:
        raise ValueError(f"detector preset {preset!r}: there are {', '.join(HEATMAP_DETECTORS)}")
    small = preset.endswith("-small")
    if input_size % (32 if small else 64):
        raise ValueError(f"input_size {input_size}: {preset} takes a multiple of {32 if small else 64}")
    norm = group_norm if small else nn.BatchNorm2d
    body: nn.Module
    if preset == "hourglass":
        body = StackedHourglass(num_joints, stacks=8, width=256, depth=4, norm=norm)
    elif preset == "hourglass-small":
        body = StackedHourglass(num_joints, stacks=2, width=64, depth=3, norm=norm)
    elif preset == "simple":
        body = SimpleBaseline(resnet50_encoder(), width=256, doublings=3, norm=norm)
    elif preset == "simple-small":
        body = SimpleBaseline(light_encoder(3, (16, 32, 64, 96)), width=64, doublings=2, norm=norm)
    elif preset == "hrnet":
        body = HRNet((32, 64, 128, 256), modules=(1, 4, 3), norm=norm)
    else:
        body = HRNet((24, 32, 48), modules=(1, 1), blocks=2, stem=16, bottlenecks=1, norm=norm)
    return HeatmapDetector(body, num_joints)


class HeatmapDetector(nn.Module):
    """A body that gives features, and the heatmaps that are read from them.

    Args:
        body: `width` channels of features, and heatmaps on the way to them, of (B, 3, S, S) images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, num_joints: int):
        super().__init__()
        self.body, self.num_joints = body, num_joints
        self.heatmap = nn.Conv2d(int(body.width), num_joints, 1)  # type: ignore[arg-type]
        nn.init.normal_(self.heatmap.weight, std=0.01)
        assert self.heatmap.bias is not None
        nn.init.zeros_(self.heatmap.bias)
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).reshape(1, 3, 1, 1), persistent=False)

    def heatmaps(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) in [0, 1] -> heatmaps (B, K, h, h), of every stack where there are several; the last counts."""
        features, earlier = self.body((images - self.mean) / self.std)
        return [maps.float() for maps in (*earlier, self.heatmap(features))]

    def forward(self, images: Tensor) -> DetectorOutput:
        """Detect the joints of (B, 3, S, S) images in [0, 1]; the heatmaps are heights with peaks up to 1."""
        maps = self.heatmaps(images)[-1]
        xy, height = peaks(maps)
        return DetectorOutput(torch.cat([xy, torch.zeros_like(xy[..., :1])], -1), height.clamp(0, 1), maps)


def peaks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Where heatmaps are highest.

    Args:
        maps: (B, K, h, w).

    Returns:
        (B, K, 2) x, y in [-1, 1], the edges of the maps; (B, K) heights.
    """
    h, w = maps.shape[-2:]
    flat = maps.flatten(2)  # (B, K, h * w)
    at = flat.argmax(-1)
    x, y = at % w, torch.div(at, w, rounding_mode="floor")

    def logarithm(column: Tensor, row: Tensor) -> Tensor:
        index = row.clamp(0, h - 1) * w + column.clamp(0, w - 1)
        return flat.gather(-1, index[..., None]).squeeze(-1).clamp_min(LEAST_HEIGHT).log()

    top = logarithm(x, y)
    right, left, below, above = logarithm(x + 1, y), logarithm(x - 1, y), logarithm(x, y + 1), logarithm(x, y - 1)
    column = x + _vertex(left, top, right)
    row = y + _vertex(above, top, below)
    xy = torch.stack([(column + 0.5) * (2 / w) - 1, (row + 0.5) * (2 / h) - 1], -1)
    return xy, flat.gather(-1, at[..., None]).squeeze(-1)


def _vertex(before: Tensor, top: Tensor, after: Tensor) -> Tensor:
    """Place of the highest point of the parabola through values at -1, 0 and 1, within half a cell."""
    return (0.5 * (after - before) / (2 * top - before - after).clamp_min(1e-4)).clamp(-0.5, 0.5)
