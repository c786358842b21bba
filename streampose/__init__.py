"""streampose: from a folder of unlabelled videos to a live 2D/3D pose model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from streampose.load_model import Model

__version__ = "0.1.0"


def load(bundle: str | Path | None = None, **options: Any) -> Model:
    """Open a bundle as a function of pictures; see `streampose.load_model.load_model`."""
    from streampose.load_model import load_model  # so that importing streampose stays light

    return load_model(bundle, **options)
