"""The settings of `methods/disentangle.py`, each a switch or a number of the page it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from streampose.config import Strict, load_preset
from streampose.errors import ConfigError
from streampose.methods.mask_config import AugmentationConfig, SupervisionConfig

TERMS = ("vae_x", "vae_y", "cross", "sup", "projection", "foreground")


class DisentangleConfig(Strict):
    """All settings of the method; presets are in configs/methods/disentangle.yaml.

    Attributes:
        target: what VAE_y is of: 3D joints (`pose`), or monochrome pictures drawn from crops (`sketch`).
        detector, input_size: sizes of the networks (`models.disentangle.PRESETS`), side of the crops in pixels.
        pairs: folder with the known 3D poses of some of the store's videos: `<video>.truth.npz` as `synth` writes them,
            or what `annotate --session` wrote for sessions that are in the store.
        pairs_share: part of the pairs that is used, frames picked at random; the others count as unlabelled.
        prior: unpaired 3D poses: the name of a prior in the store, `built-in`, or `none`.
        prior_poses: how many of them at most.
        pictures_share: of the sketch task: part of the frames whose picture is unpaired with its sketch.
        batch_size, target_batch_size: of a joint step and of a step of VAE_y alone.
        unlabelled: part of a batch that is frames without a known pose, for L_VAEx only (where there are some).
        found_masks: part of the pictures whose background is taken away by the network that does so at serving,
            instead of the store's masks.
        other_frames: whether L_cross takes z_s from another frame of the same clip (else, as printed, from the same).
        steps: joint steps; the steps of VAE_y alone come in addition.
        target_steps: steps of VAE_y alone after each joint step; None for Algorithm 1's m = floor(M / N).
        beta_x, beta_y: weights of the divergences (Eq. 2, 3), in nats beside mean squared errors.
        image_weight: of a picture's mean squared error beside that of poses, which is in (25 cm)^2.
        terms: weight of each loss term; a term of weight 0 is not computed.
        supervision: 2D labels of the store, compared with the poses through the camera.
    """

    target: Literal["pose", "sketch"] = "pose"
    detector: Literal[
        "disentangle-mini",
        "disentangle-mini-paper",
        "disentangle-tiny",
        "disentangle-small",
        "disentangle-base",
        "disentangle-paper",
    ]
    input_size: int = 64
    pairs: Path | None = None
    pairs_share: float = Field(default=1.0, gt=0, le=1)
    prior: str = "built-in"
    prior_poses: int = Field(default=20_000, ge=0)
    pictures_share: float = Field(default=0.5, ge=0, lt=1)
    batch_size: int = Field(default=32, ge=2)
    target_batch_size: int = Field(default=128, ge=2)
    unlabelled: float = Field(default=0.25, ge=0, lt=1)
    found_masks: float = Field(default=0.5, ge=0, le=1)
    other_frames: bool = True
    steps: int = Field(default=3000, ge=1)
    target_steps: int | None = Field(default=None, ge=0)
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    beta_x: float = Field(default=1e-4, ge=0)
    beta_y: float = Field(default=1e-4, ge=0)
    image_weight: float = Field(default=100.0, ge=0)
    cache_megabytes: float = 1024
    seed: int = 0
    terms: dict[str, float]
    augmentation: AugmentationConfig = AugmentationConfig()
    supervision: SupervisionConfig = SupervisionConfig()


def load_disentangle_config(
    preset: str = "tiny", path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()
) -> DisentangleConfig:
    """Read a preset, then a file of changes to it, then `key=value` changes.

    Raises:
        ConfigError: no such preset, an unknown key or loss term, or a wrong value.
    """
    config = load_preset(DisentangleConfig, "disentangle", preset, path, overrides)
    if unknown := sorted(config.terms.keys() - set(TERMS)):
        raise ConfigError(f"terms: unknown {', '.join(unknown)} (known: {', '.join(TERMS)})")
    if config.input_size % 32:
        raise ConfigError(f"input_size={config.input_size}: choose a multiple of 32")
    return config
