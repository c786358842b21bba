"""Labels teach a model that is there: `selftrain --refine labels` on some dozens of labelled frames and all the others.

A batch is half labelled frames, in random views of them and before other frames' backgrounds, and half frames without
labels, of which two views must agree (`equivariance`, Eq. 13 of `mask`). That is all the presets do.

`rounds` adds self-training as in `methods/refine.py`: a teacher, a running average of the detector, reads all frames;
labels take the place of what it reads in their frames, the naming of left and right of a clip follows its labels
(`methods/supervision.py`), and the others are learnt as they were read. On SynthPose that was worse: PCK@0.1 without
flips 0.53 instead of 0.56 by 100 labels, because the teacher repeats what the labels are to mend; it may help where
labels cover little of what the videos show.

Source: a mean teacher (Tarvainen & Valpola, NeurIPS 2017) for the rounds; labels that settle a clip's sides are ours.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from streampose.config import Strict, load_preset
from streampose.errors import ConfigError, TrainingError
from streampose.methods.mask_affine import from_view, to_view
from streampose.methods.mask_config import AugmentationConfig, SupervisionConfig
from streampose.methods.mask_data import Augmentation, Frames, random_views, read_frames
from streampose.methods.mask_labels import LabelMemory, along_clips, label_distances, predict_labels
from streampose.methods.mask_pictures import draw_columns
from streampose.methods.supervision import (
    Labelled,
    find_pinned,
    labelled_batch,
    labelled_count,
    pin,
    read_labelled,
    supervised_term,
)
from streampose.models.detector import DetectorOutput, build_detector
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton

AVERAGED = 20  # time constants of the running average in a run
TERMS = ("label", "label_xy", "label_z", "equivariance")


class TuneConfig(Strict):
    """Settings of `selftrain --refine labels`; presets are in configs/methods/tune.yaml.

    Attributes:
        detector, input_size: of the network; those of the model that is refined.
        steps: with the labels.
        rounds, round_steps: how often a teacher then reads all frames, and how long they are learnt each time.
        teacher: decay of the running average that reads them.
        terms: weights of what the teacher says, and of agreement between two views of a frame.
    """

    detector: Literal["tiny", "small", "base"] = "tiny"
    input_size: int = 64
    batch_size: int = 32
    learning_rate: float = 1.0e-3
    weight_decay: float = 1e-4
    steps: int = Field(default=1000, ge=1)
    rounds: int = Field(default=0, ge=0)
    round_steps: int = Field(default=600, ge=1)
    teacher: float = Field(default=0.995, ge=0, lt=1)
    cache_megabytes: float = 1024
    seed: int = 0
    terms: dict[str, float] = {"label": 1.0, "label_xy": 2.0, "label_z": 1.0, "equivariance": 1.0}
    supervision: SupervisionConfig = SupervisionConfig(share=0.5)
    augmentation: AugmentationConfig = AugmentationConfig()


def load_tune_config(
    preset: str = "tiny", path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()
) -> TuneConfig:
    """Read a preset, then a file of changes to it, then `key=value` changes.

    Raises:
        ConfigError: no such preset, an unknown key or loss term, a wrong value, or no labels are named.
    """
    config = load_preset(TuneConfig, "tune", preset, path, overrides)
    if unknown := sorted(config.terms.keys() - set(TERMS)):
        raise ConfigError(f"terms: unknown {', '.join(unknown)} (known: {', '.join(TERMS)})")
    if not config.supervision.labels:
        raise ConfigError("--refine labels: needs labels; add --labels all, or --labels NAME")
    return config


def make_tune_task(reader: StoreReader, skeleton: Skeleton, config: TuneConfig, device: torch.device | str) -> TuneTask:
    """Read a store's clips and labels, and set up the training that `training.engine.train` runs.

    Raises:
        TrainingError: no label can be used.
    """
    frames = read_frames(reader, config.input_size, config.cache_megabytes)
    labelled = read_labelled(reader, skeleton, config.supervision, config.input_size)
    if labelled is None:
        raise TrainingError(f"{reader.name}: no labels named; add --labels all, or --labels NAME")
    return TuneTask(frames, labelled, [clip.id for clip in reader.clips()], skeleton, config)


class TuneTask:
    """What the engine trains; see `training.engine.Task`."""

    def __init__(
        self, frames: Frames, labelled: Labelled, clips: Sequence[str], skeleton: Skeleton, config: TuneConfig
    ):
        self.frames, self.labelled, self.skeleton, self.config = frames, labelled, skeleton, config
        self.pinned = find_pinned(labelled, frames, list(clips))
        self.detector = build_detector(config.detector, skeleton.num_joints, config.input_size)
        self.teacher = copy.deepcopy(self.detector).requires_grad_(False)
        self.labels = LabelMemory(len(frames), skeleton.num_joints)
        self.networks = nn.ModuleDict({"detector": self.detector, "teacher": self.teacher, "labels": self.labels})
        self.num_labelled = labelled_count(labelled, config.supervision, config.batch_size)
        self._lay_out(1.0)

    @property
    def ema(self) -> float:
        """Decay of the running average that is exported: of the last part of the run, in which little changes."""
        config = self.config
        return float(np.clip(1 - AVERAGED / (config.steps + config.rounds * config.round_steps), 0.9, 0.999))

    def _lay_out(self, factor: float) -> None:
        config = self.config
        self.first = max(1, round(factor * config.steps))
        self.round_steps = max(1, round(factor * config.round_steps))
        self.total_steps = self.first + config.rounds * self.round_steps

    def plan(self, steps_per_second: float, max_minutes: float) -> None:
        """Stretch or shrink the rounds to a time, of which reading all frames takes a part."""
        config = self.config
        reading = config.rounds * 0.01 * len(self.frames)
        seconds = max(0.93 * 60 * max_minutes - reading, 0.3 * 60 * max_minutes)
        self._lay_out(seconds * steps_per_second / (config.steps + config.rounds * config.round_steps))

    def round_of(self, step: int) -> int:
        """0 for the round of the labels, then 1, 2 and so on."""
        return 0 if step < self.first else min(1 + (step - self.first) // self.round_steps, self.config.rounds)

    def stage(self, step: int) -> str:
        """`labels`, then `round 1`, `round 2` and so on."""
        number = self.round_of(step)
        return f"round {number}" if number else "labels"

    def optimiser_settings(self, step: int) -> dict[str, float]:
        """A short rise and a cosine fall, over all rounds as one."""
        rise = min(1.0, (step + 1) / max(1, min(50, self.total_steps // 5)))
        fall = 0.03 + 0.97 * 0.5 * (1 + np.cos(np.pi * step / max(1, self.total_steps)))
        return {"lr": float(self.config.learning_rate * rise * fall), "weight_decay": self.config.weight_decay}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Views of labelled frames, and two views of each of some others."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        how = Augmentation(**self.config.augmentation.model_dump())
        count = max(1, (self.config.batch_size - self.num_labelled) // 2)
        index = rng.integers(0, len(self.frames), count).repeat(2)
        views = {"index": index} | random_views(self.frames, index, rng, how)
        batch = {name: torch.from_numpy(value) for name, value in views.items() if name not in ("geodesic", "masks")}
        return batch | labelled_batch(self.labelled, self.skeleton, self.num_labelled, rng, how, self.frames)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Distance to the labels, to what the teacher says of other frames, and between two views of them."""
        self._label_if_due(self.round_of(step))
        images = torch.cat([batch["images"], batch["labelled_images"]])
        both = self.detector(images.permute(0, 3, 1, 2).float() / 255)
        count, flip = len(batch["index"]), self.skeleton.flip_index
        own, given = (DetectorOutput(*(v[part] for v in both)) for part in (slice(0, count), slice(count, None)))
        terms = {"supervised": supervised_term(given, batch)}
        weights = {"supervised": self.config.supervision.weight} | dict(self.config.terms)
        there = ~batch["empty"]
        if "equivariance" in weights:
            crop = from_view(own.keypoints, batch["matrix"], batch["flipped"], flip)
            apart = ((crop[0::2] - crop[1::2]) ** 2).sum(-1).mean(1)
            pairs = there.reshape(-1, 2).all(1)
            terms["equivariance"] = (apart * pairs).sum() / pairs.sum().clamp_min(1)
        if self.round_of(step) > 0:
            memory, index = self.labels, batch["index"]
            target = to_view(memory.keypoints[index], batch["matrix"], batch["flipped"], flip)
            weight = memory.confidence[index] ** 2
            weight = torch.where(batch["flipped"][:, None], weight[:, flip], weight) * there[:, None]
            terms |= label_distances(own, target, weight, "given", flip)
        with torch.no_grad():
            for mean, now in zip(self.teacher.parameters(), self.detector.parameters(), strict=True):
                mean.lerp_(now, 1 - self.config.teacher)
        weights = {name: weight for name, weight in weights.items() if name in terms}
        return {name: terms[name] for name in weights}, weights

    def _label_if_due(self, due: int) -> None:
        """Have the teacher read all frames when a round begins; the first time it is given the model's weights."""
        memory = self.labels
        if int(memory.made) >= due + 1:
            return
        if due == 0:  # the detector has been filled with the weights of the model to refine by now
            self.teacher.load_state_dict(self.detector.state_dict())
        else:
            device, flip = memory.keypoints.device, self.skeleton.flip_index
            labels = predict_labels(self.teacher.eval(), self.frames.crops, flip, device)
            fixed = np.zeros(len(self.frames), bool)
            if self.config.supervision.pin:
                labels = pin(labels, self.labelled, self.pinned, flip)
                fixed[self.pinned.frame] = True
            labels = along_clips(labels, self.frames, flip, fixed=fixed)
            memory.keypoints.copy_(torch.from_numpy(labels.keypoints))
            memory.confidence.copy_(torch.from_numpy(labels.confidence))
        memory.made.fill_(due + 1)

    @torch.no_grad()
    def picture(self, batch: dict[str, Tensor], step: int) -> np.ndarray | None:
        """Columns of labelled picture, label, prediction."""
        images = batch["labelled_images"][:12]
        out = self.detector(images.permute(0, 3, 1, 2).float() / 255)
        target = batch["labelled_joints"][:12]
        target = torch.cat([target, torch.zeros_like(target[..., :1])], -1)
        shown = [draw_columns(images, [], points, self.skeleton) for points in (target, out.keypoints)]
        return np.concatenate(shown, 0)
