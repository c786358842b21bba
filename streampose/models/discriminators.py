"""Discriminators of Jakab et al. (`landmarks`, Fig. 20, 21): patches of skeleton images, and of image pairs."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALES = (1, 2, 4)  # Sec. 4: the image, and what it is divided by


class PatchDiscriminator(nn.Module):
    """One score a patch (Fig. 20): 4 x 4 convolutions, three of them halving, instance normalisation, leaky ReLU.

    The first convolution is not normalised, as in the networks that the paper follows. Normalised as printed, the
    discriminator does not see how bright an image is, and from nothing Phi ran away to skeleton images that eta cannot
    read. Images too small for three halvings get fewer.

    Args:
        channels: of the image.
        width: channels after the first convolution, doubled by each of the next three.
        size: side of the images in pixels, at least 8.
    """

    def __init__(self, channels: int, width: int, size: int):
        super().__init__()
        halvings = max(1, min(3, size.bit_length() - 3))
        layers: list[nn.Module] = []
        inputs, outputs = channels, width
        for _ in range(halvings):
            layers.append(_block(inputs, outputs, stride=2, normalised=bool(layers)))
            inputs, outputs = outputs, 2 * outputs
        layers += [_block(inputs, outputs, stride=1), nn.Conv2d(outputs, 1, 4, 1, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class SkeletonDiscriminator(nn.Module):
    """D_y: three patch discriminators, of the skeleton image at a whole, a half and a quarter of its size."""

    def __init__(self, channels: int, width: int, size: int):
        super().__init__()
        self.scales = nn.ModuleList([PatchDiscriminator(channels, width, size // scale) for scale in SCALES])

    def forward(self, skeletons: Tensor) -> list[Tensor]:
        """(B, C, s, s) -> scores (B, 1, h, w) of each scale."""
        return [
            network(F.avg_pool2d(skeletons, scale) if scale > 1 else skeletons)
            for scale, network in zip(SCALES, self.scales, strict=True)
        ]


class ImageDiscriminator(nn.Module):
    """D_X (Fig. 21): whether an image is real, and of the same subject as a second one where it is conditional.

    Two streams that do not share weights beyond their design, concatenated at an eighth of the size.
    """

    def __init__(self, width: int, size: int, *, conditional: bool = True):
        super().__init__()
        halvings = max(1, min(2, size.bit_length() - 4))
        self.first = _stream(width, halvings)
        self.second = _stream(width, halvings) if conditional else None
        deep = width * 2 ** (halvings - 1)
        self.head = nn.Sequential(
            _block(deep * (2 if conditional else 1), 2 * deep, stride=2), nn.Conv2d(2 * deep, 1, 3, 1, 1)
        )

    def forward(self, images: Tensor, others: Tensor | None = None) -> list[Tensor]:
        """(B, 3, s, s), and where it is conditional (B, 3, s, s) of the same subjects -> [scores (B, 1, h, w)]."""
        features = self.first(images)
        if self.second is not None:
            assert others is not None
            features = torch.cat([features, self.second(others)], 1)
        return [self.head(features)]


def _stream(width: int, halvings: int) -> nn.Sequential:
    widths = [3, *(width * 2**n for n in range(halvings))]
    return nn.Sequential(*(_block(a, b, stride=2) for a, b in pairwise(widths)))


def _block(inputs: int, outputs: int, *, stride: int, normalised: bool = True) -> nn.Sequential:
    norm = nn.InstanceNorm2d(outputs) if normalised else nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride, 1), norm, nn.LeakyReLU(0.2, inplace=True))
