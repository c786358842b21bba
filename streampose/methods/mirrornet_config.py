"""The settings of `methods/mirrornet.py`, each a switch or a number of the page it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from streampose.config import Strict, load_preset
from streampose.errors import ConfigError

Part = Literal["recogniser", "image", "pose", "mask", "mirror"]


class MirrorStage(Strict):
    """One stage of the curriculum.

    Attributes:
        steps: its length; scaled where a time is given.
        trains: what it trains, each by itself: `recogniser` (alpha, Eq. 30), `image` (beta, gamma, theta, Eq. 31),
            `pose` (delta, phi, Eq. 34), `mask` (psi); or `mirror`: all of them but psi as one (Eq. 29).
        unannotated: part of each batch that has no labels; 32 of 128 in the paper.
    """

    steps: int = Field(ge=0)
    trains: tuple[Part, ...] = Field(min_length=1)
    unannotated: float = Field(default=0.0, ge=0, lt=1)


class MirrorAugmentation(Strict):
    """Widths and odds of random views; rotation, scale and flip are the paper's."""

    rotation_degrees: float = 30.0
    scale: float = 0.25
    shift: float = 0.05
    flip: float = 0.5
    colour: float = 0.0
    cutout: float = 0.0


class MirrorSupervision(Strict):
    """How labels are used.

    Attributes:
        labels: names of sets of labels in the store; none for all.
        share: part of the labelled frames that count as labelled; the others count as unlabelled. For experiments.
        weight, frames: lambda of Eq. 27, of the recogniser's own term; eta of Eq. 29, of labelled frames as a whole.
    """

    labels: tuple[str, ...] = ()
    share: float = Field(default=1.0, gt=0, le=1)
    weight: float = Field(default=0.01, ge=0)
    frames: float = Field(default=1.0, ge=0)


class DivergenceConfig(Strict):
    """Weights of the divergences of a and g (image) and of z (pose); 1 as printed.

    Attributes:
        free_nats: a and g may each cost a frame that much for nothing, so that they come to be used; 0 as printed.
    """

    image: float = Field(default=0.1, ge=0)
    pose: float = Field(default=0.01, ge=0)
    free_nats: float = Field(default=20.0, ge=0)


class VarianceConfig(Strict):
    """Fixed variances of alpha (Eq. 30), theta (Eq. 31) and phi (Eq. 34)."""

    recogniser: float = Field(default=0.01, gt=0)
    image: float = Field(default=1.0, gt=0)
    pose: float = Field(default=1.0, gt=0)


class MirrorConfig(Strict):
    """All settings of the method; presets are in configs/methods/mirrornet.yaml.

    Attributes:
        detector, input_size: the pose recogniser alpha, see `models.heatmap_detector`; the other networks are as large
            as the paper's, or small where it is small.
        imagenet: file with ImageNet weights of the recogniser's body (`simple`: torchvision's ResNet-50, `hrnet`: the
            published W32 classifier); None for random weights. Nothing is downloaded.
        prior: unpaired poses that delta and phi learn too: a prior of the store, `built-in`, `auto` or `none`.
        pose_vae, mask_estimator: the switches of Tables 10 and 11.
        sigma_cells: of the Gaussians in heatmaps.
        own_heatmaps: what L^X takes for alpha's heatmaps: `sampled` about them as printed (Eq. 20), or `redrawn` as one
            Gaussian a joint.
        own_teaches: what L^X teaches: `all` networks as printed, or the `recogniser` alone.
        own_fidelity: weight of log p_theta in L^X; 1 as printed. 0 leaves out all of the image's terms in L^X.
        own_labelled: weight of labelled frames in L^X; 1 as printed.
        dressed: part of the frames that alpha sees in other frames' appearance and scene; 0 as printed.
        outline: weight of the mask that psi makes of alpha's heatmaps alone, in frames without labels; 0 as printed.
    """

    detector: Literal["hourglass", "simple", "hrnet", "hourglass-small", "simple-small", "hrnet-small"] = "hrnet-small"
    input_size: int = 64
    imagenet: Path | None = None
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = 0.0
    prior: str = "none"
    pose_vae: bool = True
    mask_estimator: bool = True
    sigma_cells: float = Field(default=1.5, gt=0)
    variance: VarianceConfig = VarianceConfig()
    divergence: DivergenceConfig = DivergenceConfig()
    own_heatmaps: Literal["redrawn", "sampled"] = "redrawn"
    own_teaches: Literal["recogniser", "all"] = "recogniser"
    own_fidelity: float = Field(default=0.0, ge=0)
    own_labelled: float = Field(default=1.0, ge=0)
    dressed: float = Field(default=0.8, ge=0, le=1)
    outline: float = Field(default=3.0, ge=0)
    supervision: MirrorSupervision = MirrorSupervision()
    cache_megabytes: float = 1024
    seed: int = 0
    augmentation: MirrorAugmentation = MirrorAugmentation()
    stages: dict[str, MirrorStage]


def load_mirror_config(
    preset: str = "small", path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()
) -> MirrorConfig:
    """Read a preset, then a file of changes to it, then `key=value` changes.

    Raises:
        ConfigError: no such preset, an unknown key, a wrong value, or a combination that cannot be trained.
    """
    config = load_preset(MirrorConfig, "mirrornet", preset, path, overrides)
    if config.input_size % 64:
        raise ConfigError(f"input_size {config.input_size}: must be a multiple of 64")
    if config.imagenet is not None and config.detector not in ("simple", "hrnet"):
        raise ConfigError(f"imagenet: there are no ImageNet weights for {config.detector}; choose simple or hrnet")
    if not any(stage.steps and {"recogniser", "mirror"} & set(stage.trains) for stage in config.stages.values()):
        raise ConfigError("stages: none of them trains the pose recogniser; let one train `recogniser` or `mirror`")
    for name, stage in config.stages.items():
        if "mirror" in stage.trains and len(stage.trains) > 1:
            raise ConfigError(f"stages.{name}.trains: `mirror` trains all parts; leave the others out")
        if stage.unannotated and "mirror" not in stage.trains:
            raise ConfigError(f"stages.{name}.unannotated: only `mirror` can use frames without labels; set it to 0")
    return config
