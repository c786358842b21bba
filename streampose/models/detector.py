"""The pose detector: an image in, 3D keypoints with a confidence out, by integral heatmaps.

A heatmap over x, y and a separate distribution over z for each joint replace the volume of the paper: a K x D x H x W
soft-argmax dominates the latency on a CPU, the factorised one costs next to nothing. The features from which z is
read are those where the joint's heatmap lies. Outside of training the mean is taken of the squared heatmap: where two
places are likely, the plain mean lies between them, on neither (on people that trained a model PCK@0.2 0.828 becomes
0.845 and the mean distance falls too; higher powers bring the one and cost the other). Only operations that ONNX has
are used.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampose.models.blocks import Encoder, Residual, Up, conv_block

# preset -> channels at strides 2, 4, 8, 16, 32 and channels of the decoder
WIDTHS = {
    "tiny": ((16, 24, 48, 96, 128), 48),
    "small": ((16, 32, 64, 128, 192), 64),
}
DEPTH_BINS = 16
SHARPNESS = 2.0  # power of a heatmap whose mean is the joint's place, outside of training
DEPTH_RANGE = 1.0  # z in [-1, 1], the unit of x and y


class DetectorOutput(NamedTuple):
    """What the detector says about B crops.

    Attributes:
        keypoints: (B, K, 3) x right, y down in [-1, 1], the edges of the crop; z forward in the same unit, relative to
            the crop's middle depth.
        confidence: (B, K) in [0, 1]: the share of a joint's heatmap that lies around its peak.
        heatmaps: (B, K, h, w) log-probabilities over the cells.
    """

    keypoints: Tensor
    confidence: Tensor
    heatmaps: Tensor


def build_detector(preset: str, num_joints: int, input_size: int, *, channels: int = 3) -> nn.Module:
    """Make an untrained detector, whose answer is a `DetectorOutput`.

    Args:
        preset: `tiny`, `small` (light encoder-decoders) or `base` (ResNet-18 with GroupNorm), which are `PoseDetector`;
            or one of `models.heatmap_detector`.
        num_joints: K.
        input_size: side of the crops in pixels; a multiple of 32.
        channels: of the input; 3 for RGB, 1 for silhouettes.
    """
    if input_size % 32:
        raise ValueError(f"input_size {input_size} is not a multiple of 32")
    if preset.startswith(("landmarks-", "ancestor-")):
        from streampose.models.translation import build_landmark_detector

        return build_landmark_detector(preset, num_joints, input_size)
    if preset.startswith("disentangle-"):
        from streampose.models.disentangle import build_pose_translator

        return build_pose_translator(preset.removeprefix("disentangle-"), num_joints, input_size)
    if preset not in (*WIDTHS, "base"):
        from streampose.models.heatmap_detector import HEATMAP_DETECTORS, build_heatmap_detector

        if preset not in HEATMAP_DETECTORS:
            raise ValueError(
                f"detector preset {preset!r}: there are {', '.join([*WIDTHS, 'base', *HEATMAP_DETECTORS])}"
            )
        return build_heatmap_detector(preset, num_joints, input_size)
    if preset == "base":
        from streampose.models.resnet import resnet_encoder

        encoder, decoder = resnet_encoder(channels), 128
    else:
        widths, decoder = WIDTHS[preset]
        encoder = light_encoder(channels, widths)
    return PoseDetector(encoder, decoder, num_joints, input_size)


def light_encoder(channels: int, widths: tuple[int, ...]) -> Encoder:
    """One residual block a stride."""
    return Encoder(conv_block(channels, widths[0], stride=2), [Residual(*pair, 2) for pair in pairwise(widths)], widths)


class PoseDetector(nn.Module):
    """Encoder, decoder up to a quarter of the input, heatmaps, and z read where the heatmaps lie."""

    cells: Tensor
    depth_cells: Tensor
    joint_of_bin: Tensor

    def __init__(self, encoder: Encoder, decoder: int, num_joints: int, input_size: int):
        super().__init__()
        self.num_joints, self.input_size = num_joints, input_size
        self.heatmap_size = input_size // 4
        _, four, eight, sixteen, thirty_two = encoder.widths
        self.encoder = encoder
        self.up16 = Up(thirty_two, sixteen, decoder)
        self.up8 = Up(decoder, eight, decoder)
        self.up4 = Up(decoder, four, decoder)
        self.context = nn.Linear(thirty_two, decoder)
        self.heatmap = nn.Conv2d(decoder, num_joints, 1)
        self.depth_hidden = nn.Linear(decoder, decoder)
        self.depth = nn.Linear(decoder, num_joints * DEPTH_BINS)
        self.register_buffer("cells", cell_centres(self.heatmap_size), persistent=False)
        self.register_buffer("depth_cells", cell_centres(DEPTH_BINS) * DEPTH_RANGE, persistent=False)
        self.register_buffer(
            "joint_of_bin", torch.eye(num_joints).repeat_interleave(DEPTH_BINS, 1), persistent=False
        )  # (K, K * D) selects a joint's own bins

    def forward(self, images: Tensor) -> DetectorOutput:
        """Detect the joints of (B, C, S, S) images in [0, 1]."""
        four, eight, sixteen, thirty_two = self.encoder(images * 2 - 1)
        features = self.up4(self.up8(self.up16(thirty_two, sixteen), eight), four)  # (B, C, h, w)
        context = self.context(thirty_two.mean((2, 3)))  # (B, C)
        logits = self.heatmap(features).float().flatten(2)  # (B, K, h * w)
        log_probability = F.log_softmax(logits, -1)
        probability = log_probability.exp()
        x, y = self._expectation(probability if self.training else F.softmax(SHARPNESS * log_probability, -1))
        z = self._depth(features, context, probability)
        size = self.heatmap_size
        maps = probability.reshape(-1, self.num_joints, size, size)
        confidence = F.avg_pool2d(maps, 3, 1, 1).flatten(2).amax(-1) * 9
        return DetectorOutput(
            torch.stack([x, y, z], -1),
            confidence.clamp(0, 1),
            log_probability.reshape(-1, self.num_joints, size, size),
        )

    def _expectation(self, probability: Tensor) -> tuple[Tensor, Tensor]:
        size = self.heatmap_size
        maps = probability.reshape(-1, self.num_joints, size, size)
        return (maps.sum(2) * self.cells).sum(-1), (maps.sum(3) * self.cells).sum(-1)

    def _depth(self, features: Tensor, context: Tensor, probability: Tensor) -> Tensor:
        local = torch.matmul(probability.detach(), features.float().flatten(2).transpose(1, 2))  # (B, K, C)
        hidden = F.relu(self.depth_hidden(local + context.float()[:, None]))
        logits = self.depth(hidden) * self.joint_of_bin  # (B, K, K * D), zero but for the joint's own bins
        logits = logits.reshape(-1, self.num_joints, self.num_joints, DEPTH_BINS).sum(2)
        return (F.softmax(logits, -1) * self.depth_cells).sum(-1)


def cell_centres(size: int) -> Tensor:
    """(size,) centres of the cells that divide [-1, 1]; a grid without the half cell would be biased by it."""
    return (torch.arange(size) + 0.5) * (2.0 / size) - 1.0
