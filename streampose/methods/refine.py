"""Several cameras teach one: any 2D detector is refined on what all views of a session say together.

In rounds: the teacher, a running average of the detector, reads every view (or the silhouette reader does, where what
it reads from a mask explains the mask better, as on pictures that the detector does not know yet); the views' namings
of left and right are settled by the body's anatomy and over time, joints are triangulated, and a body with constant
bones is fitted to them and to the masks of all views (`methods/refine_fit.py`). Seen from each camera that body is the
label, weighed by how well the view agrees with it, by which the detector is trained on single pictures; left and right
are those of the body, so that the detector learns to tell them in one picture. Frames that no session shows keep the
teacher's own reading, made consistent along their clips, so that what was learnt from them is not forgotten; or, by
`--refine masks`, the body is fitted to the masks of each of these clips by itself (`methods/refine_alone.py`).

Source: the triangulation of Mask as Supervision (Yang, Qiao, Sun), Eq. 10, as self-training with pseudo-labels instead
of a loss through one batch; the fitted body is ours.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from streampose.config import Strict, load_preset
from streampose.console import logger, progress
from streampose.errors import ConfigError, TrainingError
from streampose.geometry.triangulate import triangulate_dlt
from streampose.losses import heatmaps
from streampose.methods.mask_affine import to_view
from streampose.methods.mask_bones import BoneTables
from streampose.methods.mask_config import AugmentationConfig, SilhouetteConfig
from streampose.methods.mask_data import Augmentation, Frames, random_views, read_frames, resize_images
from streampose.methods.mask_labels import LabelMemory, Labels, across_views, along_clips, mask_fit, predict_labels
from streampose.methods.mask_pictures import draw_columns
from streampose.methods.mask_reader import load_shipped
from streampose.methods.mask_space import Anatomy, Cameras, look, to_rays
from streampose.methods.mask_views import Instants, Mixture, find_instants, no_instants
from streampose.methods.refine_alone import first_places, stand_alone, thin_out
from streampose.methods.refine_fit import Shape, fit_body
from streampose.models.detector import DetectorOutput, build_detector
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.training.initialise import initialise, read_network

WINDOW, OVERLAP = 150, 6  # moments that are fitted at once, and what windows share at each end
LONGEST_GAP = 1.0  # seconds without a moment, after which a new window begins
AGREES = 0.15  # distance between a detection and the fitted body, in [-1, 1], at which the label's weight is a third
MASK_SIZE = 32  # side of the masks by which readings are compared
BETTER = 0.05  # by so much more of the mask, as IoU, must what is read from it explain than what the picture says
TRUST = 0.005  # sides of the crop by which joints must move less for a model's naming of left and right to be undone
LEAST_WEIGHT = 0.3  # of a label that the view's own detection contradicts


class RefineConfig(Strict):
    """Settings of `selftrain --refine triangulate` and `--refine masks`; presets are in configs/methods/refine.yaml.

    Attributes:
        detector, input_size: of the network; where they are not those of the model that is refined, that model makes
            the labels of the first round, and a network of another preset begins with none of its weights.
        rounds: how often labels are made; each round has as many steps.
        fit_steps: of the body's fit to the views; 0 takes the triangulated joints as they are.
        teacher: decay of the running average that makes the labels.
        share: part of each batch's frames that sessions show; None for as large a part as there is in the store.
        most_alone: frames of single cameras that bodies are fitted to, by `--refine masks`; of more, some stretches.
    """

    detector: Literal["tiny", "small", "base"] = "tiny"
    input_size: int = 64
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    rounds: int = Field(default=2, ge=1)
    steps: int = Field(default=2000, ge=1)
    fit_steps: int = Field(default=250, ge=0)
    teacher: float = Field(default=0.998, ge=0, lt=1)
    share: float | None = Field(default=None, ge=0, le=1)
    most_alone: int = Field(default=3000, ge=1)
    cache_megabytes: float = 1024
    seed: int = 0
    terms: dict[str, float] = {"label": 1.0, "label_xy": 2.0, "label_z": 1.0}
    augmentation: AugmentationConfig = AugmentationConfig()


def load_refine_config(
    preset: str = "tiny", path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()
) -> RefineConfig:
    """Read a preset, then a file of changes to it, then `key=value` changes.

    Raises:
        ConfigError: no such preset, an unknown key or loss term, or a wrong value.
    """
    config = load_preset(RefineConfig, "refine", preset, path, overrides)
    if unknown := sorted(config.terms.keys() - {"label", "label_xy", "label_z"}):
        raise ConfigError(f"terms: unknown {', '.join(unknown)} (known: label, label_xy, label_z)")
    return config


def make_refine_task(
    reader: StoreReader, skeleton: Skeleton, config: RefineConfig, device: torch.device | str
) -> RefineTask:
    """Read a store's clips and sessions, and set up the training that `training.engine.train` runs.

    Raises:
        TrainingError: no session of calibrated cameras shows a subject in two views at once.
    """
    frames = read_frames(reader, config.input_size, config.cache_megabytes)
    instants = find_instants(reader, frames)
    if not len(instants):
        raise TrainingError(
            f"{reader.name}: no subject is seen by two calibrated cameras at once; ingest a session of several views "
            "with `streampose ingest --session FOLDER`, its calibration beside it"
        )
    return RefineTask(frames, instants, skeleton, config)


def make_alone_task(
    reader: StoreReader, skeleton: Skeleton, config: RefineConfig, device: torch.device | str
) -> RefineTask:
    """The same with bodies fitted to every clip that no session shows, too; the store needs no session."""
    every = read_frames(reader, config.input_size, config.cache_megabytes)
    frames = thin_out(every, _shown(find_instants(reader, every, say=False), len(every)), config.most_alone)
    if len(frames) < len(every):
        logger.info("bodies are fitted to stretches of the clips, %d of %d frames", len(frames), len(every))
    instants = find_instants(reader, frames)
    return RefineTask(frames, instants, skeleton, config, stand_alone(frames, _shown(instants, len(frames))))


def _shown(instants: Instants, count: int) -> np.ndarray:
    """(N,) bool: the frames that sessions show."""
    shown = np.zeros(count, bool)
    shown[instants.frames[instants.frames >= 0]] = True
    return shown


class RefineTask:
    """What the engine trains; see `training.engine.Task`.

    Args:
        instants: what sessions show; alone: clips that a body is fitted to by themselves.
    """

    def __init__(
        self,
        frames: Frames,
        instants: Instants,
        skeleton: Skeleton,
        config: RefineConfig,
        alone: Instants | None = None,
    ):
        self.frames, self.instants, self.skeleton, self.config = frames, instants, skeleton, config
        self.alone = no_instants(len(frames)) if alone is None else alone
        self.detector = build_detector(config.detector, skeleton.num_joints, config.input_size)
        self.teacher = copy.deepcopy(self.detector).requires_grad_(False)
        self.labels = LabelMemory(len(frames), skeleton.num_joints)
        self.networks = nn.ModuleDict({"detector": self.detector, "teacher": self.teacher, "labels": self.labels})
        self.mixture = Mixture(instants, len(frames), instants.largest, config.share)
        self.anatomy = Anatomy(skeleton)
        self.bones, self._reader = BoneTables(skeleton), _load_reader(skeleton)
        self._first_teacher: tuple[nn.Module, int] | None = None  # and the side of its pictures
        self._made: tuple[int, Labels, np.ndarray] | None = None  # the engine tries a step before the first
        self.rounds, self.round_steps = config.rounds, config.steps
        self.total_steps = self.rounds * self.round_steps

    def learn_from(self, source: Path) -> None:
        """Take a model whose network is another one, of a smaller preset say, as teacher of the first round.

        Raises:
            TrainingError: it is no model, or lacks joints of the skeleton.
        """
        preset, size = read_network(source)
        network = build_detector(preset, self.skeleton.num_joints, size)
        taken = initialise(nn.ModuleDict({"detector": network}), source, self.skeleton.joints)
        if taken.new_joints or taken.left:
            raise TrainingError(f"{source}: cannot teach this skeleton; {taken}")
        self._first_teacher = network, size

    def plan(self, steps_per_second: float, max_minutes: float) -> None:
        """Stretch or shrink the rounds to a time, of which making labels takes a part; of half of it at most."""
        labelling = self._labelling_seconds()
        self.rounds = max(1, min(self.config.rounds, int(30 * max_minutes / max(labelling, 1e-3))))
        seconds = 60 * max_minutes - self.rounds * labelling
        steps = max(0.93 * seconds, 0.3 * 60 * max_minutes) * steps_per_second / self.rounds
        self.round_steps = max(1, round(steps))
        self.total_steps = self.rounds * self.round_steps

    def _labelling_seconds(self) -> float:
        """About what one round of labels takes: the fit goes through all points of all views at every step."""
        moments = len(self.instants) * self.instants.largest / 4 + len(self.alone) / 2
        return 3e-4 * self.config.fit_steps * moments + 0.01 * len(self.frames)

    def stage(self, step: int) -> str:
        """`round 1`, `round 2` and so on."""
        return f"round {min(step // self.round_steps, self.rounds - 1) + 1}"

    def optimiser_settings(self, step: int) -> dict[str, float]:
        """A short rise and a cosine fall, over all rounds as one."""
        at, length = step, self.total_steps
        rise = min(1.0, (at + 1) / max(1, min(50, length // 5)))
        fall = 0.03 + 0.97 * 0.5 * (1 + np.cos(np.pi * at / max(1, length)))
        return {"lr": float(self.config.learning_rate * rise * fall), "weight_decay": self.config.weight_decay}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Augmented pictures of frames, all views of some instants among them."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        index, _ = self.mixture.draw(step, self.config.batch_size, rng)
        how = Augmentation(**self.config.augmentation.model_dump())
        views = {"index": index} | random_views(self.frames, index, rng, how)
        return {name: torch.from_numpy(value) for name, value in views.items() if name not in ("geodesic", "masks")}

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Distance to the labels of the round, which are made when it begins."""
        self._label_if_due(int(self.stage(step).split()[1]))
        out = self.detector(batch["images"].permute(0, 3, 1, 2).float() / 255)
        memory, index, flip = self.labels, batch["index"], self.skeleton.flip_index
        target = to_view(memory.keypoints[index], batch["matrix"], batch["flipped"], flip)
        weight = memory.confidence[index]
        weight = torch.where(batch["flipped"][:, None], weight[:, flip], weight) * ~batch["empty"][:, None]
        terms = self._distances(out, target, weight, memory.named[index])
        with torch.no_grad():
            for mean, now in zip(self.teacher.parameters(), self.detector.parameters(), strict=True):
                mean.lerp_(now, 1 - self.config.teacher)
        return {name: terms[name] for name in self.config.terms}, dict(self.config.terms)

    def _distances(self, out: DetectorOutput, target: Tensor, weight: Tensor, named: Tensor) -> dict[str, Tensor]:
        """Weighted mean distances; where left and right are not known, by the naming that is closer.

        Args:
            target: (B, K, 3) in [-1, 1]; joints outside the picture do not count.
            weight: (B, K); named: (B,) bool.
        """
        flip = self.skeleton.flip_index
        xy = out.keypoints[..., :2].detach()
        near = (weight * ((xy - target[..., :2]) ** 2).sum(-1)).sum(1)
        far = (weight[:, flip] * ((xy - target[:, flip, :2]) ** 2).sum(-1)).sum(1)
        swap = ((far < near) & ~named)[:, None]
        mirrored = target[:, flip] * target.new_tensor([1, 1, -1])
        target = torch.where(swap[..., None], mirrored, target)
        weight = torch.where(swap, weight[:, flip], weight) * (target[..., :2].abs() < 1).all(-1)
        total = weight.sum().clamp_min(1)
        maps = heatmaps.gaussian_targets(target[..., :2], out.heatmaps.shape[-1])
        target = target.clamp(-1, 1)
        distances = {
            "label": heatmaps.heatmap_cross_entropy(out.heatmaps, maps),
            "label_xy": heatmaps.robust_distance(out.keypoints[..., :2], target[..., :2]),
            "label_z": heatmaps.robust_distance(out.keypoints[..., 2:], target[..., 2:]),
        }
        return {name: (distance * weight).sum() / total for name, distance in distances.items()}

    # ---------------------------------------------------------------- labels

    def _label_if_due(self, due: int) -> None:
        """Make the labels at the beginning of a round."""
        memory = self.labels
        if int(memory.made) >= due:
            return
        if due == 1:  # the detector has been filled with the weights of the model to refine by now
            self.teacher.load_state_dict(self.detector.state_dict())
        device = memory.keypoints.device
        if self._made is None or self._made[0] != due:
            with torch.autocast(device.type, enabled=False):  # bodies are not fitted in bf16
                self._made = (due, *self.make_labels(*self._or_masks(self._read(due, device), device)))
        _, labels, named = self._made
        memory.keypoints.copy_(torch.from_numpy(labels.keypoints))
        memory.confidence.copy_(torch.from_numpy(labels.confidence))
        memory.named.copy_(torch.from_numpy(named))
        memory.made.fill_(due)

    def _read(self, due: int, device: torch.device) -> Labels:
        """What the teacher of a round says of every frame."""
        teacher, size = self.teacher, self.frames.size
        if due == 1 and self._first_teacher is not None:
            teacher, size = self._first_teacher
        crops = resize_images(self.frames.crops, size)
        return predict_labels(teacher.to(device).eval(), crops, self.skeleton.flip_index, device)

    def _or_masks(self, own: Labels, device: torch.device) -> tuple[Labels, np.ndarray]:
        """The teacher's readings; where what rho reads from the mask explains it better, that: and (N,) bool where."""
        if self._reader is None:
            return own, np.zeros(len(own.keypoints), bool)
        network, size = self._reader
        read = predict_labels(
            network.to(device), resize_images(self.frames.masks, size), self.skeleton.flip_index, device
        )
        fits = [mask_fit(labels, self.frames, self.bones, MASK_SIZE).numpy() for labels in (own, read)]
        better = fits[1] > fits[0] + BETTER
        logger.info("%d of %d frames are read from their masks, which explains them better", better.sum(), len(better))
        keypoints = np.where(better[:, None, None], read.keypoints, own.keypoints)
        return Labels(keypoints, np.where(better[:, None], read.confidence, own.confidence)), better

    def make_labels(self, own: Labels, silhouettes: np.ndarray | None = None) -> tuple[Labels, np.ndarray]:
        """What single pictures say, replaced by what all views say together.

        Args:
            silhouettes: (N,) bool, readings of a mask, which does not tell left from right.

        Returns:
            the labels, and (N,) bool: the frames whose left and right are known.
        """
        trust = np.full(len(self.frames), TRUST)
        if silhouettes is not None:
            trust[silhouettes] = 0
        settled = along_clips(own, self.frames, self.skeleton.flip_index, trust=trust)
        named = np.zeros(len(self.frames), bool)
        if len(self.instants):
            settled, named = across_views(settled, self.instants, self.skeleton, self.anatomy)
        keypoints, confidence = settled.keypoints.copy(), settled.confidence.copy()
        detections = name_alike(own, settled, self.skeleton.flip_index)
        fitted = named.copy()
        windows = [(kind, *window) for kind in (self.instants, self.alone) for window in self._windows(kind)]
        with progress("fit bodies", len(windows)) as bar:
            shapes: dict[tuple[int, int], Shape | None] = {}
            for kind, subject, rows, core in windows:
                key = (id(kind), subject)
                view, shapes[key] = self._fit(kind, rows, detections, settled, shapes.get(key))
                for row, points in zip(rows[core], view[core], strict=True):
                    there = kind.frames[row] >= 0
                    index = kind.frames[row][there]
                    keypoints[index, :, :2] = points[there][..., :2]
                    if kind is self.instants:  # one view knows no depth
                        keypoints[index, :, 2] = points[there][..., 2]
                    fitted[index] = True
                bar.advance(1)
        if self.config.fit_steps:
            apart = np.linalg.norm(keypoints[..., :2] - detections.keypoints[..., :2], axis=-1)
            agrees = detections.confidence * np.exp(-((apart / AGREES) ** 2))
            confidence[fitted] = (LEAST_WEIGHT + (1 - LEAST_WEIGHT) * agrees)[fitted]
        if len(self.instants):
            logger.info("labels of %d frames made by %d moments of several views", named.sum(), len(self.instants))
        if len(self.alone):
            named[self.alone.frames] = True  # along the clip, by most of what the model says
            logger.info("labels of %d frames made by bodies in %d clips", len(self.alone), len(set(self.alone.subject)))
        return Labels(keypoints.astype(np.float32), confidence.astype(np.float32)), named

    def _windows(self, instants: Instants):
        """(subject, rows of the instants, which of them count) of moments that are fitted at once."""
        for subject in np.unique(instants.subject):
            rows = np.flatnonzero(instants.subject == subject)
            rows = rows[np.argsort(instants.seconds[rows], kind="stable")]
            longest = np.inf if instants is self.alone else LONGEST_GAP  # stretches of a clip are one body
            gaps = np.flatnonzero(np.diff(instants.seconds[rows]) > longest) + 1
            for run in np.split(rows, gaps):
                for start in range(0, len(run), WINDOW):
                    first, end = max(0, start - OVERLAP), min(len(run), start + WINDOW + OVERLAP)
                    core = slice(start - first, min(start + WINDOW, len(run)) - first)
                    yield subject, run[first:end], core

    def _fit(
        self, instants: Instants, rows: np.ndarray, detections: Labels, settled: Labels, shape: Shape | None
    ) -> tuple[np.ndarray, Shape | None]:
        """The body of some instants as their views see it: (T, V, K, 3) in crop coordinates, and its shape."""
        index = instants.frames[rows]
        seen = index >= 0
        index = np.where(seen, index, index.max(1, keepdims=True))
        rays, R, t = (torch.from_numpy(values) for values in instants.cameras_of(index).values())
        cameras = Cameras(rays, R, t, instants.lens_of(index))
        if instants is self.alone:
            world = first_places(detections.keypoints[index[:, 0]], self.frames, instants, index[:, 0])
        else:
            world = places(settled, index, seen, cameras)
        if self.config.fit_steps:
            world, shape = fit_body(
                self.skeleton, cameras, seen, self.frames.masks[index], detections.keypoints[index][..., :2],
                detections.confidence[index], world, instants.seconds[rows], steps=self.config.fit_steps,
                shape=shape, seed=self.config.seed,
            )  # fmt: skip
        with torch.no_grad():
            points = look(torch.from_numpy(world).float(), cameras, self.skeleton.root).numpy()
        return np.nan_to_num(points, nan=3.0), shape

    @torch.no_grad()
    def picture(self, batch: dict[str, Tensor], step: int) -> np.ndarray | None:
        """Columns of picture, label, prediction."""
        images, flip = batch["images"][:12], self.skeleton.flip_index
        out = self.detector(images.permute(0, 3, 1, 2).float() / 255)
        target = to_view(self.labels.keypoints[batch["index"][:12]], batch["matrix"][:12], batch["flipped"][:12], flip)
        shown = [draw_columns(images, [], points, self.skeleton) for points in (target, out.keypoints)]
        return np.concatenate(shown, 0)


def _load_reader(skeleton: Skeleton) -> tuple[nn.Module, int] | None:
    """The network that reads silhouettes and comes with the package for this skeleton, and the side of its masks."""
    config = SilhouetteConfig()
    network = build_detector(config.detector, skeleton.num_joints, config.size, channels=1)
    return (network.eval(), config.size) if load_shipped(network, skeleton, config) else None


def name_alike(own: Labels, settled: Labels, flip_index: list[int]) -> Labels:
    """Single pictures' readings with left and right named as the settled labels do, whichever is closer."""
    points, sure = own.keypoints, own.confidence
    same = np.linalg.norm(points[..., :2] - settled.keypoints[..., :2], axis=-1)
    other = np.linalg.norm(points[:, flip_index, :2] - settled.keypoints[..., :2], axis=-1)
    swap = np.minimum(other, 0.5).sum(1) < np.minimum(same, 0.5).sum(1)
    points = np.where(swap[:, None, None], points[:, flip_index], points)
    return Labels(points, np.where(swap[:, None], sure[:, flip_index], sure))


def places(labels: Labels, index: np.ndarray, seen: np.ndarray, cameras: Cameras) -> np.ndarray:
    """World joints (T, K, 3) of labels that agree in all views of (T, V) frames; NaN where none is known."""

    with torch.no_grad():
        rays = to_rays(torch.from_numpy(labels.keypoints[index][..., :2]).float(), cameras).double().numpy()
    matrices = torch.cat([cameras.R, cameras.t[..., None]], -1).double().numpy()
    return triangulate_dlt(rays, matrices, labels.confidence[index] * seen[..., None])
