"""The settings of `methods/landmarks.py`, each a switch or a number of the page it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from streampose.config import Strict, load_preset
from streampose.methods.mask_config import SupervisionConfig
from streampose.models.translation import PLANS

TERMS = (
    "reader", "reader_maps", "rotations", "figures", "figures_xy", "perceptual", "adversarial", "discriminator",
    "cycle", "image_adversarial", "image_discriminator", "equivariance", "proper", "labels",
)  # fmt: skip


class StepsConfig(Strict):
    """Steps of each stage; scaled where a time is given.

    Attributes:
        skeletons: eta learns to read skeleton images of unpaired poses.
        figures: Phi learns from painted figures of unpaired poses (not in the paper).
        landmarks: the joint objective (Eq. 6).
        reading: eta learns to read what Phi makes of painted figures, and Phi nothing (not in the paper).
    """

    skeletons: int = Field(default=1500, ge=0)
    figures: int = Field(default=1500, ge=0)
    landmarks: int = Field(default=6000, ge=1)
    reading: int = Field(default=0, ge=0)


class AugmentationConfig(Strict):
    flip: float = Field(default=0.5, ge=0, le=1)
    rotation_degrees: float = Field(default=8.0, ge=0)
    scale: float = Field(default=0.1, ge=0)
    shift: float = Field(default=0.05, ge=0)
    colour: float = Field(default=0.5, ge=0, le=1)


class LandmarksConfig(Strict):
    """All settings of the method; presets are in configs/methods/landmarks.yaml.

    Attributes:
        detector: sizes and variants of the networks, `models.translation.PLANS`.
        prior: name of the unpaired poses: of a prior in the store (`prior import`); `built-in` for procedural
            people; `auto` for the only one in the store, else the built-in one; `none` trains the ancestor.
        poses: how many of the prior's poses to use; None for all.
        renderer: `limbs` draws bones (Eq. 1), `points` draws joints (Eq. 2).
        gamma, sigma: of Eq. 1 and 2.
        conditional: Psi sees an appearance image (Sec. 3.2).
        bottleneck: Psi sees the skeleton image that is drawn of eta's joints (Sec. 3.1), not Phi's own.
        second_cycle: also Phi(Psi(y, x')) = y, and D_X.
        limb_masks: Psi masks the appearance image's features by limbs (App. F).
        discriminator_width: channels of the discriminators' first convolution.
        perceptual: the features in which images are compared, `models/features.py`; `auto` is vgg16 where the user has
            its weights, else random.
        facing: name the sides of unpaired poses as if they faced the camera.
        figures: share of a batch that are painted figures, in the last stage.
        decoder_first: share of the last stage in which Phi learns nothing of the images that Psi makes, of what
            the discriminator says of its own, and of the second cycle.
        supervision: labels that are learnt too, where some are named; the ancestor takes those of the store anyway.
        weights: of each loss term.
    """

    detector: str = "landmarks-tiny-skip-sided"
    input_size: int = 64
    batch_size: int = Field(default=16, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    reader_learning_rate: float = Field(default=2e-3, gt=0)
    beta1: float = 0.5
    prior: str = "auto"
    poses: int | None = Field(default=None, ge=1)
    renderer: Literal["limbs", "points"] = "limbs"
    gamma: float = Field(default=25.0, gt=0)
    sigma: float = Field(default=0.02, gt=0)
    conditional: bool = True
    bottleneck: bool = True
    second_cycle: bool = False
    limb_masks: bool = False
    discriminator_width: int = Field(default=32, ge=4)
    perceptual: Literal["auto", "random", "rotations", "vgg16"] = "auto"
    facing: bool = True
    figures: float = Field(default=0.25, ge=0, lt=1)
    decoder_first: float = Field(default=0.0, ge=0, lt=1)
    steps: StepsConfig = StepsConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    weights: dict[str, float]
    cache_megabytes: float = 1024
    seed: int = 0

    @field_validator("detector")
    @classmethod
    def _known_detector(cls, value: str) -> str:
        if value not in PLANS:
            raise ValueError(f"there are {', '.join(PLANS)}")
        return value

    @model_validator(mode="after")
    def _limbs_need_an_appearance(self) -> LandmarksConfig:
        if self.limb_masks and not self.conditional:
            raise ValueError("limb_masks masks the appearance image; it needs conditional=true")
        return self

    @field_validator("weights")
    @classmethod
    def _known_terms(cls, value: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(value.keys() - set(TERMS)):
            raise ValueError(f"unknown {', '.join(unknown)} (known: {', '.join(TERMS)})")
        return value


def load_landmarks_config(
    preset: str = "tiny", path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()
) -> LandmarksConfig:
    """Read a preset, then a file of changes to it, then `key=value` changes.

    Raises:
        ConfigError: no such preset, an unknown key or loss term, or a wrong value.
    """
    config = load_preset(LandmarksConfig, "landmarks", preset, path, overrides)
    if config.prior == "none" and config.detector.startswith("landmarks-"):
        size = config.detector.split("-")[1]
        config = config.model_copy(update={"detector": f"ancestor-{size}"})
    return config
