"""Least-squares adversarial terms over several discriminators (Jakab et al., `landmarks`, Eq. 5; Mao et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def discriminator_loss(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """What discriminators minimise: (1 - D(real))^2 + D(made)^2, the mean over their outputs (Eq. 5).

    Args:
        real, made: what each discriminator says of real and of made images, any shapes.
    """
    terms = [((1 - r.float()) ** 2).mean() + (m.float() ** 2).mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(terms).mean()


def generator_loss(made: Sequence[Tensor]) -> Tensor:
    """What the maker of the images minimises: (1 - D(made))^2."""
    return torch.stack([((1 - m.float()) ** 2).mean() for m in made]).mean()
