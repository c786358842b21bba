"""MirrorNet: a few labelled frames and many without labels train a pose recogniser by two autoencoders.

Names: x a crop, s its heatmaps (a Gaussian of height one a joint), a, g, z the latent appearance of the subject, scene
around it and primitive of the pose, w its mask. Networks: alpha x -> s (exported), beta and gamma (s, x) -> a, g, theta
(s, a, g) -> x, delta s -> z, phi z -> s, psi (x, s) -> w. N(.; m, v) is a Gaussian, KL against N(0, I).

Without labels (Eq. 15), one sample s = mu_alpha(x) + 0.1 e, a, g, z of each posterior (Eq. 16 to 23):
    L^X = log p_theta(x|s,a,g) + log p_phi(s|z) - log q_alpha(s|x) - KL(q_beta) - KL(q_gamma) - KL(q_delta)
With labels (Eq. 26, 27), the same with the given s:
    L^XS = log p_theta(x|s,a,g) + log p_phi(s|z) - KL(q_beta) - KL(q_gamma) - KL(q_delta) + lambda log q_alpha(s|x)
Both (Eq. 29): L = sum over all frames of L^X + eta times the sum over labelled frames of L^XS.
Each part alone: alpha by log q_alpha(s|x) (Eq. 30); beta, gamma, theta by log p_theta - KL(q_beta) - KL(q_gamma)
(Eq. 31); delta, phi by log p_phi - KL(q_delta) (Eq. 34); psi by its squared distance to the mask. beta sees x w, gamma
x (1 - w) (Eq. 32, 33), where w = sigmoid(10 psi(x, s)).

What Eq. A.1 and A.2, damaged in print, must say follows from Eq. 15 and 26 with three identities for Gaussians with
diagonal covariance: log N(x; m, v) = -1/2 sum_d (log 2 pi v_d + (x_d - m_d)^2 / v_d); -E_q log q = 1/2 sum_d
(log 2 pi v_d + 1) for q = N(m, v); KL(N(m, v) || N(0, I)) = 1/2 sum_d (m_d^2 + v_d - log v_d - 1). With the fixed
variances of Sec. 4 (alpha 0.01, theta 1, phi 1), hence a constant entropy of alpha, and up to constants,
    A.1: -L^X  = 1/2 |x - mu_theta|^2 + 1/2 |s - mu_phi(z)|^2 + KL_a + KL_g + KL_z
    A.2: -L^XS = the same with the given s + lambda / (2 * 0.01) |s - mu_alpha(x)|^2, where lambda / 0.01 = 1.
Terms are logged in nats a frame; those with `own` belong to L^X, the others to L^XS.

The curriculum (Sec. 5.2) is the list `stages` of the configuration: parts by themselves, all on the labelled frames,
all on labelled and unlabelled ones. Supervised MirrorNet is Eq. 29 on the labelled frames alone: Eq. 27 by itself says
nothing to alpha but what Eq. 30 says.

Where we differ: psi learns the store's masks on labelled frames, instead of those of another data set. x is measured in
standard deviations of ImageNet's pixels, which the paper leaves open. Rates do not fall in the paper either; what is
exported is the engine's running average of alpha, where the paper averages measurements over ten epochs. Joints that
are not labelled, or out of the picture, do not count in log q_alpha and log p_phi and are empty heatmaps elsewhere.
delta and phi may learn unpaired poses too (`prior`), as Sec. 1 proposes.

L^X as printed runs into a wrong optimum on 64-pixel crops (16 cells, 5 % labels). Seen on people held out, one seed:
1. The divergences leave a and g unused (0.01 nats), however low their weight: most likely Adam widens q_beta and
   q_gamma before theta has learnt to read them. theta then tells training pictures apart by their poses: 53 nats from
   them, 260 from those of others (the mean picture: 197), and the gradient of log p_theta to the joints points nowhere:
   its cosine with the way to the true joints is 0.0; in alpha's weights it is 150 times as long as that of log p_phi.
   So a and g have `free_nats` (83 nats from others after 600 steps, 11 more with another frame's pose), and
   `divergence` is low.
2. Even that theta does not say where a joint should go (cosine 0.0, 52 % of the far joints the right way); log p_phi
   does a little (0.16, 60 %; in alpha's weights 0.43). `own_fidelity` = 1 cost 4 points of PCK@0.2, so it is 0.
3. alpha and theta may agree on heatmaps that are a code of the picture: L^X teaches alpha alone (`own_teaches`), by
   heatmaps drawn anew as one Gaussian a joint (`own_heatmaps`), so that only moving a joint makes it plausible.
4. alpha learns the few labelled people by heart (after 700 steps 97 % of the labelled joints, of six people held out
   44 %, less than after 350). What theta can do is recombine: in Eq. 1 pose, appearance and scene are independent. So
   labelled frames are `dressed`: theta paints the heatmaps with the frame's own a and g and with those of two other
   frames, and the difference of both, enlarged, is added to the frame; log q_alpha is then of the dressed frame.
5. What the image says to alpha in frames without labels is their mask: psi, half of whose training sees the heatmaps
   alone, makes a mask of alpha's heatmaps that is compared with the store's (`outline`).
6. log p_phi of alpha's heatmaps does harm in labelled frames, whose joints are mostly right already: after supervised
   training recognisers without it found more, in each of six seeds. `own_labelled` = 0 leaves L^X of those frames out.
What is printed is `divergence={image: 1, pose: 1, free_nats: 0} own_fidelity=1 own_teaches=all own_heatmaps=sampled
dressed=0 outline=0`. Teach the generators long: phi puts 50 % of the joints of unseen true poses in their places
after 250 steps, 83 % after 750, 93 % after 2,500.

Source: Nakatsuka, Yoshii, Koyama, Fukayama, Goto, Morishima, MirrorNet: A Deep Reflective Approach to 2D Pose
Estimation for Single-Person Images, Journal of Information Processing 29, 2021.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampose.console import logger
from streampose.losses.gaussian import gaussian_distance, gaussian_peaks, kl_to_standard, sample
from streampose.methods.landmarks_prior import find_prior
from streampose.methods.mask_pictures import draw_columns
from streampose.methods.mirrornet_config import MirrorConfig, MirrorStage, load_mirror_config
from streampose.methods.mirrornet_data import Pictures, draw_rows, random_views, read_pictures, unpaired_views
from streampose.methods.mirrornet_imagenet import load_imagenet
from streampose.models.detector import build_detector, cell_centres
from streampose.models.heatmap_detector import STRIDE, HeatmapDetector, peaks
from streampose.models.mirrornet import WIDTHS, build_mirror
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton

__all__ = ["MirrorConfig", "MirrorTask", "load_mirror_config", "make_mirror_task"]

GAIN = 10.0  # of the sigmoid that sharpens psi's answer
SHARPNESS = 0.05  # height that makes a cell of a heatmap e times as likely, where heatmaps are drawn anew
SHOWN = 8  # frames in a picture
DIVERGENCES = {"appearance": "image", "scene": "image", "primitive": "pose"}
# What a frame costs in each part: operations of Table 9; of the small networks milliseconds of one core, 32 frames.
RECOGNISER_COST = {
    "hourglass": 26.2, "simple": 12.0, "hrnet": 9.5,
    "hourglass-small": 125.0, "simple-small": 35.0, "hrnet-small": 65.0,
}  # fmt: skip
PART_COST = {"full": {"image": 5.5, "pose": 2.3, "mask": 1.4}, "small": {"image": 60.0, "pose": 45.0, "mask": 18.0}}


def make_mirror_task(
    reader: StoreReader, skeleton: Skeleton, config: MirrorConfig, device: torch.device | str
) -> MirrorTask:
    """Read a store's clips and labels, and set up the training that `training.engine.train` runs.

    Raises:
        TrainingError: the store has no labels of the skeleton's joints.
        StoreError: no set of labels, or no prior, of that name.
        ConfigError: the ImageNet weights do not fit; the prior is none of this skeleton.
    """
    names = config.supervision.labels or None
    pictures = read_pictures(reader, skeleton, names, config.input_size, config.cache_megabytes)
    poses = None if config.prior == "none" else find_prior(reader, skeleton, config.prior, config.seed).poses
    task = MirrorTask(pictures.keep_share(config.supervision.share, config.seed), skeleton, config, poses)
    if config.imagenet is not None:
        load_imagenet(task.detector, config.imagenet)
    return task


class MirrorTask:
    """What the engine trains; see `training.engine.Task`.

    Args:
        poses: (N, K, 2 or 3) that belong to no picture, for the pose autoencoder; None for none.
    """

    def __init__(self, pictures: Pictures, skeleton: Skeleton, config: MirrorConfig, poses: np.ndarray | None = None):
        self.pictures, self.skeleton, self.config, self.poses = pictures, skeleton, config, poses
        K = skeleton.num_joints
        detector = build_detector(config.detector, K, config.input_size)
        assert isinstance(detector, HeatmapDetector)
        self.detector = detector
        self.size = "small" if config.detector.endswith("-small") else "full"
        self.mirror = build_mirror(WIDTHS[self.size], K)
        self.networks = nn.ModuleDict({"detector": self.detector, **dict(self.mirror.items())})
        self.cells = config.input_size // STRIDE
        self.annotated = pictures.annotated
        self.unannotated = np.setdiff1d(np.arange(len(pictures)), self.annotated)
        needs = [name for name, stage in config.stages.items() if stage.steps and stage.unannotated]
        if needs and not len(self.unannotated):
            logger.warning("every frame is labelled: %s trains on labelled frames alone", ", ".join(needs))
        self._lay_out(1.0, 1.0)

    # ------------------------------------------------------------------------------------------------------ schedule

    def _lay_out(self, before: float, factor: float) -> None:
        """Stages of their configured lengths times a factor, that of the stages without the recogniser or the other."""
        self.lengths = {
            name: max(1, round(stage.steps * (factor if _trains_recogniser(stage) else before)))
            for name, stage in self.config.stages.items()
            if stage.steps
        }
        self.total_steps = sum(self.lengths.values())

    def plan(self, steps_per_second: float, max_minutes: float) -> None:
        """Stretch or shrink the stages to a time; the rate is that of the first stage.

        Of little time the stages before the recogniser's get less than their share: without them there is a model.
        """
        stages = {name: self.config.stages[name] for name in self.lengths}
        one = {"recogniser": RECOGNISER_COST[self.config.detector], **PART_COST[self.size]}
        one["mirror"] = one["recogniser"] + 2 * (one["image"] + one["pose"])
        cost = {name: sum(one[part] for part in stage.trains) for name, stage in stages.items()}
        whole = sum(cost[name] * stage.steps for name, stage in stages.items())
        time = 0.93 * 60 * max_minutes * steps_per_second * cost[next(iter(cost))]
        first = sum(cost[name] * stage.steps for name, stage in stages.items() if not _trains_recogniser(stage))
        factor = time / whole
        before = factor * min(1.0, factor)
        self._lay_out(before, (time - before * first) / (whole - first))

    def stage(self, step: int) -> str:
        """Name of the stage that a step belongs to."""
        for name, length in self.lengths.items():
            if step < length:
                return name
            step -= length
        return next(reversed(self.lengths))

    def optimiser_settings(self, step: int) -> dict[str, float]:
        """A constant rate after a short rise."""
        rise = min(1.0, (step + 1) / max(1, min(50, self.total_steps // 5)))
        return {"lr": self.config.learning_rate * rise, "weight_decay": self.config.weight_decay}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Augmented views: of labelled frames first, then of frames without labels as the stage says."""
        config, stage = self.config, self._settings(step)
        other = round(stage.unannotated * config.batch_size) if len(self.unannotated) else 0
        seed = (config.seed, rank)
        index = draw_rows(self.annotated, step, config.batch_size - other, (*seed, 0))
        if other:
            index = np.concatenate([index, draw_rows(self.unannotated, step, other, (*seed, 1))])
        rng = np.random.default_rng((config.seed, step, rank))
        views = random_views(self.pictures, index, rng, config.augmentation, self.skeleton.flip_index, self.cells)
        if self.poses is not None and config.pose_vae and {"pose", "mirror"} & set(stage.trains):
            views |= unpaired_views(self.poses, config.batch_size, rng, config.augmentation)
        views["annotated"] = np.arange(len(index)) < config.batch_size - other
        return {name: torch.from_numpy(value) for name, value in views.items()}

    def _settings(self, step: int) -> MirrorStage:
        return self.config.stages[self.stage(step)]

    # ---------------------------------------------------------------------------------------------------------- loss

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What the stage minimises: the negative lower bound of each part, or of all as one."""
        images = batch["images"].permute(0, 3, 1, 2).float() / 255
        given = gaussian_peaks(batch["joints"], self.cells, self.config.sigma_cells) * batch["known"][..., None, None]
        trains = self._settings(step).trains
        if trains == ("mirror",):
            return self.weigh(self.mirror_terms(images, given, batch))
        self.mirror.requires_grad_(True)
        terms: dict[str, Tensor] = {}
        small = self.shrink(images)
        if "recogniser" in trains:
            seen = self.dress(images, small, given, batch["annotated"])
            terms |= self.recogniser_terms(self.detector.heatmaps(seen), given, batch["known"])
        if "image" in trains:
            terms |= self.image_terms(small, given, self.split(small, given, detach=True))
        if "pose" in trains:
            terms |= self.pose_terms(given, batch["known"]) | self.unpaired_terms(batch)
        if "mask" in trains:
            seen = small * (torch.arange(len(small), device=small.device) % 2)[:, None, None, None]  # half blindly
            terms["mask"] = self.outline_terms(seen, given, batch["masks"])
        return self.weigh({name: term.mean() for name, term in terms.items()})

    def weigh(self, terms: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Terms and their weights: those of Eq. 27 and 29, over the number of cells."""
        cells, supervision = self.cells**2, self.config.supervision
        weights = {name: (1.0 if "_" in name else supervision.frames) / cells for name in terms}
        for name in weights:
            if (part := DIVERGENCES.get(name.rpartition("_")[2])) is not None:
                weights[name] *= getattr(self.config.divergence, part)
        if "recogniser" in terms:
            weights["recogniser"] *= supervision.weight
        if "own_outline" in terms:
            weights["own_outline"] *= self.config.outline
        if "own_fidelity" in terms:
            weights["own_fidelity"] *= self.config.own_fidelity
        return terms, weights

    def mirror_terms(self, images: Tensor, given: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 29: L^X of all frames and L^XS of the labelled ones, both over the number of all frames."""
        B, labelled, known = len(images), batch["annotated"], batch["known"]
        small = self.shrink(images)
        maps = self.detector.heatmaps(self.dress(images, small, given, labelled))
        own = self.own_heatmaps(maps[-1])
        self._let_learn(self.config.own_teaches == "all")
        faithful = self.config.own_fidelity > 0
        counts = torch.where(labelled, self.config.own_labelled, 1.0)
        terms = {
            f"own_{name}": term * counts for name, term in self._lower_bound(small, own, faithful=faithful).items()
        }
        if self.config.outline and self.config.mask_estimator and not labelled.all():
            found = batch["masks"] * ~labelled[:, None, None]
            outline = self.outline_terms(torch.zeros_like(small), own, found)
            terms["own_outline"] = outline * found.flatten(1).any(1)
        self._let_learn(True)
        terms |= self._lower_bound(small[labelled], given[labelled], known[labelled])
        terms |= self.recogniser_terms([m[labelled] for m in maps], given[labelled], known[labelled])
        return {name: values.sum() / B for name, values in (terms | self.unpaired_terms(batch)).items()}

    @torch.no_grad()
    def dress(self, images: Tensor, small: Tensor, given: Tensor, labelled: Tensor) -> Tensor:
        """A part of the labelled frames in the appearance and the scene of any others, as alpha shall see them.

        Theta paints a frame's heatmaps with its own features and with those of two other frames of the batch; the
        difference of the two paintings is added to the frame, whose joints stay where they are.

        Args:
            images: (B, 3, S, S) in [0, 1].
            small: (B, 3, h, h), as `shrink` gives.
            given: (B, K, h, h) heatmaps of the labels.
            labelled: (B,) bool.

        Returns:
            (B, 3, S, S) in [0, 1].
        """
        B, device = len(images), images.device
        chosen = labelled & (torch.rand(B, device=device) < self.config.dressed)
        if not chosen.any():
            return images
        front, back = self.split(small, given)
        a, g = self.mirror["appearance"](front)[0], self.mirror["scene"](back)[0]
        other = torch.cat([a[torch.randperm(B, device=device)], g[torch.randperm(B, device=device)]], 1)
        features = torch.cat([torch.cat([a, g], 1)[chosen], other[chosen]])
        as_is, changed = self.mirror["image"](given[chosen].repeat(2, 1, 1, 1), features).chunk(2)
        difference = F.interpolate((changed - as_is) * self.detector.std, images.shape[-2:], mode="bilinear")
        dressed = images.clone()
        dressed[chosen] = (images[chosen] + difference).clamp(0, 1)
        return dressed

    def outline_terms(self, x: Tensor, s: Tensor, masks: Tensor) -> Tensor:
        """Squared distance of psi's answer to masks (B, h, h) in 0..255: (B,)."""
        answer = self.mirror["mask"](torch.cat([x, s], 1)).sigmoid()
        return ((answer - masks[:, None].float() / 255) ** 2).flatten(1).sum(1)

    def own_heatmaps(self, maps: Tensor) -> Tensor:
        """s of L^X: a sample about alpha's heatmaps (Eq. 20), or heatmaps drawn anew where they are highest."""
        if self.config.own_heatmaps == "sampled":
            return maps + torch.randn_like(maps) * self.config.variance.recogniser**0.5
        likely = torch.softmax(maps.flatten(2) / SHARPNESS, -1).reshape(maps.shape)  # (B, K, h, h)
        centres = cell_centres(self.cells).to(maps.device)
        xy = torch.stack([(likely.sum(2) * centres).sum(-1), (likely.sum(3) * centres).sum(-1)], -1)
        return gaussian_peaks(xy, self.cells, self.config.sigma_cells)

    def _lower_bound(
        self, x: Tensor, s: Tensor, known: Tensor | None = None, *, faithful: bool = True
    ) -> dict[str, Tensor]:
        """The terms that Eq. 15 and 26 have in common; those of the image where it shall be `faithful`."""
        terms = self.image_terms(x, s, self.split(x, s)) if faithful else {}
        return terms | self.pose_terms(s, known) if self.config.pose_vae else terms

    def _let_learn(self, learn: bool) -> None:
        """Whether what is computed next teaches the generators; nothing but its masks teaches psi."""
        for name, network in self.mirror.items():
            network.requires_grad_(learn and name != "mask")

    def recogniser_terms(self, maps: list[Tensor], given: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Eq. 28, 30; the heatmaps of every stack count."""
        variance, weight = self.config.variance.recogniser, known[..., None, None]
        distances = [gaussian_distance(given, heatmaps, variance, weight) for heatmaps in maps]
        return {"recogniser": torch.stack(distances).sum(0)}

    def image_terms(self, x: Tensor, s: Tensor, parts: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Eq. 31: how far the image made from heatmaps and features is from the image, and what the features cost."""
        a, g = self.mirror["appearance"](parts[0]), self.mirror["scene"](parts[1])
        made = self.mirror["image"](s, torch.cat([sample(*a), sample(*g)], 1))
        return {
            "fidelity": gaussian_distance(x, made, self.config.variance.image),
            "appearance": kl_to_standard(*a).clamp_min(self.config.divergence.free_nats),
            "scene": kl_to_standard(*g).clamp_min(self.config.divergence.free_nats),
        }

    def pose_terms(self, s: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
        """Eq. 34: how far heatmaps are from those made from their primitive, and what the primitive costs."""
        z = self.mirror["primitive"](s)
        made = self.mirror["pose"](sample(*z))
        weight = None if known is None else known[..., None, None]
        return {
            "plausibility": gaussian_distance(s, made, self.config.variance.pose, weight),
            "primitive": kl_to_standard(*z),
        }

    def unpaired_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 34 of poses that belong to no picture, where there are any."""
        if "unpaired" not in batch:
            return {}
        known = batch["unpaired_known"]
        maps = gaussian_peaks(batch["unpaired"], self.cells, self.config.sigma_cells) * known[..., None, None]
        return {f"unpaired_{name}": values for name, values in self.pose_terms(maps, known).items()}

    def shrink(self, images: Tensor) -> Tensor:
        """x in standard deviations of ImageNet's pixels, as large as the heatmaps."""
        return F.adaptive_avg_pool2d((images - self.detector.mean) / self.detector.std, self.cells)

    def split(self, x: Tensor, s: Tensor, *, detach: bool = False) -> tuple[Tensor, Tensor]:
        """Foreground and background of images (Eq. 32, 33); both the whole image without the mask estimator."""
        if not self.config.mask_estimator:
            return x, x
        w = self.mask(x, s)
        w = w.detach() if detach else w
        return x * w, x * (1 - w)

    def mask(self, x: Tensor, s: Tensor) -> Tensor:
        """(B, 1, h, h) in [0, 1]: psi's answer, sharpened."""
        return torch.sigmoid(GAIN * self.mirror["mask"](torch.cat([x, s], 1)))

    # ------------------------------------------------------------------------------------------------------- picture

    def picture(self, batch: dict[str, Tensor], step: int) -> np.ndarray | None:
        """A column a frame: crop, mask, image made from the recognised pose, heatmaps, those of the pose autoencoder,
        the recognised joints on the crop."""
        pixels = batch["images"][-SHOWN:]
        images = pixels.permute(0, 3, 1, 2).float() / 255
        x, s = self.shrink(images), self.detector.heatmaps(images)[-1]
        front, back = self.split(x, s)
        a, g = self.mirror["appearance"](front)[0], self.mirror["scene"](back)[0]
        made = self.mirror["image"](s, torch.cat([a, g], 1)) * self.detector.std + self.detector.mean
        again = self.mirror["pose"](self.mirror["primitive"](s)[0])
        maps = [self.mask(x, s)[:, 0], made.mean(1), s.amax(1), again.amax(1)]
        return draw_columns(pixels, [m.clamp(0, 1) for m in maps], peaks(s)[0], self.skeleton)


def _trains_recogniser(stage: MirrorStage) -> bool:
    return bool({"recogniser", "mirror"} & set(stage.trains))
