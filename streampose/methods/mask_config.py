"""The settings of `methods/mask.py`, each a switch or a number of the page it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from streampose.config import Strict, load_preset
from streampose.errors import ConfigError


class SilhouetteConfig(Strict):
    """The network rho that reads silhouettes of random poses.

    Attributes:
        shipped: start from the reader that comes with the package for this skeleton, where there is one.
        steps: how long an own one is taught.
    """

    enabled: bool = True
    shipped: bool = True
    detector: Literal["tiny", "small"] = "tiny"
    size: int = 64
    steps: int = Field(default=3000, ge=0)
    batch_size: int = 64
    learning_rate: float = 3e-3


class StageConfig(Strict):
    """One stage of the cascade.

    Attributes:
        steps: its length; scaled where a time is given.
        connections: the extra mask connections that are drawn.
        arms: whether the arms are drawn.
        geodesic: whether the mask losses are weighed by geodesic distance.
        tied_steps: how long left and right arms are tied.
        warmup_steps: how long the pseudo pelvis and thorax are targets (only without silhouettes).
        triangulate: whether what is drawn of several views is triangulated (Eq. 10).
        relabel: whether the pseudo-labels are made anew when the stage begins.
        terms: weight of each loss term.
    """

    steps: int = Field(ge=0)
    connections: Literal["tight", "medium", "loose"] = "loose"
    arms: bool = True
    geodesic: bool = True
    tied_steps: int = 0
    warmup_steps: int = 0
    triangulate: bool = True
    relabel: bool = False
    terms: dict[str, float]


class MultiviewConfig(Strict):
    """What sessions of calibrated cameras are used for.

    Attributes:
        triangulate: use Eq. 10 (Delta of the paper's Table 4); without it every view is a video of its own.
        share: part of each batch's frames that comes from sessions; None for as large a part as there is in the store.
        views: how many views of an instant a batch holds.
        naming: how views come to agree about left and right: by `anatomy`, or as `printed`, not at all.
        reweigh: how often views that miss what all say are weighed down in a batch.
        labels: triangulate the pseudo-labels too.
    """

    triangulate: bool = True
    share: float | None = Field(default=None, ge=0, le=1)
    views: int = Field(default=4, ge=2, le=8)
    naming: Literal["anatomy", "printed"] = "anatomy"
    reweigh: int = Field(default=1, ge=0)
    labels: bool = True


class AugmentationConfig(Strict):
    rotation_degrees: float = 20.0
    scale: float = 0.2
    shift: float = 0.12
    flip: float = 0.5
    colour: float = 0.7
    background: float = 0.5
    cutout: float = 0.15
    empty: float = 0.04


class SupervisionConfig(Strict):
    """How labels are used; nothing is where no set of them is named.

    Attributes:
        labels: names of sets of labels in the store.
        version: what they held when the run began; a resume says so where they have changed.
        weight: of the supervised term.
        share: part of a batch that are labelled frames.
        hidden: weight of joints that were placed but not seen, beside 1 for those that were.
        pin: whether labels replace the pseudo-labels of their frames and spread from there.
    """

    labels: list[str] = []
    version: str = ""
    weight: float = Field(default=1.0, ge=0)
    share: float = Field(default=0.25, gt=0, lt=1)
    hidden: float = Field(default=0.7, ge=0, le=1)
    pin: bool = True


class MaskConfig(Strict):
    """All settings of the method; presets are in configs/methods/mask.yaml."""

    detector: Literal["tiny", "small", "base"] = "small"
    input_size: int = 128
    mask_size: int = 48
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    structure: bool = True
    bone_width: Literal["radius", "sigma"] = "radius"
    sigma: float = 3e-3
    geodesic_gain: float = Field(default=2.0, ge=0)
    dolls: float = Field(default=0.25, ge=0, lt=1)
    self_training: bool = True
    cache_megabytes: float = 1024
    seed: int = 0
    silhouette: SilhouetteConfig = SilhouetteConfig()
    multiview: MultiviewConfig = MultiviewConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    stages: dict[str, StageConfig]


TERMS = (
    "label", "label_xy", "label_z", "doll", "skeleton", "physique", "constant", "symmetry", "equivariance", "warmup",
    "tied", "ceiling", "space", "equal", "across", "empty", "views", "views_z",
)  # fmt: skip


def load_mask_config(
    preset: str = "small", path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()
) -> MaskConfig:
    """Read a preset, then a file of changes to it, then `key=value` changes.

    Raises:
        ConfigError: no such preset, an unknown key or loss term, or a wrong value.
    """
    config = load_preset(MaskConfig, "mask", preset, path, overrides)
    for name, stage in config.stages.items():
        unknown = sorted(stage.terms.keys() - set(TERMS))
        if unknown:
            raise ConfigError(f"stages.{name}.terms: unknown {', '.join(unknown)} (known: {', '.join(TERMS)})")
    return config
