"""The networks of MirrorNet beside its pose recogniser: two variational autoencoders and the mask estimator.

Sizes are those of the heatmaps, h x h; latent variables lie on a grid of h / 8. Of the widths the paper says only how
many parameters and operations they make (Table 9), which `FULL` meets within 5 %.

Source: Nakatsuka et al., MirrorNet, Sec. 4 and Fig. 3 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from streampose.models.blocks import Residual, conv_block, group_norm

LATENT_STRIDE = 8  # of the heatmaps


@dataclass(frozen=True)
class MirrorWidths:
    """Channels of the networks.

    Attributes:
        latent: of the grids of a, g and z.
        image_encoder: four residual blocks of beta and gamma, at strides 1, 2, 4, 8.
        pose_encoder: those of delta.
        pose: of phi after its first and its second doubling.
        image: of theta at strides 1, 2, 4, 8.
        mask: of psi at strides 1, 2, 4 and so on.
    """

    latent: int
    image_encoder: tuple[int, int, int, int]
    pose_encoder: tuple[int, int, int, int]
    pose: tuple[int, int]
    image: tuple[int, int, int, int]
    mask: tuple[int, ...]


FULL = MirrorWidths(
    256, (64, 128, 256, 512), (64, 128, 256, 512), (120, 368), (80, 136, 264, 512), (56, 80, 144, 288, 592)
)
SMALL = MirrorWidths(128, (12, 24, 48, 64), (16, 32, 96, 256), (256, 96), (16, 32, 64, 96), (12, 16, 24, 32))
WIDTHS = {"full": FULL, "small": SMALL}


class Recogniser(nn.Module):
    """beta, gamma or delta: (B, C, h, h) -> mean and log-variance of a Gaussian, (B, latent, h / 8, h / 8) each."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int], latent: int):
        super().__init__()
        self.stem = nn.Sequential(conv_block(inputs, widths[0]), conv_block(widths[0], widths[0]))
        pairs = pairwise((widths[0], *widths))
        self.blocks = nn.Sequential(*(Residual(a, b, 1 if n == 0 else 2) for n, (a, b) in enumerate(pairs)))
        self.mean = nn.Conv2d(widths[-1], latent, 1)
        self.log_variance = nn.Conv2d(widths[-1], latent, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.blocks(self.stem(x))
        return self.mean(features).float(), self.log_variance(features).float().clamp(-10, 5)


class PoseGenerator(nn.Module):
    """phi: three transposed convolutions, z (B, latent, h / 8, h / 8) -> heatmaps (B, K, h, h)."""

    def __init__(self, latent: int, widths: tuple[int, int], num_joints: int):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((latent, *widths)):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), group_norm(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], num_joints, 4, 2, 1))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).float()


class UNet(nn.Module):
    """Down and up again, each resolution joined to its own on the way up.

    Args:
        widths: channels at strides 1, 2, 4 and so on.
        latent: channels that are joined at the deepest level; 0 for none.
    """

    def __init__(self, inputs: int, outputs: int, widths: tuple[int, ...], latent: int = 0):
        super().__init__()
        self.enter = _double(inputs, widths[0])
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), _double(a, b)) for a, b in pairwise(widths))
        deepest = widths[-1]
        self.join = conv_block(deepest + latent, deepest) if latent else None
        back = list(pairwise(reversed(widths)))
        self.upsample = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in back)
        self.merge = nn.ModuleList(_double(2 * b, b) for _, b in back)
        self.out = nn.Conv2d(widths[0], outputs, 3, 1, 1)

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """(B, inputs, h, h), (B, latent, h / stride, h / stride) of the deepest level -> (B, outputs, h, h)."""
        kept = [self.enter(x)]
        for down in self.down:
            kept.append(down(kept[-1]))
        deep = kept.pop()
        if self.join is not None:
            assert latent is not None
            deep = self.join(torch.cat([deep, latent], 1))
        for upsample, merge in zip(self.upsample, self.merge, strict=True):
            deep = merge(torch.cat([upsample(deep), kept.pop()], 1))
        return self.out(deep).float()


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_block(inputs, outputs), conv_block(outputs, outputs))


def build_mirror(widths: MirrorWidths, num_joints: int) -> nn.ModuleDict:
    """All networks but the pose recogniser, untrained.

    Returns:
        `appearance` (beta), `scene` (gamma): image (B, 3, h, h) -> mean, log-variance; `image` (theta): heatmaps and
        [a, g] -> image; `primitive` (delta): heatmaps -> mean, log-variance; `pose` (phi): z -> heatmaps; `mask` (psi):
        image and heatmaps -> logits (B, 1, h, h).
    """
    return nn.ModuleDict(
        {
            "appearance": Recogniser(3, widths.image_encoder, widths.latent),
            "scene": Recogniser(3, widths.image_encoder, widths.latent),
            "image": UNet(num_joints, 3, widths.image, 2 * widths.latent),
            "primitive": Recogniser(num_joints, widths.pose_encoder, widths.latent),
            "pose": PoseGenerator(widths.latent, widths.pose, num_joints),
            "mask": UNet(3 + num_joints, 1, widths.mask),
        }
    )
