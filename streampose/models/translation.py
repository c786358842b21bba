"""The networks of Jakab et al. (`landmarks`, App. E and F): image -> skeleton image -> joints, and back to an image.

    Phi   ImageEncoder      image -> skeleton image: a downsampling and an upsampling module (Fig. 17, 22)
    eta   SkeletonReader    skeleton image -> a heatmap a joint -> joints: a downsampling module (Fig. 19)
    Psi   ImageDecoder      clean skeleton image, appearance image -> image (Fig. 18, 23)

`LandmarkDetector` is eta after Phi: what is exported. `FreeDetector` is its ancestor without poses (Jakab et al. 2018):
points that nobody named, read from the image at once, and a linear map from them to joints that few labels teach.

A `Plan` says how wide they are. `small` and `base` are App. E at half and full width; `tiny` works on images and
skeletons of half the crop's side, which a laptop's core can train. `-skip` plans are App. F's. Skeleton images have one
channel; `-sided` plans draw middle, left and right bones in three, so that eta need not guess which leg is which.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampose.models.detector import DetectorOutput, cell_centres

FREE_POINTS = 30  # of the ancestor


@dataclass(frozen=True)
class Plan:
    """How the networks of a preset are built.

    Attributes:
        widths: channels at each level; a level halves the resolution of the one before.
        half: the first convolution of Phi halves the crop, and skeletons and made images are half as large.
        fine: eta's heatmaps are twice as fine, those of the deepest level added to those of the one above it.
        skip: Phi's decoder sees the features of its encoder (App. F).
        sided: skeleton images have a channel each for middle, left and right bones.
    """

    widths: tuple[int, ...]
    half: bool = False
    fine: bool = False
    skip: bool = False
    sided: bool = False

    @property
    def channels(self) -> int:
        """Of a skeleton image."""
        return 3 if self.sided else 1

    @property
    def heatmap_stride(self) -> int:
        """Pixels of a skeleton image in each cell of a heatmap."""
        return 2 ** (len(self.widths) - (2 if self.fine else 1))

    def image_size(self, input_size: int) -> int:
        """Side of skeleton images and of what Psi makes."""
        return input_size // 2 if self.half else input_size


SIZES = {
    "tiny": Plan((16, 32, 64), half=True, fine=True),
    "small": Plan((16, 32, 64, 128)),
    "base": Plan((32, 64, 128, 256)),
}
PLANS = {
    f"landmarks-{size}{skip}{sided}": replace(plan, skip=bool(skip), sided=bool(sided))
    for size, plan in SIZES.items()
    for skip in ("", "-skip")
    for sided in ("", "-sided")
} | {f"ancestor-{size}": plan for size, plan in SIZES.items()}


def build_landmark_detector(preset: str, num_joints: int, input_size: int) -> LandmarkDetector | FreeDetector:
    """Make the untrained detector of a preset of `PLANS`.

    Args:
        num_joints: K.
        input_size: side of the crops in pixels; a multiple of 32.

    Raises:
        ValueError: no such preset.
    """
    if preset not in PLANS:
        raise ValueError(f"detector preset {preset!r}: there are {', '.join(PLANS)}")
    kind = FreeDetector if preset.startswith("ancestor-") else LandmarkDetector
    return kind(PLANS[preset], num_joints, input_size)


def norm_block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Down(nn.Module):
    """The downsampling module: two convolutions a level, the first of them 7 x 7; gives the features of each level."""

    def __init__(self, channels: int, widths: tuple[int, ...], *, stride: int = 1):
        super().__init__()
        first = nn.Sequential(
            norm_block(channels, widths[0], kernel=7, stride=stride), norm_block(widths[0], widths[0])
        )
        rest = [
            nn.Sequential(norm_block(before, after, stride=2), norm_block(after, after))
            for before, after in pairwise(widths)
        ]
        self.levels = nn.ModuleList([first, *rest])

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class UpSteps(nn.Module):
    """The upsampling module: two convolutions a level, bilinear doubling between levels."""

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int, *, skip: bool = False):
        super().__init__()
        self.skip = skip
        self.deepest = nn.Sequential(norm_block(inputs, widths[-1]), norm_block(widths[-1], widths[-1]))
        levels = []
        for number in range(len(widths) - 2, -1, -1):
            width = widths[number]
            last = nn.Conv2d(width, outputs, 3, 1, 1) if number == 0 else norm_block(width, width)
            levels.append(nn.Sequential(norm_block(widths[number + 1] + (width if skip else 0), width), last))
        self.levels = nn.ModuleList(levels)

    def forward(self, x: Tensor, skipped: list[Tensor]) -> Tensor:
        """Deepest features (B, C, h, w) and, where `skip`, those of the shallower levels, shallowest first."""
        x = self.deepest(x)
        for number, level in enumerate(self.levels):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            if self.skip:
                x = torch.cat([x, skipped[-1 - number]], 1)
            x = level(x)
        return x


class ImageEncoder(nn.Module):
    """Phi (Fig. 17; Fig. 22 with skip connections): (B, 3, S, S) in [0, 1] -> skeleton image (B, C, s, s)."""

    def __init__(self, plan: Plan):
        super().__init__()
        deep = plan.widths[-1]
        self.down = Down(3, plan.widths, stride=2 if plan.half else 1)
        self.code = nn.Conv2d(deep, deep, 1)
        self.up = UpSteps(deep, plan.widths, plan.channels, skip=plan.skip)

    def forward(self, images: Tensor) -> Tensor:
        *shallow, deep = self.down(images * 2 - 1)
        return self.up(self.code(deep), shallow)


class SkeletonReader(nn.Module):
    """eta (Fig. 19): skeleton image (B, C, s, s) -> heatmap logits (B, K, h, w)."""

    def __init__(self, plan: Plan, channels: int, num_points: int, *, stride: int = 1):
        super().__init__()
        self.down = Down(channels, plan.widths, stride=stride)
        self.heatmaps = nn.Conv2d(plan.widths[-1], num_points, 1)
        self.details = nn.Conv2d(plan.widths[-2], num_points, 1) if plan.fine else None

    def forward(self, skeletons: Tensor) -> Tensor:
        *_, above, deepest = self.down(skeletons)
        logits = self.heatmaps(deepest)
        if self.details is None:
            return logits
        coarse = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        return coarse + self.details(above)


class LandmarkDetector(nn.Module):
    """eta after Phi: the joints of an image, through its skeleton image and nothing else."""

    cells: Tensor

    def __init__(self, plan: Plan, num_joints: int, input_size: int):
        super().__init__()
        self.num_joints, self.plan, self.input_size = num_joints, plan, input_size
        self.size = plan.image_size(input_size)
        self.heatmap_size = self.size // plan.heatmap_stride
        self.image_encoder = ImageEncoder(plan)
        self.reader = SkeletonReader(plan, plan.channels, num_joints)
        self.register_buffer("cells", cell_centres(self.heatmap_size), persistent=False)

    def forward(self, images: Tensor) -> DetectorOutput:
        """Detect the joints of (B, 3, S, S) images in [0, 1]; z is 0, because the method says nothing about depth."""
        return self.read(self.image_encoder(images))

    def read(self, skeletons: Tensor) -> DetectorOutput:
        """The joints of (B, C, s, s) skeleton images.

        Confidence is the share of a heatmap around its peak, times how dark the skeleton image is where it lies.
        """
        out = expectations(self.reader(skeletons), self.cells)
        drawn = skeletons.float().amax(1, keepdim=True)
        step = self.size // self.heatmap_size
        drawn = F.max_pool2d(drawn, step, step).clamp(0, 1)  # (B, 1, h, w)
        seen = (out.heatmaps.exp() * drawn).sum((2, 3))
        return out._replace(confidence=out.confidence * seen)


class FreeDetector(nn.Module):
    """The ancestor: points that explain how images change, and joints as a linear map of them."""

    cells: Tensor

    def __init__(self, plan: Plan, num_joints: int, input_size: int):
        super().__init__()
        self.num_joints, self.plan, self.input_size = num_joints, plan, input_size
        self.size = plan.image_size(input_size)
        self.heatmap_size = self.size // plan.heatmap_stride
        self.reader = SkeletonReader(plan, 3, FREE_POINTS, stride=2 if plan.half else 1)
        self.regressor = nn.Linear(2 * FREE_POINTS, 2 * num_joints)
        self.register_buffer("cells", cell_centres(self.heatmap_size), persistent=False)
        nn.init.zeros_(self.regressor.bias)
        with torch.no_grad():  # joints without labels: the first points, so that there is something to draw
            self.regressor.weight.copy_(torch.eye(2 * num_joints, 2 * FREE_POINTS))

    def points(self, images: Tensor) -> DetectorOutput:
        """The unnamed points of (B, 3, S, S) images: keypoints (B, FREE_POINTS, 3)."""
        return expectations(self.reader(images * 2 - 1), self.cells)

    def name(self, points: Tensor) -> Tensor:
        """Points (B, FREE_POINTS, 2) -> joints (B, K, 2)."""
        return self.regressor(points.flatten(1).float()).reshape(-1, self.num_joints, 2)

    def forward(self, images: Tensor) -> DetectorOutput:
        """Detect the joints; the heatmaps are those of the points, and confidence is the points' mean."""
        out = self.points(images)
        xy = self.name(out.keypoints[..., :2])
        confidence = out.confidence.mean(1, keepdim=True).expand(-1, self.num_joints)
        return DetectorOutput(torch.cat([xy, torch.zeros_like(xy[..., :1])], -1), confidence, out.heatmaps)


def expectations(logits: Tensor, cells: Tensor) -> DetectorOutput:
    """Heatmap logits (B, K, h, h) as probabilities, and their means as points with z = 0."""
    B, K, size, _ = logits.shape
    log_probability = F.log_softmax(logits.float().flatten(2), -1).reshape(B, K, size, size)
    maps = log_probability.exp()
    x, y = (maps.sum(2) * cells).sum(-1), (maps.sum(3) * cells).sum(-1)
    confidence = F.avg_pool2d(maps, 3, 1, 1).flatten(2).amax(-1) * 9
    return DetectorOutput(torch.stack([x, y, torch.zeros_like(x)], -1), confidence.clamp(0, 1), log_probability)


class ImageDecoder(nn.Module):
    """Psi: the image whose pose is a skeleton image's and whose look is another image's.

    Fig. 18 encodes both in branches of their own and concatenates them. With `limbs` (Fig. 23) the features of the
    appearance image are masked by the skeleton's limbs instead, and skip connections lead to the output.

    Args:
        channels: of the skeleton image.
        conditional: False leaves the appearance image out, as CycleGAN does.
        limbs: how many limb masks there are; 0 for Fig. 18.
    """

    def __init__(self, plan: Plan, channels: int, *, conditional: bool = True, limbs: int = 0):
        super().__init__()
        self.conditional, self.limbs = conditional, limbs
        deep = plan.widths[-1]
        self.skeleton = Down(channels, plan.widths)
        self.skeleton_code = nn.Conv2d(deep, deep, 1)
        inputs = deep
        if conditional:
            self.appearance = Down(3, plan.widths)
            self.appearance_code = nn.Conv2d(deep, deep, 1)
            inputs += deep
        if limbs:
            self.of_limb = nn.ModuleList([nn.Conv2d(width, width, 1) for width in plan.widths])
            self.masked = nn.ModuleList([nn.Conv2d(limbs, width, 1, bias=False) for width in plan.widths])
        self.up = UpSteps(inputs, plan.widths, 3, skip=bool(limbs))

    def forward(self, skeletons: Tensor, appearance: Tensor | None, limb_maps: Tensor | None = None) -> Tensor:
        """(B, C, s, s) skeletons, (B, 3, s, s) images in [0, 1], (B, N, s, s) limb maps -> (B, 3, s, s)."""
        *_, code = self.skeleton(skeletons)
        parts, shallow = [self.skeleton_code(code)], []
        if self.conditional:
            assert appearance is not None
            features = self.appearance(appearance * 2 - 1)
            if self.limbs:
                assert limb_maps is not None
                features = [self._mask(n, f, limb_maps) for n, f in enumerate(features)]
                shallow = features[:-1]
            parts.append(self.appearance_code(features[-1]))
        return torch.sigmoid(self.up(torch.cat(parts, 1), shallow))

    def _mask(self, number: int, features: Tensor, limb_maps: Tensor) -> Tensor:
        """Features of the background beside those that the limbs let through, each limb with its own gains."""
        maps = F.adaptive_avg_pool2d(limb_maps, features.shape[-1])
        covered = maps.amax(1, keepdim=True)
        return features * (1 - covered) + self.of_limb[number](features) * self.masked[number](maps)
