"""Mask as Supervision (Yang, Qiao, Sun): 3D joints from foreground masks alone, of one view or several.

The page in our symbols. A detector phi turns a crop I into joints X (Eq. 1); x are their first two coordinates. The
bones that a skeleton file names are drawn between them as a skeleton mask M_skel(x) (Eq. 4, `losses/bone_maps.py`); the
shape prior network psi dresses it to a physique mask M_phys = psi(M_skel) (Eq. 6). Both are compared with the mask M of
the video, weighed by geodesic distances G (Eq. 9):

    L = lambda_s |G (M - M_skel)|^2 + lambda_p |G (M - M_phys)|^2          Eq. 5, 7, 8, 9

beside constant trunk bones (Eq. 12), equivariance to affine maps (Eq. 13) and left-right symmetry (Eq. 14). The cascade
(Sec. 3.4, App. A.3) draws a `tight` skeleton without arms, then a `medium` one while psi learns and left and right
arms are tied, then a `loose` one. Eq. 3, dots instead of bones, is `structure: false`.

Where calibrated cameras film a subject together, the views x^v of an instant are triangulated and what is drawn and
compared with each view's mask is the re-projected skeleton (`methods/mask_space.py`, which also says how views come to
agree about left and right):

    X = Delta({x^v}, {Pi^v}),   x'^v = Pi^v X                                 Eq. 10

A batch mixes instants of sessions (`methods/mask_views.py`) and single frames in any proportion (`multiview.share`).

Where we differ (each is a switch; `tests/benchmarks/mask_synthpose.py` shows what it brings):

- `silhouette.enabled`: the printed recipe runs into optima in which hips cover hanging arms. So a small network rho
  first learns to read silhouettes of random poses drawn from the skeleton file (`methods/mask_prior.py`). What it
  reads from the videos' masks, merged over views and smoothed along clips (`methods/mask_labels.py`), is the warm-up's
  target instead of the pseudo pelvis and thorax, and stays as a term weighed by its confidence.
- `dolls`: a share of each batch are random figures painted on the videos' backgrounds, again from the skeleton file
  alone. They teach what no mask shows: limbs in front of the body, and z.
- Several views also settle left and right of the pseudo-labels (`multiview.labels`), teach the views what they say
  together (term `views`: the printed Eq. 10 passes gradients through the triangulation only) and z (`views_z`; the
  paper does not say where z comes from).
- `self_training`: later stages replace those targets by the detector's own predictions, merged with
  rho's.
- `supervision`: labels, where there are some, add a supervised term, take the place of the pseudo-labels of their
  frames and settle left and right around them (`methods/supervision.py`).
- `terms` that the paper has not: `ceiling` (a projected bone is at most `max_length` long), `space` (3D bone lengths,
  so that z explains a short projection), `equal` (left and right bones are equally long in 3D), `across` (shoulders and
  hips stand across the trunk in 3D), `empty` (heatmaps are flat where the subject was taken out of the picture, so
  that confidence tells a lost subject).
- Bones are drawn with the half thickness that the skeleton file gives them (`bone_width: radius`), so that only arms
  explain thin regions; `bone_width: sigma` is the paper's.
- Merging bone maps by 1 - prod(1 - B), Eq. 16 and 17 corrected, soft-argmax over cell centres, the unit of lengths: see
  `losses/bone_maps.py`, `models/detector.py` and `mask_data.subject_sizes`.
- Left and right: a mask does not tell them. The first stage calls the sides as if the subject faced the camera; then
  targets are compared with both namings and the closer one counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampose.console import logger
from streampose.losses import bone_maps, heatmaps, skeleton_terms
from streampose.methods.mask_affine import from_view, to_view
from streampose.methods.mask_bones import BoneTables
from streampose.methods.mask_config import MaskConfig, StageConfig, load_mask_config
from streampose.methods.mask_data import (
    Augmentation,
    Frames,
    disturb,
    random_backgrounds,
    random_views,
    read_frames,
    resize_images,
)
from streampose.methods.mask_labels import (
    LabelMemory,
    Labels,
    Naming,
    across_views,
    along_clips,
    label_distances,
    mask_fit,
    merge,
    predict_labels,
)
from streampose.methods.mask_pictures import draw_columns, draw_silhouettes
from streampose.methods.mask_prior import dolls, silhouettes
from streampose.methods.mask_reader import WEIGHTS as reader_weights
from streampose.methods.mask_reader import load_shipped, reader_loss
from streampose.methods.mask_schedule import Schedule
from streampose.methods.mask_space import Anatomy, Cameras, Space, triangulate_views
from streampose.methods.mask_views import Instants, Mixture, find_instants, no_instants
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
from streampose.models.shape_prior import ShapePriorNetwork
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton

FIT = 0.04  # difference in overlap with the mask at which a label counts a third

__all__ = ["MaskConfig", "MaskTask", "from_view", "load_mask_config", "make_task", "to_view"]


def make_task(reader: StoreReader, skeleton: Skeleton, config: MaskConfig, device: torch.device | str) -> MaskTask:
    """Read a store's clips into memory and set up the training that `training.engine.train` runs."""
    frames = read_frames(reader, config.input_size, config.cache_megabytes)
    instants = find_instants(reader, frames) if config.multiview.triangulate else None
    labelled = read_labelled(reader, skeleton, config.supervision, config.input_size)
    return MaskTask(frames, skeleton, config, instants, labelled, [clip.id for clip in reader.clips()])


class MaskTask:
    """What the engine trains; see `training.engine.Task`."""

    def __init__(
        self,
        frames: Frames,
        skeleton: Skeleton,
        config: MaskConfig,
        instants: Instants | None = None,
        labelled: Labelled | None = None,
        clips: Sequence[str] = (),
    ):
        self.frames, self.skeleton, self.config, self.labelled = frames, skeleton, config, labelled
        self.pinned = None
        if labelled is not None and config.supervision.pin:
            self.pinned = find_pinned(labelled, frames, list(clips))
        self.num_labelled = labelled_count(labelled, config.supervision, config.batch_size)
        self.instants = no_instants(len(frames)) if instants is None else instants
        self.mixture = Mixture(self.instants, len(frames), config.multiview.views, config.multiview.share)
        self.anatomy = Anatomy(skeleton)
        K, rho = skeleton.num_joints, config.silhouette
        self.detector = build_detector(config.detector, K, config.input_size)
        self.physique = ShapePriorNetwork()
        self.labels = LabelMemory(len(frames), K)
        self.networks = nn.ModuleDict({"detector": self.detector, "physique": self.physique, "labels": self.labels})
        if rho.enabled:
            self.silhouette = build_detector(rho.detector, K, rho.size, channels=1)
            self.networks["silhouette"] = self.silhouette
        self.reads_already = rho.enabled and rho.shipped and load_shipped(self.silhouette, skeleton, rho)
        if rho.enabled and not self.reads_already:
            logger.info("skeleton %s: no silhouette reader comes with it, so the run first teaches one", skeleton.name)
        self.bones = BoneTables(skeleton)
        self.readings: Labels | None = None  # what rho reads from the masks, once it was asked
        self.schedule = Schedule(config, self.reads_already)
        self.total_steps = self.schedule.total_steps

    # ---------------------------------------------------------------- schedule (see `methods/mask_schedule.py`)

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
        """Learning rates: a short rise and a cosine fall, for rho's stage and for the others as one."""
        return self.schedule.optimiser_settings(step)

    # ---------------------------------------------------------------- batches

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Silhouettes of random poses, or two pictures of each of half a batch of frames, instants first."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        if self.stage(step) == "silhouette":
            rho = self.config.silhouette
            masks, joints = silhouettes(self.skeleton, rho.batch_size, rho.size, rng)
            return {"masks": torch.from_numpy(masks), "joints": torch.from_numpy(joints)}
        how = Augmentation(**self.config.augmentation.model_dump())
        dolls_share = self.config.dolls if self.config.structure else 0.0
        num_dolls = round(self.config.batch_size * dolls_share)
        own = self.config.batch_size - num_dolls - self.num_labelled
        drawn, seen = self.mixture.draw(step, max(1, own // 2), rng)
        index = drawn.repeat(2)
        views = {"index": index} | random_views(self.frames, index, rng, how)
        if len(seen):
            views |= {"seen": seen} | self.instants.cameras_of(drawn[: seen.size].reshape(seen.shape))
        if num_dolls:
            backgrounds = random_backgrounds(self.frames, num_dolls, rng)
            views["doll_images"], views["doll_joints"] = dolls(self.skeleton, backgrounds, rng)
            for image in views["doll_images"]:
                disturb(image, rng, how)
        batch = {name: torch.from_numpy(value) for name, value in views.items()}
        if self.labelled is not None:
            batch |= labelled_batch(self.labelled, self.skeleton, self.num_labelled, rng, how, self.frames)
        return batch

    # ---------------------------------------------------------------- losses

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The terms of the step's stage and their weights."""
        name = self.stage(step)
        if name == "silhouette":
            return self._silhouette_loss(batch)
        self._label_if_due(name)
        stage = self.config.stages[name]
        within = self.schedule.within(step)
        view = self._view(batch)
        both = self.detector(view["images"])
        count = len(batch["index"])
        out = DetectorOutput(*(value[:count] for value in both))
        present, height = view["present"], view["height"]
        space = self._space(batch, out, stage)
        X = out.keypoints if space is None else self._reprojected(batch, out, space)  # Eq. 10
        x = X[..., :2]
        bones = self.bones.to(x.device)
        weights = {
            term: weight for term, weight in stage.terms.items() if weight > 0 and self._applies(term, stage, within)
        }
        skeleton_mask = self._skeleton_mask(x, stage, height)
        G = self._geodesic(view["geodesic"]) if stage.geodesic else torch.ones_like(view["geodesic"])
        terms: dict[str, Tensor] = {}
        # the first stage settles on one naming of left and right, unless labels or sessions know it
        known = self.labelled is not None or (self.config.multiview.labels and len(self.instants))
        facing = name == next(iter(self.config.stages)) and not known
        if weights.keys() & {"label", "label_xy", "label_z"}:
            terms |= self._label_terms(batch, out, facing)
        if "doll" in weights:
            painted = DetectorOutput(*(value[count : count + len(batch["doll_joints"])] for value in both))
            sure = torch.ones_like(painted.confidence)
            distances = self._distances(painted, batch["doll_joints"], sure, "facing" if facing else "closer")
            terms["doll"] = distances["label"] + 2 * distances["label_xy"] + distances["label_z"]
        if space is not None and weights.keys() & {"views", "views_z"}:
            terms |= self._views_terms(batch, out, space)
        terms["skeleton"] = _mean((G * (view["mask"] - skeleton_mask)) ** 2, present)  # Eq. 5, 9
        if "physique" in weights:
            physique_mask = self.physique(skeleton_mask[:, None])[:, 0]
            terms["physique"] = _mean((G * (view["mask"] - physique_mask)) ** 2, present)  # Eq. 7, 9
        if "constant" in weights:
            constant = skeleton_terms.constant_length(x, bones.constant, bones.constant_lengths, height)
            terms["constant"] = _mean(constant, present)  # Eq. 12
        if "equivariance" in weights:
            terms["equivariance"] = self._equivariance(batch, out.keypoints)  # Eq. 13
        if "symmetry" in weights:
            terms["symmetry"] = _mean(skeleton_terms.symmetry(x, bones.midpoints), present)  # Eq. 14
        if "warmup" in weights:
            terms["warmup"] = self._pseudo_pair(x, view)
        if "tied" in weights:
            terms["tied"] = _mean(skeleton_terms.tied(x, bones.arm_pairs), present)
        if "ceiling" in weights:
            terms["ceiling"] = _mean(skeleton_terms.length_ceiling(x, bones.all, bones.ceilings, height), present)
        if "space" in weights:
            terms["space"] = _mean(skeleton_terms.length_in_space(X, bones.all, bones.lengths, height), present)
        if "equal" in weights:
            terms["equal"] = _mean(skeleton_terms.equal_lengths(X, bones.left, bones.right, height), present)
        if "across" in weights:
            terms["across"] = _mean(skeleton_terms.perpendicular(X, bones.lines, bones.trunk), present)
        if "empty" in weights:
            flat = heatmaps.heatmap_cross_entropy(
                out.heatmaps, torch.full_like(out.heatmaps, 1 / out.heatmaps[0, 0].numel())
            )
            terms["empty"] = _mean(flat, 1 - present)
        if self.labelled is not None:
            given = DetectorOutput(*(value[-len(batch["labelled_joints"]) :] for value in both))
            terms["supervised"], weights["supervised"] = supervised_term(given, batch), self.config.supervision.weight
        weights = {term: weight for term, weight in weights.items() if term in terms}
        return {term: terms[term] for term in weights}, weights

    def _applies(self, term: str, stage: StageConfig, within: float) -> bool:
        """Whether a term can be computed and its time has not run out."""
        bones = self.bones
        if not self.config.structure and term not in ("skeleton", "physique", "equivariance", "empty"):
            return False
        if term in ("label", "label_xy", "label_z"):
            return self.config.silhouette.enabled
        if term == "warmup":
            return (
                not self.config.silhouette.enabled and self.skeleton.warmup is not None and within < stage.warmup_steps
            )
        if term == "tied":
            return within < stage.tied_steps and len(bones.arm_pairs) > 0
        if term == "doll":
            return self.config.dolls > 0
        if term in ("views", "views_z"):
            return self.config.multiview.triangulate and len(self.instants) > 0
        needs = {"constant": bones.constant, "symmetry": bones.midpoints, "equal": bones.left, "across": bones.lines}
        return term not in needs or len(needs[term]) > 0

    def _silhouette_loss(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
        return reader_loss(self.silhouette, batch["masks"][:, None].float() / 255, batch["joints"]), reader_weights

    def _view(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch as floats: images (B, 3, S, S), mask and geodesic (B, m, m), present and height (B,)."""
        size = self.config.mask_size
        mask = F.interpolate(batch["masks"][:, None].float() / 255, size=(size, size), mode="area")[:, 0]
        geodesic = F.interpolate(batch["geodesic"][:, None], size=(size, size), mode="bilinear", align_corners=False)
        images = [batch[name] for name in ("images", "doll_images", "labelled_images") if name in batch]
        return {
            "images": torch.cat(images).permute(0, 3, 1, 2).float() / 255,
            "mask": mask,
            "geodesic": geodesic[:, 0],
            "present": 1 - batch["empty"].float(),
            "height": batch["height"],
        }

    def _geodesic(self, weights: Tensor) -> Tensor:
        """G of Eq. 9 with the configured gain; its square is one on average, so that weights keep their sense."""
        G = 1 + self.config.geodesic_gain * (weights - 1)
        return G / (G**2).mean((1, 2), keepdim=True).sqrt()

    def _skeleton_mask(self, x: Tensor, stage: StageConfig, height: Tensor) -> Tensor:
        """M_skel (B, m, m): bones drawn in the stage's form, or dots at the joints (Eq. 3)."""
        size, config = self.config.mask_size, self.config
        x = x.float()
        if not config.structure:
            return bone_maps.union(bone_maps.point_maps(x, config.sigma, size))
        bones = self.bones.to(x.device)
        drawn, radius = bones.drawn(stage.connections, stage.arms)
        if config.bone_width == "sigma":
            points = bones.points(x, height, math.sqrt(config.sigma * math.log(2)))  # there the flanks are at one half
            return bone_maps.union(bone_maps.bone_maps(points, drawn, config.sigma, size))
        points = bones.points(x, height)
        return bone_maps.union(bone_maps.solid_bone_maps(points, drawn, radius * height[:, None], size))

    def _equivariance(self, batch: dict[str, Tensor], X: Tensor) -> Tensor:
        """Mean squared distance between the two views of each frame, taken back to the crop (Eq. 13)."""
        crop = from_view(X, batch["matrix"], batch["flipped"], self.skeleton.flip_index)
        first, second = crop[0::2], crop[1::2]
        same = ((first - second) ** 2).sum(-1).mean(1)
        swapped = ((first - second[:, self.skeleton.flip_index]) ** 2).sum(-1).mean(1)
        both = (1 - batch["empty"].float()).reshape(-1, 2).prod(1)
        return (torch.minimum(same, swapped) * both).sum() / both.sum().clamp_min(1)

    def _pseudo_pair(self, x: Tensor, view: dict[str, Tensor]) -> Tensor:
        """The paper's warm-up: the mask's centroid, and a point at a fixed distance above it (App. A.3)."""
        assert self.skeleton.warmup is not None
        low, high = self.skeleton.warmup
        centres = bone_maps.pixel_centres(view["mask"].shape[-1], x)
        weight = view["mask"][..., None]
        centroid = (weight * centres).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-3)
        offset = torch.zeros_like(centroid)
        offset[:, 1] = -self.bones.warmup_length * view["height"]
        error = ((x[:, low] - centroid) ** 2).sum(-1) + ((x[:, high] - centroid - offset) ** 2).sum(-1)
        return _mean(error[:, None], view["present"])

    # ---------------------------------------------------------------- several views

    def _space(self, batch: dict[str, Tensor], out: DetectorOutput, stage: StageConfig) -> Space | None:
        """What the views of the batch's instants say together, for each of the two pictures of a frame: 2G instants."""
        if "seen" not in batch or not (self.config.multiview.triangulate and stage.triangulate):
            return None
        seen, flip = batch["seen"], self.skeleton.flip_index
        G, V = seen.shape
        rows = slice(0, 2 * G * V)
        crop = from_view(out.keypoints[rows].float(), batch["matrix"][rows], batch["flipped"][rows], flip)
        sure = torch.where(batch["flipped"][rows, None], out.confidence[rows][:, flip], out.confidence[rows])
        xy, sure = _by_picture(crop[..., :2], G, V), _by_picture(sure, G, V)
        seen = seen.repeat(2, 1) & ~_by_picture(batch["empty"][rows], G, V)
        frames = batch["index"][: 2 * G * V : 2].reshape(G, V).repeat(2, 1)
        rays, R, t = (torch.cat([batch[name]] * 2) for name in ("rays", "R", "t"))
        cameras = Cameras(rays, R, t, self.instants.lens_of(frames.cpu().numpy()))
        anatomy = self.anatomy if self.config.multiview.naming == "anatomy" and self.config.structure else None
        root = self.skeleton.root
        return triangulate_views(xy, sure, seen, cameras, root, anatomy, self.config.multiview.reweigh)

    def _reprojected(self, batch: dict[str, Tensor], out: DetectorOutput, space: Space) -> Tensor:
        """The joints that are drawn (2C, K, 3): re-projected ones where there are, else the detector's own."""
        target, agreement = self._in_pictures(batch, space)
        count = len(target)
        own = out.keypoints[:count]
        drawn = torch.where((agreement > 0)[..., None], torch.nan_to_num(target), own)
        return torch.cat([drawn, out.keypoints[count:]])

    def _in_pictures(self, batch: dict[str, Tensor], space: Space) -> tuple[Tensor, Tensor]:
        """Re-projected joints (2GV, K, 3) and agreement (2GV, K) in the order and the coordinates of the pictures."""
        flip = self.skeleton.flip_index
        points, agreement = _by_row(torch.nan_to_num(space.keypoints)), _by_row(space.agreement)
        rows = slice(0, len(points))
        flipped = batch["flipped"][rows]
        agreement = torch.where(flipped[:, None], agreement[:, flip], agreement)
        return to_view(points, batch["matrix"][rows], flipped, flip), agreement

    def _views_terms(self, batch: dict[str, Tensor], out: DetectorOutput, space: Space) -> dict[str, Tensor]:
        """Distance of each view's own joints to what all views say, with one naming of left and right."""
        target, agreement = self._in_pictures(batch, space)
        own = DetectorOutput(*(value[: len(target)] for value in out))
        found = self._distances(own, target.detach(), agreement, "given")
        return {"views": found["label"] + 2 * found["label_xy"], "views_z": found["label_z"]}

    # ---------------------------------------------------------------- pseudo-labels

    def _label_terms(self, batch: dict[str, Tensor], out: DetectorOutput, facing: bool) -> dict[str, Tensor]:
        """Distance to the pseudo-labels; unless their naming is known, by the one that is closer to the prediction."""
        memory, flip = self.labels, self.skeleton.flip_index
        index = batch["index"]
        target = to_view(memory.keypoints[index], batch["matrix"], batch["flipped"], flip)
        weight = memory.confidence[index] ** 2  # doubtful labels are mostly wrong
        weight = torch.where(batch["flipped"][:, None], weight[:, flip], weight)
        weight = weight * (1 - batch["empty"].float())[:, None]
        return self._distances(out, target, weight, "facing" if facing else "closer", memory.named[index])

    def _distances(
        self, out: DetectorOutput, target: Tensor, weight: Tensor, naming: Naming, given: Tensor | None = None
    ) -> dict[str, Tensor]:
        away = self.bones.to(target.device).faces_away(target) if naming == "facing" else None
        return label_distances(out, target, weight, naming, self.skeleton.flip_index, given, away)

    def _label_if_due(self, stage: str) -> None:
        """Make the pseudo-labels at the beginning of the stages that ask for it."""
        memory = self.labels
        due = self.schedule.labels_due(stage)
        if int(memory.made) >= due:
            return
        device, flip = memory.keypoints.device, self.skeleton.flip_index
        if self.readings is None:
            self.readings = self.read_masks(device)
        labels = self.readings
        if due > 1:
            own = predict_labels(self.detector, self.frames.crops, flip, device)
            labels = self._merge(labels, own)
        labels, pinned = self._pin(labels)
        labels = along_clips(labels, self.frames, flip, fixed=pinned)
        if self.config.multiview.labels and len(self.instants):
            labels, named = across_views(labels, self.instants, self.skeleton, self.anatomy)
            memory.named.copy_(torch.from_numpy(named))
        if self.pinned is not None:
            memory.named.logical_or_(torch.from_numpy(self.pinned.named).to(device))
        memory.keypoints.copy_(torch.from_numpy(labels.keypoints))
        memory.confidence.copy_(torch.from_numpy(labels.confidence))
        memory.made.fill_(due)

    def _pin(self, labels: Labels) -> tuple[Labels, np.ndarray | None]:
        """Pseudo-labels with the labels in their places, and (N,) bool which those are; None where there are none."""
        if self.labelled is None or self.pinned is None:
            return labels, None
        fixed = np.zeros(len(self.frames), bool)
        fixed[self.pinned.frame] = True
        return pin(labels, self.labelled, self.pinned, self.skeleton.flip_index), fixed

    def read_masks(self, device: torch.device) -> Labels:
        """What rho reads from the frames' masks."""
        size = self.config.silhouette.size
        masks = resize_images(self.frames.masks, size)
        return predict_labels(self.silhouette, masks, self.skeleton.flip_index, device)

    def _merge(self, masks: Labels, own: Labels) -> Labels:
        """Average what rho and the detector say, by confidence and by how well each covers the frame's mask."""
        size = self.config.mask_size
        fits = torch.stack([mask_fit(labels, self.frames, self.bones, size) for labels in (own, masks)])  # (2, N)
        weights = torch.exp((fits - fits.amax(0)) / FIT)[..., None]
        keypoints, confidence = merge(
            torch.from_numpy(np.stack([own.keypoints, masks.keypoints])),
            torch.from_numpy(np.stack([own.confidence, masks.confidence])),
            self.skeleton.flip_index,
            weights,
        )
        return Labels(keypoints.numpy(), confidence.numpy())

    @torch.no_grad()
    def picture(self, batch: dict[str, Tensor], step: int) -> np.ndarray | None:
        """Columns of crop, mask, skeleton mask, physique mask, prediction; silhouettes in rho's stage."""
        if "joints" in batch:
            masks = batch["masks"][:12]
            out = self.silhouette(masks[:, None].float() / 255)
            return draw_silhouettes(masks, out.keypoints, self.skeleton)
        count = min(12, len(batch["images"]))
        of_views = ("seen", "rays", "R", "t")
        batch = {
            key: value[:count]
            for key, value in batch.items()
            if not key.startswith(("doll", "labelled")) and key not in of_views
        }
        view = self._view(batch)
        out = self.detector(view["images"])
        stage = self.config.stages[self.stage(min(step, self.total_steps - 1))]
        skeleton_mask = self._skeleton_mask(out.keypoints[..., :2], stage, view["height"])
        maps = [view["mask"], skeleton_mask, self.physique(skeleton_mask[:, None])[:, 0]]
        return draw_columns(batch["images"], maps, out.keypoints, self.skeleton)


def _by_picture(values: Tensor, G: int, V: int) -> Tensor:
    """Rows of a batch (2GV, ...), two pictures a frame, as 2G instants of one picture a view: (2G, V, ...)."""
    return values.reshape(G, V, 2, *values.shape[1:]).movedim(2, 0).reshape(2 * G, V, *values.shape[1:])


def _by_row(values: Tensor) -> Tensor:
    """The inverse of `_by_picture`: (2G, V, ...) -> (2GV, ...)."""
    G, V = len(values) // 2, values.shape[1]
    return values.reshape(2, G, V, *values.shape[2:]).movedim(0, 2).reshape(2 * G * V, *values.shape[2:])


def _mean(values: Tensor, present: Tensor) -> Tensor:
    """Mean over the samples in which there is a subject: (B, ...), (B,) -> scalar."""
    return (values.flatten(1).mean(1) * present).sum() / present.sum().clamp_min(1)
