"""Disentangled representations for cross-modal translation (Liu et al.): 3D joints from few pairs and many poses.

The page in our symbols. D^sup are N pairs of an image x, of which only the foreground is seen, and a target y: 3D
joints about the root in the camera's frame, in metres. D^t are M further targets without images. VAE_x encodes x into
q(z_t | x), the pose, and q(z_s | x), everything else, and decodes both; VAE_y encodes y into q(w_t | y), of the same
space as z_t, and decodes it. With squared errors for the log-likelihoods and KL for the divergence from N(0, 1):

    L_VAEx  = |x - D_x(z_t, z_s)|^2 + beta_x KL(z_t) + beta_x KL(z_s)       Eq. 2
    L_VAEy  = |y - D_y(w_t)|^2 + beta_y KL(w_t)                             Eq. 3, pairs and unpaired targets
    L_cross = |x - D_x(w_t, z_s)|^2 + beta_y KL(w_t) + beta_x KL(z_s)       Eq. 4
    L_sup   = |y - D_y(z_t)|^2 + beta_x KL(z_t)                             Eq. 6
    L       = L_VAEx + L_VAEy + L_cross + L_sup                             Eq. 7

each code drawn from its distribution (in training). After each step of L follow m = floor(M / N) steps of L_VAEy alone
(Algorithm 1). A linear layer after the image encoder regresses a weak-perspective camera (s, t), through which the
decoded pose is compared with 2D joints: L_projection = |s D_y(z_t)_xy + t - joints|, for the pairs and for frames of
which only 2D joints are known (`--labels`). To detect, D_y decodes the mean of q(z_t | x), and the camera puts it into
the crop.

With `target: sketch` VAE_y is of monochrome pictures instead (Sec. 4.1); nothing else changes.

Where we differ:
- The paper removes backgrounds by an existing segmentation network, at run time too. Here a small network learns the
  store's masks (L_foreground, cross entropy, on all frames of a batch) and is part of the exported model. VAE_x sees
  the store's foreground, and for a part of the pictures the one that was found, so that it knows such edges.
- L_cross takes z_s from another frame of the same clip (`other_frames`), which shows the same person in another pose.
  As printed, z_s is free to hold the pose as well, and does: the pose of swapped pictures followed the giver of z_s
  (125 mm from it, 183 mm from the giver of z_t, on people never seen; BatchNorm, ten seeds).
- Frames without a pose take part in L_VAEx (`unlabelled`); the paper names that as future work.
- Layer and group normalisation instead of batch normalisation (presets `paper` and `mini-paper` have that). The
  decoder of VAE_y is fed by codes of images and of poses, whose statistics differ, and at the end it has the mean of
  both. Without L_cross that costs 9 mm in PA-MPJPE, with it 2 mm (people held out, one seed: what is gained where its
  statistics are taken anew from images of pairs); where each sample is normalised there is nothing to lose.
- Pairs are augmented by affine maps, mirroring and colours; the unpaired poses are turned about all axes as far as the
  skeleton file says.
- Weights that the paper leaves to its supplement: errors of poses are in (25 cm)^2 a joint, those of images have
  `image_weight`, the divergences are sums over the 64 dimensions with `beta_x` and `beta_y`.

Seen so far (`pipelines/reproduce/disentangle.md`: 800 steps on pictures of 32 pixels, 600 pairs): as printed, with
BatchNorm, L_cross lowers PA-MPJPE from 107.2 +- 0.9 to 102.2 +- 0.8 mm (ten fresh seeds), and L_sup alone is better
still (100.2 +- 0.9); where layers and groups are normalised all losses are at 98.3 +- 1.1, L_sup alone at 104.1 +- 2.0
(five seeds), and L_cross does not lower the error (96.7 +- 0.8 without it) but makes swapped pictures follow the pose
of the giver of z_t more closely. No recipe was found where both help. 10 % of the pairs cost 2 %. L_sup alone is best
with 2 % of the pairs and when training goes on (2,000 steps, one seed): the other losses learn few pairs by heart.
Colours are learnt last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampose.console import logger
from streampose.errors import ConfigError, TrainingError
from streampose.losses.latent import image_error, kl_to_standard_normal, mean_over
from streampose.methods.disentangle_config import DisentangleConfig, load_disentangle_config
from streampose.methods.disentangle_data import add_labelled, keep_share, read_targets
from streampose.methods.disentangle_pairs import read_pairs
from streampose.methods.disentangle_pictures import interpolation_grid, swap_grid
from streampose.methods.disentangle_targets import PoseTarget, SketchTarget, Target
from streampose.methods.mask_data import Augmentation, Frames, random_views, read_frames
from streampose.methods.supervision import read_labelled
from streampose.models.disentangle import (
    LATENT,
    PRESETS,
    Gaussian,
    ImageDecoder,
    PoseTranslator,
    project_weakly,
    without_background,
)
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton

__all__ = ["DisentangleConfig", "DisentangleTask", "load_disentangle_config", "make_disentangle_task"]
SHOWN = 6  # subjects in a picture


def make_disentangle_task(
    reader: StoreReader, skeleton: Skeleton, config: DisentangleConfig, device: torch.device | str
) -> DisentangleTask:
    """Read a store's clips, the known poses and the prior, and set up what `training.engine.train` runs.

    Raises:
        ConfigError: no pairs are named, or sketches are asked for. TrainingError: no pair fits the store.
    """
    if config.target == "sketch":
        raise ConfigError(
            "target=sketch: what draws sketches is no pose model to evaluate and serve; train it with "
            "pipelines/reproduce/disentangle.py --cells sketch"
        )
    if config.pairs is None:
        raise ConfigError(
            "method disentangle learns from a few frames with known 3D poses: name the folder of their files with "
            "--set pairs=FOLDER (what `synth` or `annotate --session` wrote about videos in the store)"
        )
    frames = read_frames(reader, config.input_size, config.cache_megabytes)
    known = keep_share(read_pairs(reader, frames, skeleton, config.pairs), config.pairs_share, config.seed)
    if (labelled := read_labelled(reader, skeleton, config.supervision, config.input_size)) is not None:
        frames, known = add_labelled(frames, known, labelled)
    poses = read_targets(reader, skeleton, config.prior, config.prior_poses, config.seed)
    return DisentangleTask(frames, PoseTarget(skeleton, known, poses), skeleton, config)


def make_sketch_task(frames: Frames, skeleton: Skeleton, config: DisentangleConfig) -> DisentangleTask:
    """The task of image-to-sketch translation; of a random part of the frames only the sketch is known."""
    order = np.random.default_rng((config.seed, 5)).permutation(len(frames))
    unpaired = np.sort(order[: round(config.pictures_share * len(frames))])
    return DisentangleTask(frames, SketchTarget(frames, unpaired, config.image_weight), skeleton, config)


class DisentangleTask:
    """What the engine trains; see `training.engine.Task`."""

    def __init__(self, frames: Frames, target: Target, skeleton: Skeleton, config: DisentangleConfig):
        if len(target.paired) < 2:
            raise TrainingError(f"{len(target.paired)} frames with a known target; at least two are needed")
        self.frames, self.target, self.skeleton, self.config = frames, target, skeleton, config
        name = config.detector.removeprefix("disentangle-")
        self.detector, encoder_y = target.networks(name, config.input_size)
        self.batch_norm = PRESETS[name].batch_norm
        self.decoder_x = ImageDecoder(PRESETS[name], 2 * LATENT, config.input_size)
        self.encoder_y = encoder_y
        self.networks = nn.ModuleDict(
            {"detector": self.detector, "decoder_x": self.decoder_x, "encoder_y": self.encoder_y}
        )
        self.labelled = target.known.labelled if isinstance(target, PoseTarget) else target.paired[:0]
        self.rest = np.setdiff1d(np.arange(len(frames)), np.concatenate([target.paired, self.labelled]))
        if isinstance(target, SketchTarget):
            self.rest = self.rest[:0]  # their pictures are not to be seen
        self.mates = _mates(target.paired, frames.clip)
        self.extra = self._target_steps()
        self.total_steps = config.steps * (1 + self.extra)
        logger.info(
            "%d pairs, %d unpaired targets (m = %d), %d frames with 2D labels, %d other frames",
            len(target.paired), target.count, self.extra, len(self.labelled), len(self.rest),
        )  # fmt: skip

    def _target_steps(self) -> int:
        """m of Algorithm 1, or as configured; 0 where there are no unpaired targets or VAE_y is not trained."""
        if self.target.count == 0 or not self._weight("vae_y"):
            return 0
        chosen = self.config.target_steps
        return self.target.count // len(self.target.paired) if chosen is None else chosen

    def _weight(self, term: str) -> float:
        return self.config.terms.get(term, 0.0)

    def plan(self, steps_per_second: float, max_minutes: float) -> None:
        """Fit the steps to a time; the rate is that of joint steps and steps of VAE_y together."""
        cycle = 1 + self.extra
        self.total_steps = cycle * max(1, round(0.93 * 60 * max_minutes * steps_per_second / cycle))

    def is_joint(self, step: int) -> bool:
        """Whether a step is one of L; the others are of L_VAEy alone."""
        return step % (1 + self.extra) == 0

    def stage(self, step: int) -> str:
        return "joint"

    def optimiser_settings(self, step: int) -> dict[str, float]:
        """A short rise and a cosine fall."""
        rise = min(1.0, (step + 1) / max(1, min(200, self.total_steps // 10)))
        fall = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / max(1, self.total_steps)))
        return {"lr": float(self.config.learning_rate * rise * fall), "weight_decay": self.config.weight_decay}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Augmented pairs and other frames; or unpaired targets alone."""
        config, rng = self.config, np.random.default_rng((self.config.seed, step, rank))
        if not self.is_joint(step):
            return {"y": torch.from_numpy(self.target.unpaired(config.target_batch_size, rng))}
        labelled = round(config.supervision.share * config.batch_size) if len(self.labelled) else 0
        others = round(config.unlabelled * config.batch_size) if len(self.rest) and self._weight("vae_x") else 0
        half = max(1, (config.batch_size - labelled - others) // 2)
        pairs = rng.choice(self.target.paired, half)
        kinds = ((self.labelled, labelled), (self.rest, others))
        parts = [pairs, self._other_frames(pairs, rng), *(rng.choice(rows, count) for rows, count in kinds if count)]
        index = np.concatenate(parts)
        views = random_views(self.frames, index, rng, Augmentation(**config.augmentation.model_dump()))
        views = {name: views[name] for name in ("images", "masks", "matrix", "flipped", "empty")}
        views |= self.target.of_views(index, views)
        views["paired"] = (np.arange(len(index)) < 2 * half) & ~views["empty"]
        views["mate"] = np.arange(len(index))
        if config.other_frames:
            views["mate"][: 2 * half] = np.roll(np.arange(2 * half), half)
        return {name: torch.from_numpy(value) for name, value in views.items()}

    def _other_frames(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each frame a random other one with a known target of its clip; itself where there is none."""
        others = [mates[mates != row] for row, mates in zip(rows, (self.mates[row] for row in rows), strict=True)]
        return np.array([rng.choice(o) if len(o) else row for row, o in zip(rows, others, strict=True)])

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Eq. 7 with the projection and the foreground, or Eq. 3 alone."""
        if "images" not in batch:
            terms = {"vae_y": self._vae_y(batch["y"])}
            return terms, {"vae_y": self._weight("vae_y")}
        weights = {term: weight for term, weight in self.config.terms.items() if weight}
        terms = self._joint_terms(batch, weights)
        return {term: terms[term] for term in weights}, weights

    def _joint_terms(self, batch: dict[str, Tensor], asked: dict[str, float]) -> dict[str, Tensor]:
        config, detector = self.config, self.detector
        images = batch["images"].permute(0, 3, 1, 2).float() / 255
        mask, paired, there = batch["masks"].float() / 255, batch["paired"], ~batch["empty"]
        terms: dict[str, Tensor] = {}
        seen = mask
        if "foreground" in asked:
            logits = detector.foreground(images)
            terms["foreground"] = F.binary_cross_entropy_with_logits(logits, mask)
            found = torch.rand(len(images), device=images.device) < config.found_masks
            seen = torch.where(found[:, None, None], torch.sigmoid(logits.detach()), mask)
        x = without_background(images, mask)
        q_t, q_s, features = detector.encode(without_background(images, seen))
        z_t, z_s = q_t.sample(), q_s.sample()
        y = batch["y"]
        if "cross" in asked or "vae_y" in asked:
            # Of pairs alone: codes of unknown poses would enter the statistics where batches are normalised.
            rows = torch.isfinite(y).flatten(1).any(1).nonzero()[:, 0]
            q_w = self.encoder_y(y[rows])
            w_t, counted = q_w.sample(), paired[rows]
        pictures, poses = [torch.cat([z_t, z_s], 1)], [z_t]
        if "cross" in asked:
            mate = batch["mate"][rows]  # whose z_s goes with w_t
            pictures.append(torch.cat([w_t, z_s[mate]], 1))
        if "vae_y" in asked:
            poses.append(w_t)
        if "vae_x" in asked or "cross" in asked:
            made = self._decode(self.decoder_x, pictures)
        y_of = self._decode(detector.decoder, poses)
        if "vae_x" in asked:
            apart = config.image_weight * image_error(made[0], x)
            terms["vae_x"] = mean_over(apart + config.beta_x * (_kl(q_t) + _kl(q_s)), there)
        if "vae_y" in asked:
            terms["vae_y"] = mean_over(self.target.error(y_of[1], y[rows]) + config.beta_y * _kl(q_w), counted)
        if "cross" in asked:
            apart = config.image_weight * image_error(made[1], x[rows])
            divergence = config.beta_y * _kl(q_w) + config.beta_x * _kl(q_s)[mate]
            terms["cross"] = mean_over(apart + divergence, counted & there[mate])
        if "sup" in asked:
            terms["sup"] = mean_over(self.target.error(y_of[0], y) + config.beta_x * _kl(q_t), paired)
        if "projection" in asked:
            assert isinstance(detector, PoseTranslator)
            projected = project_weakly(y_of[0], detector.cameras(features))[..., :2]
            known = torch.isfinite(batch["xy"]).all(-1) & there[:, None]
            missed = (projected - torch.nan_to_num(batch["xy"])).abs().sum(-1)
            terms["projection"] = (missed * known).sum() / known.sum().clamp_min(1)
        return terms

    def _decode(self, decoder: nn.Module, codes: list[Tensor]) -> Sequence[Tensor]:
        """Each kind of codes through a decoder; at once, which is faster, unless batches of them are normalised."""
        if self.batch_norm:
            return [decoder(one) for one in codes]
        return decoder(torch.cat(codes)).split([len(one) for one in codes])

    def _vae_y(self, y: Tensor) -> Tensor:
        q_w = self.encoder_y(y)
        return (self.target.error(self.detector.decoder(q_w.sample()), y) + self.config.beta_y * _kl(q_w)).mean()

    @torch.no_grad()
    def picture(self, batch: dict[str, Tensor], step: int) -> np.ndarray | None:
        """Swapped codes and interpolations (Fig. 6) of frames of different clips."""
        if not self._weight("vae_x") and not self._weight("cross"):
            return None
        subjects = self.shown().to(next(self.networks.parameters()).device)
        training = self.networks.training
        self.networks.eval()
        skeleton = self.skeleton if isinstance(self.target, PoseTarget) else None
        swapped = swap_grid(self.detector, self.decoder_x, subjects)
        between = interpolation_grid(self.detector, self.decoder_x, subjects, skeleton)
        self.networks.train(training)
        width = max(swapped.shape[1], between.shape[1])
        parts = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in (swapped, between)]
        return np.concatenate(parts, 0)

    def shown(self) -> Tensor:
        """Foreground-only images of frames of as many different clips as there are: (SHOWN, 3, S, S)."""
        at = np.linspace(0, len(self.frames) - 1, SHOWN).round().astype(int)
        images = torch.from_numpy(self.frames.crops[at]).permute(0, 3, 1, 2).float() / 255
        return without_background(images, torch.from_numpy(self.frames.masks[at]).float() / 255)


def _mates(paired: np.ndarray, clip: np.ndarray) -> dict[int, np.ndarray]:
    """Each paired frame -> the paired frames of its clip."""
    of_clip = {number: paired[clip[paired] == number] for number in np.unique(clip[paired])}
    return {int(row): of_clip[clip[row]] for row in paired}


def _kl(q: Gaussian) -> Tensor:
    return kl_to_standard_normal(q.mean, q.log_variance).sum(-1)
