"""Learning Landmarks from Unaligned Data using Image Translation (Jakab, Gupta, Bilen, Vedaldi): 2D joints from frame
pairs of videos and poses that belong to no picture.

The page in our symbols. Phi turns an image x into a skeleton image y, which eta reads as joints p; beta draws joints as
a clean skeleton image y* (Eq. 1, bones; Eq. 2, points); Psi makes the image again of y* and of another frame x' of the
same video, which lends the appearance:

    y = Phi(x),   p = eta(y),   y* = beta(p),   x^ = Psi(y*, x')                      Eq. 3, 4
    L = L_perc(x^, x) + lambda ((1 - D(y_bar))^2 + D(y)^2)                              Eq. 5, 6

where y_bar = beta(p_bar) is drawn of unpaired poses, and D judges skeleton images at three scales against Phi. First
eta learns eta(beta(p_bar)) = p_bar from poses alone; then it is frozen (Sec. 3.1, 4). The detector is eta after Phi.

The ablations of Table 5 are switches: `conditional`, `bottleneck` and `second_cycle` (Phi(Psi(y_bar, x')) = y_bar with
the image discriminator D_X). `prior: none` is the ancestor (Jakab et al., NIPS 2018): points without names that explain
how images change, and a linear map from them to joints, which few labels of the store teach.

Where we differ (each is a switch):

- `figures`: an hour of two cores is not 3 million iterations. Before the joint objective, and for a share of its
  batches, Phi learns from figures: capsules of the skeleton file's thickness, in random colours, clothes and light,
  painted over the videos' borders in unpaired poses (`landmarks_figures`). They use nothing but what the method has
  already, and settle which part of the body is which, which the adversarial term would otherwise have to find out
  alone. How they are painted matters more than anything else here (`pipelines/reproduce/landmarks.md`).
- `detector: ...-sided`: middle, left and right bones are drawn in a channel each. In one channel the trunk hides an arm
  before it, so that eta alone errs by 2.8 % of the image instead of 1.4 %, and x^ says nothing about it either.
- `facing`: a picture of sticks is the same from before and behind, so eta would learn the mean of both namings. The
  sides of unpaired poses are named as if the subject faced the camera; errors are to be read with flips. Seen from the
  side, where that is a toss-up, a figure may be named either way.
- Joints are compared by their distance, not by its square: a hand that is at one place or another is not to be put
  between the two.
- `proper`: Phi's own image is drawn towards what is drawn of its joints, y towards y* (eta is frozen, so nothing else
  keeps what eta reads and what Phi means together).
- `reading`: at the end eta, and only eta, learns to read Phi's images of painted figures, which are dimmer and broader
  than clean ones where Phi is in doubt.
- `equivariance`: a crop that is turned, shifted and scaled has its joints turned, shifted and scaled (as `mask`).
- `decoder_first`: at the beginning of the joint objective Psi and the discriminators learn alone; what they ask of Phi
  while they are untrained is noise, and by the adversarial term alone Phi loses what figures taught it.
- D_y's first convolution is not normalised: it is to see how bright a skeleton image is (`models/discriminators.py`).
- The generator minimises (1 - D(y))^2, as least-squares GANs do; Eq. 5 read as a game would have it maximise D(y)^2.
- Skeletons have Gaussian flanks of the *squared* distance; BatchNorm of eta is frozen with its weights.
- Features for L_perc: see `models/features.py`; each layer counts relative to its variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampose.console import logger
from streampose.errors import ConfigError
from streampose.losses.adversarial import discriminator_loss, generator_loss
from streampose.losses.heatmaps import gaussian_targets, heatmap_cross_entropy, robust_distance
from streampose.losses.perceptual import feature_distance
from streampose.losses.skeleton_images import point_image, point_images, sided_image
from streampose.methods.landmarks_config import LandmarksConfig, load_landmarks_config
from streampose.methods.landmarks_data import (
    Change,
    Crops,
    random_again,
    random_backgrounds,
    random_pairs,
    read_crops,
)
from streampose.methods.landmarks_pictures import draw_columns, draw_skeletons, draw_swaps
from streampose.methods.landmarks_prior import Poses, find_prior, follows, pick_poses
from streampose.methods.landmarks_schedule import Schedule
from streampose.methods.mask_config import AugmentationConfig
from streampose.methods.mask_data import Augmentation, resize_images
from streampose.methods.supervision import Labelled, labelled_batch, labelled_count, read_labelled, supervised_term
from streampose.models.detector import build_detector
from streampose.models.discriminators import ImageDiscriminator, SkeletonDiscriminator
from streampose.models.features import PerceptualFeatures, VggFeatures, vgg_path
from streampose.models.translation import FREE_POINTS, PLANS, ImageDecoder
from streampose.store.labels import read_labels
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton

FREE_SIGMA = 0.1  # of the ancestor's points, in [-1, 1]
NOISE = 0.15  # of skeleton images that eta learns to read

__all__ = ["LandmarksConfig", "LandmarksTask", "load_landmarks_config", "make_landmarks_task"]


def make_landmarks_task(
    reader: StoreReader, skeleton: Skeleton, config: LandmarksConfig, device: torch.device | str
) -> LandmarksTask:
    """Read a store's crops and a prior's poses, and set up the training that `training.engine.train` runs."""
    data = read_crops(reader, config.input_size, config.cache_megabytes, config.seed)
    if config.prior == "none":
        return LandmarksTask(data, None, skeleton, config, few_labels(reader, skeleton, config.input_size))
    prior = find_prior(reader, skeleton, config.prior, config.seed)
    some = pick_poses(prior.poses, config.poses, config.seed)
    poses = Poses(some, skeleton, facing=config.facing, followed=follows(reader))
    logger.info("%d frames in pairs, %d unpaired poses of prior %s", len(data), len(poses), prior.name)
    labelled = read_labelled(reader, skeleton, config.supervision, config.input_size)
    return LandmarksTask(data, poses, skeleton, config, labelled=labelled)


class LandmarksTask:
    """What the engine trains; see `training.engine.Task`.

    Args:
        poses: None trains the ancestor.
        labels: of the ancestor: crops (L, S, S, 3) uint8 and joints (L, K, 2) in [-1, 1], NaN where unknown.
        labelled: of the method: labelled frames, which Phi and eta learn by one more term.
    """

    def __init__(
        self,
        data: Crops,
        poses: Poses | None,
        skeleton: Skeleton,
        config: LandmarksConfig,
        labels: tuple[np.ndarray, np.ndarray] | None = None,
        labelled: Labelled | None = None,
    ):
        self.data, self.poses, self.skeleton, self.config, self.labels = data, poses, skeleton, config, labels
        self.labelled = labelled
        self.plan_of_networks = plan = PLANS[config.detector]
        self.size = plan.image_size(config.input_size)
        self.schedule = Schedule(config)
        self.total_steps = self.schedule.total_steps
        self.detector: Any = build_detector(config.detector, skeleton.num_joints, config.input_size)
        bones = torch.zeros(0, 2, dtype=torch.long) if poses is None else torch.from_numpy(poses.bones)
        self.groups = bone_groups(bones, skeleton) if plan.sided else [bones]
        self.joint_groups = joint_groups(skeleton) if plan.sided else [list(range(skeleton.num_joints))]
        self.all_bones = bones
        channels = FREE_POINTS if poses is None else plan.channels
        limbs = len(bones) if config.limb_masks and poses is not None else 0
        self.decoder = ImageDecoder(plan, channels, conditional=config.conditional, limbs=limbs)
        networks: dict[str, nn.Module] = {"detector": self.detector, "decoder": self.decoder}
        self.features, learns = make_features(config.perceptual)
        if learns:
            networks["features"] = self.features
        if poses is not None:
            networks["discriminator"] = SkeletonDiscriminator(plan.channels, config.discriminator_width, self.size)
        if config.second_cycle:
            networks["image_discriminator"] = ImageDiscriminator(
                config.discriminator_width, self.size, conditional=config.conditional
            )
        self.networks = nn.ModuleDict(networks).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    # ---------------------------------------------------------------- schedule (see `methods/landmarks_schedule.py`)

    def plan(self, steps_per_second: float, max_minutes: float) -> None:
        """Stretch or shrink the stages to a time; the rate is that of the first stage."""
        self.schedule.plan(steps_per_second, max_minutes)
        self.total_steps = self.schedule.total_steps

    def minutes_left(self, start: int, step: int, minutes: float) -> float:
        """What the configured schedule still needs if the steps from `start` to `step` took so many minutes."""
        return self.schedule.minutes_left(start, step, minutes)

    def stage(self, step: int) -> str:
        """Name of the stage that a step belongs to."""
        return self.schedule.stage(step)

    def optimiser_settings(self, step: int) -> dict[str, float]:
        """Learning rates of a step."""
        return self.schedule.optimiser_settings(step)

    # ---------------------------------------------------------------- batches

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Poses and figures of them, and pairs of frames, as the step's stage needs them."""
        config, stage = self.config, self.stage(step)
        rng = np.random.default_rng((config.seed, step, rank))
        B, out = config.batch_size, {}
        if stage == "skeletons":
            out["poses"] = self._drawn(2 * B, rng).xy
            if "features" in self.networks:
                out["crops"] = self.data.crops[rng.integers(0, len(self.data), B)]
            return _tensors(out)
        if self.poses is not None:
            painted = B if stage != "landmarks" else round(B * config.figures)
            if painted:
                drawn = self._drawn(painted, rng)
                out["figures"] = self.poses.paint(drawn, random_backgrounds(self.data, painted, rng), rng)
                out["figure_poses"], out["figure_side_on"] = drawn.xy, self.poses.side_on(drawn.xy)
        if stage == "landmarks":
            how = Change(**config.augmentation.model_dump())
            if self.poses is not None and not self.poses.mirrored:
                how = replace(how, flip=0.0)
            out |= random_pairs(self.data, B, rng, how)
            if config.weights.get("equivariance", 0) > 0 and self.poses is not None:
                out |= random_again(out["images"][: B // 2], rng, how)
            if self.poses is not None:
                out["poses"] = self._drawn(B, rng).xy
            if self.labels is not None:
                few = rng.integers(0, len(self.labels[0]), min(B, len(self.labels[0])))
                out["label_images"], out["label_joints"] = self.labels[0][few], self.labels[1][few]
        if self.labelled is None:
            return _tensors(out)
        count = labelled_count(self.labelled, config.supervision, B)
        changes = Augmentation(**AugmentationConfig().model_dump())
        return _tensors(out) | labelled_batch(self.labelled, self.skeleton, count, rng, changes)

    def _drawn(self, count: int, rng: np.random.Generator) -> Any:
        assert self.poses is not None
        return self.poses.draw(count, rng)

    # ---------------------------------------------------------------- losses

    def draw(self, xy: Tensor) -> Tensor:
        """beta: joints (B, K, 2) as a clean skeleton image (B, C, s, s)."""
        config = self.config
        if self.poses is None:
            return point_images(xy, self.size, FREE_SIGMA)
        if config.renderer == "points":
            return torch.stack([point_image(xy[:, joints], self.size, config.sigma) for joints in self.joint_groups], 1)
        return sided_image(xy, self.groups, self.size, config.gamma)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The terms of the step's stage and their weights."""
        stage = self.stage(step)
        if self.poses is None:
            terms = self._ancestor_terms(batch)
        elif stage == "skeletons":
            terms = self._reader_terms(batch)
        elif stage == "figures":
            self._freeze_reader()
            terms = self._figure_terms(self.detector.image_encoder(_images(batch["figures"])), batch)
        elif stage == "reading":
            terms = self._reading_terms(batch)
        else:
            self._freeze_reader()
            terms = self._joint_terms(batch, self.schedule.within(step) >= self.config.decoder_first)
        weights = {name: self.config.weights.get(name, 0.0) for name in terms}
        if "labelled_images" in batch:
            found = self.detector.read(self.detector.image_encoder(_images(batch["labelled_images"])))
            terms["supervised"], weights["supervised"] = supervised_term(found, batch), self.config.supervision.weight
        return terms, weights

    def _reader_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """eta(beta(p)) = p, on skeleton images that are as noisy as those of Phi."""
        self.detector.reader.requires_grad_(True)
        poses = batch["poses"]
        clean = self.draw(poses)
        noisy = clean + NOISE * torch.rand(len(clean), 1, 1, 1, device=clean.device) * torch.randn_like(clean)
        found = self.detector.read(noisy)
        terms = {"reader": joint_distance(found.keypoints, poses), "reader_maps": map_distance(found.heatmaps, poses)}
        if "crops" in batch:
            crops = self._small(_images(batch["crops"]))
            turns = torch.arange(len(crops), device=crops.device) % 4
            turned = torch.stack([torch.rot90(crop, int(k), (1, 2)) for crop, k in zip(crops, turns, strict=True)])
            terms["rotations"] = F.cross_entropy(self.networks["features"].rotations(turned).float(), turns)  # type: ignore[operator]
        return terms

    def _figure_terms(self, y: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Phi of painted figures is their skeleton image, and eta reads their joints in it."""
        found = self.detector.read(y).keypoints
        poses = self._closer_naming(found, batch)
        return {
            "figures": (y.float() - self.draw(poses)).square().mean(),
            "figures_xy": joint_distance(found, poses),
        }

    def _reading_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """eta reads what Phi makes of figures, and their clean skeleton images as before; Phi stays as it is."""
        self.detector.image_encoder.requires_grad_(False).eval()
        self.detector.reader.requires_grad_(True).train()
        y = self.detector.image_encoder(_images(batch["figures"])).float()
        clean = self.draw(batch["figure_poses"])
        of_phi, of_clean = self.detector.read(torch.cat([y, clean])).keypoints.chunk(2)
        return {
            "reader": joint_distance(of_clean, batch["figure_poses"]),
            "figures_xy": joint_distance(of_phi, self._closer_naming(of_phi, batch)),
        }

    def _closer_naming(self, found: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The figures' joints (B, K, 2); of those seen from the side, where either naming will do, the closer one."""
        poses = batch["figure_poses"]
        other = poses[:, list(self.skeleton.flip_index)]
        closer = batch["figure_side_on"] & (joint_distances(found, other) < joint_distances(found, poses))
        return torch.where(closer[:, None, None], other, poses)

    def _joint_terms(self, batch: dict[str, Tensor], together: bool) -> dict[str, Tensor]:
        """Eq. 6, and what the switches add to it; but unless `together` Phi learns nothing of them."""
        config, B = self.config, len(batch["images"])
        x, other, y_bar = _images(batch["images"]), _images(batch["others"]), self.draw(batch["poses"])
        painted = _images(batch["figures"]) if "figures" in batch else x[:0]
        again = _images(batch["again"]) if "again" in batch else x[:0]
        all_y = self.detector.image_encoder(torch.cat([x, painted, again])).float()  # y = Phi(x)
        y, of_painted, of_again = all_y.split([B, len(painted), len(again)])
        found = self.detector.read(y)  # p = eta(y)
        xy = found.keypoints[..., :2]
        clean = self.draw(xy)  # y* = beta(p)
        target, appearance = self._small(x), self._small(other)
        limbs = self._limb_maps(xy)
        given = clean if config.bottleneck else y
        made = self.decoder(given if together else given.detach(), appearance, limbs)  # x^ = Psi(y*, x')
        terms = {"perceptual": self._distance(made, target)}
        judge = self.networks["discriminator"]
        terms["adversarial"], terms["discriminator"] = play(judge, y_bar, y if together else y.detach())  # Eq. 5
        if config.weights.get("proper", 0) > 0:
            terms["proper"] = (y - clean.detach()).square().mean()
        if len(painted):
            terms |= self._figure_terms(of_painted, batch)
        if len(again):
            matrix = batch["matrix"]
            moved = (matrix[:, None, :, :2] * xy[: len(again), :, None]).sum(-1) + matrix[:, None, :, 2]
            terms["equivariance"] = joint_distance(self.detector.read(of_again).keypoints, moved)
        if config.second_cycle:
            invented = self.decoder(y_bar, appearance, self._limb_maps(batch["poses"]))
            large = F.interpolate(invented, size=x.shape[-1], mode="bilinear") if self.size != x.shape[-1] else invented
            if together:
                terms["cycle"] = (self.detector.image_encoder(large).float() - y_bar).square().mean()
            look = (appearance,) if config.conditional else ()
            terms["image_adversarial"], terms["image_discriminator"] = play(
                lambda images: self.networks["image_discriminator"](images, *look), target, invented.float()
            )
        return terms

    def _ancestor_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Points that explain the image given another one; few labels teach what joints they are."""
        x, other = _images(batch["images"]), _images(batch["others"])
        xy = self.detector.points(x).keypoints[..., :2]
        made = self.decoder(self.draw(xy), self._small(other))
        terms = {"perceptual": self._distance(made, self._small(x))}
        if "label_images" in batch:
            with torch.no_grad():
                points = self.detector.points(_images(batch["label_images"])).keypoints[..., :2]
            terms["labels"] = joint_distance(self.detector.name(points), batch["label_joints"])
        return terms

    def _freeze_reader(self) -> None:
        self.detector.reader.requires_grad_(False).eval()

    def _limb_maps(self, xy: Tensor) -> Tensor | None:
        """A map of each bone (B, N, s, s), where Psi masks by limbs."""
        if not self.decoder.limbs:
            return None
        return sided_image(xy, list(self.all_bones[:, None]), self.size, self.config.gamma)

    def _small(self, images: Tensor) -> Tensor:
        """Images at the resolution that Psi works at."""
        factor = images.shape[-1] // self.size
        return F.avg_pool2d(images, factor) if factor > 1 else images

    def _distance(self, made: Tensor, target: Tensor) -> Tensor:
        features = self.features.to(made.device)
        features.requires_grad_(False)
        with torch.no_grad():
            wanted = features(target)
        distance = feature_distance(features(made), wanted)
        features.requires_grad_("features" in self.networks)
        return distance

    # ---------------------------------------------------------------- pictures

    @torch.no_grad()
    def picture(self, batch: dict[str, Tensor], step: int) -> np.ndarray | None:
        """What is learnt; in the last stage also swaps: the pose of one crop with the appearance of another."""
        if self.poses is None:
            points = self.detector.points(_images(batch["images"][:8])).keypoints[..., :2]
            made = self.decoder(self.draw(points), self._small(_images(batch["others"][:8])))
            return draw_columns([batch["images"][:8], batch["others"][:8], made], batch["images"][:8], points, None)
        self.detector.eval()
        if "images" not in batch:
            if "figures" in batch:
                y = self.detector.image_encoder(_images(batch["figures"][:8]))
                found = self.detector.read(y).keypoints
                picture = draw_columns([batch["figures"][:8], y], batch["figures"][:8], found, self.skeleton)
            else:
                y = self.draw(batch["poses"][:8])
                picture = draw_skeletons(y, self.detector.read(y).keypoints, self.skeleton)
        else:
            x, other = _images(batch["images"][:8]), _images(batch["others"][:8])
            y = self.detector.image_encoder(x)
            found = self.detector.read(y).keypoints
            clean = self.draw(found[..., :2])
            given = clean if self.config.bottleneck else y
            made = self.decoder(given, self._small(other), self._limb_maps(found[..., :2]))
            rows = [batch["images"][:8], batch["others"][:8], y, clean, made]
            columns = draw_columns(rows, batch["images"][:8], found, self.skeleton)
            swaps = self._swaps(x, other, found[..., :2], given)
            picture = np.concatenate([columns, swaps], 0)
        self.detector.train()
        return picture

    def _swaps(self, x: Tensor, other: Tensor, xy: Tensor, given: Tensor) -> np.ndarray:
        """Every pose (down) with every appearance (across)."""
        made = []
        for n in range(len(x) - 1):
            limbs = self._limb_maps(xy[n : n + 1].expand(len(x), -1, -1))
            made.append(self.decoder(given[n : n + 1].expand(len(x), -1, -1, -1), self._small(other), limbs))
        return draw_swaps(x[:-1], other, made)


def play(judge: Callable[[Tensor], list[Tensor]], real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """The two sides of an adversarial game in one pass of the discriminator, to be minimised together.

    Args:
        judge: made of images (B, C, s, s) its scores; samples must not influence one another.

    Returns:
        What the maker minimises (its gradient goes to `made` alone) and what the judge does (to the judge alone).
    """
    leaf = made.detach().requires_grad_()
    says_real, says_made = judge(real), judge(leaf)
    value = generator_loss(says_made)
    if not made.requires_grad:
        return value.detach(), discriminator_loss(says_real, says_made)
    (pull,) = torch.autograd.grad(value, leaf, retain_graph=True)
    return value.detach() + ((made - made.detach()) * pull).sum(), discriminator_loss(says_real, says_made)


def joint_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean distance of joints: (B, K, 2 or 3), (B, K, 2) with NaN where unknown -> scalar."""
    known = torch.isfinite(wanted).all(-1)
    return (_far(found, wanted) * known).sum() / known.sum().clamp_min(1)


def joint_distances(found: Tensor, wanted: Tensor) -> Tensor:
    """The same of each sample: (B,)."""
    known = torch.isfinite(wanted).all(-1)
    return (_far(found, wanted) * known).sum(-1) / known.sum(-1).clamp_min(1)


def _far(found: Tensor, wanted: Tensor) -> Tensor:
    """Quadratic near zero; what is in doubt between two places is drawn to one of them, not to their mean."""
    return robust_distance(found[..., :2].float(), wanted.nan_to_num())


def map_distance(heatmaps: Tensor, wanted: Tensor) -> Tensor:
    """Mean divergence of heatmaps from dots at the joints: (B, K, h, h) log, (B, K, 2) with NaN where unknown."""
    known = torch.isfinite(wanted).all(-1)
    targets = gaussian_targets(wanted.nan_to_num(), heatmaps.shape[-1])
    return (heatmap_cross_entropy(heatmaps, targets) * known).sum() / known.sum().clamp_min(1)


def joint_groups(skeleton: Skeleton) -> list[list[int]]:
    """The joints of the middle, of the left and of the right side."""
    left, right = ([pair[side] for pair in skeleton.flip_pairs] for side in (0, 1))
    return [[k for k in range(skeleton.num_joints) if k not in (*left, *right)], left, right]


def bone_groups(bones: Tensor, skeleton: Skeleton) -> list[Tensor]:
    """Bones (N, 2) that end in the middle, on the left and on the right side; where there is none, the first bone."""
    chosen = [[int(child) in joints for child in bones[:, 1]] for joints in joint_groups(skeleton)]
    return [bones[torch.tensor(which)] if any(which) else bones[:1] for which in chosen]


def make_features(name: str) -> tuple[nn.Module, bool]:
    """The network in whose features images are compared, and whether the run teaches it.

    Raises:
        ConfigError: vgg16 without its weights.
    """
    if name == "vgg16" or (name == "auto" and vgg_path().is_file()):
        try:
            return VggFeatures().requires_grad_(False).eval(), False
        except FileNotFoundError as error:
            raise ConfigError(
                f"perceptual=vgg16: its weights are not at {error}; put them there, or choose random or rotations"
            ) from None
    return PerceptualFeatures(), name == "rotations"


def few_labels(reader: StoreReader, skeleton: Skeleton, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The labels of a store: crops (L, size, size, 3) and joints (L, K, 2) in [-1, 1]; None where there are none."""
    labels = read_labels(reader.path).for_joints(skeleton.joints)
    frames = {clip.id: clip.num_frames for clip in reader.clips()}
    limits = np.array([frames.get(str(clip), 0) for clip in labels.clip], int)
    labels = labels.pick(labels.frame < limits)
    if not len(labels):
        logger.warning(
            "%s: no labels; the points stay without names, so label a few frames (`streampose labels import`)",
            reader.name,
        )
        return None
    items = [(str(clip), int(frame)) for clip, frame in zip(labels.clip, labels.frame, strict=True)]
    crops = resize_images(reader.read_many(items, masks=False).frames, size)
    return crops, ((labels.keypoints + 0.5) * (2 / reader.crop_size) - 1).astype(np.float32)


def _images(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) in [0, 1], channels last."""
    return images.permute(0, 3, 1, 2).float() / 255


def _tensors(values: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}
