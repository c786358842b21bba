"""The shape prior network psi: from the skeleton mask to the physique mask (Mask as Supervision, Eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streampose.models.blocks import Up, conv_block


class ShapePriorNetwork(nn.Module):
    """A small U-Net that ends in a sigmoid: (B, 1, h, w) in [0, 1] -> (B, 1, h, w) in (0, 1); h, w multiples of 4."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.down_full = conv_block(1, width)
        self.down_half = conv_block(width, 2 * width, stride=2)
        self.down_quarter = conv_block(2 * width, 4 * width, stride=2)
        self.up_half = Up(4 * width, 2 * width, 2 * width)
        self.up_full = Up(2 * width, width, width)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, skeleton_mask: Tensor) -> Tensor:
        full = self.down_full(skeleton_mask)
        half = self.down_half(full)
        deep = self.down_quarter(half)
        return torch.sigmoid(self.out(self.up_full(self.up_half(deep, half), full)).float())
