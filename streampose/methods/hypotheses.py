"""Many 3D poses for one set of 2D joints, learnt from 2D joints and 3D poses that have nothing to do with each other.

The page in our symbols. x are normalised 2D joints of which v says what is seen, z ~ N(0, 1) is a code, y a pose in the
template's frame, M a camera (2 x 3), D the critic's features of [pose, KCS], and k the mixed kernel (Eq. 9):

    y = T(G(x, z)),   L_2D = |M y - x|                                      reprojection
    L_adv = MMD^2(D(y real), D(y))                                          Eq. 8; the critic maximises it
    L_gp  = (|grad of the witness| - 1)^2                                   gradient penalty, between real and made
    L_reg = min(|y(x, z1) - y(x, z2)| / |z1 - z2|, tau)                     Eq. 6, maximised
    L_rec = |z - E(G(x, z))|                                                Eq. 7
    L_cam = |2 M M^T / trace(M M^T) - 1|                                    weak perspective
    L_G   = L_adv + l_2D L_2D - l_reg L_reg + l_rec L_rec + l_cam L_cam     Eq. 10

and, of a made pose p and its turned picture x',

    L_con = d(G(x', 0), p) + (d(G(x', z1), p) + d(G(x', z2), p)) / 2        `consistency`
    L_spr = d(G(x', z1), G(x', z2)) / 2                                     `spread`, maximised
    L_f   = |D(y real)|^2                                                   `features`
    L_mov = |G(x, z)_xy - x|                                                `moved`, of seen joints
    L_pro = how far G(x, z)'s bones are too long for its picture            `proportion`

Where we differ:
- The generator speaks in the camera's axes: what is seen stays where it is, depth and hidden joints are added. T turns
  the result as every real pose was turned, by Procrustes on hips and shoulders, and gives it the size of all bones
  together. As printed (a network for the pose in the template's frame, one for the camera, both from x) a thousand
  steps of 128 poses were no better than the mean pose (97 mm PA-MPJPE): the two networks had yet to agree on what x
  says at once. The camera network is kept; it reads the pose, so that poses that lean differently have cameras of their
  own.
- One step trains all networks: the critic sees made poses through a layer that turns the gradient round, so that what
  raises MMD in the critic lowers it in the generator. The paper alternates.
- `consistency` and `spread`: a made pose is turned, projected, and lifted again. Such a pair of joints and pose is a
  fair example wherever the critic finds made poses plausible; no pose of the prior enters. It is seen in perspective,
  of which the weak-perspective camera of L_2D knows nothing. The zero code must find the pose again. Of random codes
  L_con - L_spr is the energy score, which is least when poses are made as often as they are true: they spread as far
  as joints leave depth open, and no further. Both at weight 0 are the paper's recipe. `spread` is a term of diversity
  like L_reg and L_rec; without all three, codes mean next to nothing.
- `features`: MMD does not change when all features of the critic move together, nor do kernels of them in theory. They
  drifted to a squared length of 1e5 within some hundred steps, where single precision loses the differences that make
  MMD, the penalty rose a thousandfold, and poses grew without end in depth, which T hides from the critic. One seed of
  three failed in this way.
- `moved`, `proportion`: T hides from the critic how large poses are, so that nothing but these holds them. Bones are
  kept, together, within the lengths that random views of the prior show over the joints' deviation in the picture (all
  but the oddest 2 %), and what is seen near where it is seen.
- The critic pulls no pose harder than `strongest`: what it says of poses unlike all it has seen is not to be trusted.
- E reads poses along the camera's axes: what joints leave open is depth.
- Procrustes' own scale grows as a trunk bends; a critic that sees bones of changing length learns less of them.
- Joints are centred at the mean of those seen, not at the root, which may be missing; and v is an input, so that one
  network serves full and partial poses. In training some joints are hidden at random, any of them.
- Real poses are also mirrored, left and right exchanged. Weights are ours where units differ; see the presets.

Source: Li & Lee, Weakly supervised generative network for multiple 3D human pose hypotheses, BMVC 2020; the turned pose
follows Chen et al., Unsupervised 3D pose estimation with geometric self-supervision, CVPR 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from streampose.config import Strict, load_preset
from streampose.errors import ConfigError
from streampose.geometry.template import rest_pose, template_joints
from streampose.losses import hypotheses as losses
from streampose.methods.hypotheses_data import Examples, draw_lifted, find_examples, hide_joints, random_turns
from streampose.models.lifter import PRESETS, CameraNetwork, CodeEncoder, PoseCritic, build_lifter, normalise
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton

TERMS = (
    "critic", "penalty", "features", "reprojection", "diversity", "codes", "camera", "consistency", "spread", "moved",
    "proportion",
)  # fmt: skip


class HypothesesConfig(Strict):
    """Settings of the method; presets are in configs/methods/hypotheses.yaml.

    Attributes:
        detector: size of the networks, `models.lifter.PRESETS`.
        prior: name of the 3D poses: of a prior in the store, `built-in` for procedural people, `auto` for the only one
            in the store, else the built-in one.
        poses: how many of the prior's poses to use; None for all.
        views: how many random cameras each pose of the prior is seen by, for 2D joints.
        detections: share of a batch's 2D joints that a 2D model finds in the store's clips.
        detector_bundle: that model; None for the current one, else the one that is shipped.
        batch_size: sets of 2D joints a step; each is lifted with two codes.
        hidden: share of the sets of which joints are hidden; most_hidden: at most so many of one set.
        elevation_degrees, roll_degrees: of the random cameras (standard deviations); distance: how far they are from
            the subject, in its extents.
        noise: how far 2D joints are off, as a share of the subject's extent (standard deviation). A lifter that is told
            nothing of the errors of the 2D model before it states regions that are too small.
        adversarial: how much the generator listens to the critic.
        strongest: pull of the critic on a pose, at most, as the norm of the gradient of its share of MMD.
        tau: the ceiling of Eq. 6.
        weights: of the terms; `diversity` is subtracted.
    """

    detector: Literal["tiny", "small", "base"] = "tiny"
    input_size: int = 0  # of crops: there are none
    prior: str = "auto"
    poses: int | None = Field(default=None, ge=10)
    views: int = Field(default=4, ge=1)
    detections: float = Field(default=0.0, ge=0, le=1)
    detector_bundle: str | None = None
    batch_size: int = Field(default=64, ge=4)
    steps: int = Field(default=6000, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    critic_rate: float = Field(default=5e-4, gt=0)
    beta1: float = Field(default=0.5, ge=0, lt=1)
    hidden: float = Field(default=0.5, ge=0, le=1)
    most_hidden: int = Field(default=3, ge=0)
    elevation_degrees: float = Field(default=10.0, ge=0)
    roll_degrees: float = Field(default=3.0, ge=0)
    distance: tuple[float, float] = (2.5, 8.0)
    noise: float = Field(default=0.02, ge=0)
    adversarial: float = Field(default=1.0, ge=0)
    strongest: float = Field(default=3.0, gt=0)
    tau: float = Field(default=2.0, gt=0)
    seed: int = 0
    weights: dict[str, float]


def load_hypotheses_config(
    preset: str = "tiny", path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()
) -> HypothesesConfig:
    """Read a preset, then a file of changes to it, then `key=value` changes.

    Raises:
        ConfigError: no such preset, an unknown key or loss term, or a wrong value.
    """
    config = load_preset(HypothesesConfig, "hypotheses", preset, path, overrides)
    if unknown := sorted(config.weights.keys() - set(TERMS)):
        raise ConfigError(f"weights: unknown {', '.join(unknown)} (known: {', '.join(TERMS)})")
    return config


def make_hypotheses_task(
    reader: StoreReader, skeleton: Skeleton, config: HypothesesConfig, device: torch.device | str
) -> HypothesesTask:
    """Read the 3D poses and the 2D joints, and set up the training that `training.engine.train` runs.

    Raises:
        ConfigError, StoreError: the prior. TrainingError: too few poses of all joints.
    """
    return HypothesesTask(find_examples(reader, skeleton, config), skeleton, config)


class HypothesesTask:
    """What the engine trains; see `training.engine.Task`. The network `detector` is the lifter."""

    def __init__(self, examples: Examples, skeleton: Skeleton, config: HypothesesConfig):
        self.examples, self.skeleton, self.config = examples, skeleton, config
        K, (width, code_size) = skeleton.num_joints, PRESETS[config.detector]
        self.lifter = build_lifter(config.detector, skeleton)
        self.lifter.metres.fill_(examples.metres)
        self.bones, N = self.lifter.bones, len(skeleton.bones)
        self.critic, self.encoder = PoseCritic(K, N * (N + 1) // 2, width), CodeEncoder(K, width // 2, code_size)
        self.camera = CameraNetwork(K, width // 2)
        self.networks = nn.ModuleDict(
            {"detector": self.lifter, "camera": self.camera, "critic": self.critic, "encoder": self.encoder}
        )
        self.trunk = template_joints(skeleton)
        self.template = torch.from_numpy(rest_pose(skeleton)[self.trunk]).float()
        self.total_steps = config.steps
        self.weights = {name: config.weights.get(name, 0.0) for name in TERMS if config.weights.get(name, 0.0)}
        self.weights.setdefault("critic", 1.0)

    def plan(self, steps_per_second: float, max_minutes: float) -> None:
        """Stretch or shrink the schedule to a time."""
        self.total_steps = max(1, round(60 * max_minutes * steps_per_second * 0.97))

    def stage(self, step: int) -> str:
        """One stage only."""
        return "lift"

    def optimiser_settings(self, step: int) -> dict[str, float]:
        """A short rise and a cosine fall."""
        rise = min(1.0, (step + 1) / max(1, min(100, self.total_steps // 5)))
        fall = 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * step / max(1, self.total_steps)))
        rate = float(rise * fall)
        rates: dict[str, Any] = {"lr": self.config.learning_rate * rate, "critic.lr": self.config.critic_rate * rate}
        return rates | {"betas": (self.config.beta1, 0.999)}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """2D joints, some of them hidden, two codes for each, poses of the prior and turns for made ones."""
        config, rng = self.config, np.random.default_rng((self.config.seed, step, rank))
        B, Z = config.batch_size, self.lifter.code_size
        joints, visibility = self.examples.draw_joints(B, rng, config.noise)
        jitter = config.noise * rng.standard_normal(joints.shape)
        visibility = hide_joints(visibility, config.hidden, config.most_hidden, rng)
        values = {
            "joints": joints, "visibility": visibility, "codes": rng.standard_normal((2 * B, Z)),
            "real": self.examples.draw_poses(2 * B, rng), "between": rng.random((B, 1, 1)),
            "turns": random_turns(B, self.skeleton, rng), "away": rng.uniform(*config.distance, (B, 1, 1)),
            "again": hide_joints(np.ones((B, len(joints[0]))), config.hidden, config.most_hidden, rng),
            "jitter": jitter, "codes again": rng.standard_normal((2 * (B // 2), Z)),
        }  # fmt: skip
        return {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in values.items()}

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The page above, executed; in f32 always, because a discrepancy is a small difference of large sums."""
        with torch.autocast(batch["joints"].device.type, enabled=False):
            return self._loss(batch)

    def _loss(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
        weights, config = self.weights, self.config
        joints, _, _ = normalise(batch["joints"], batch["visibility"])
        two, seen, codes = torch.cat([joints] * 2), torch.cat([batch["visibility"]] * 2), batch["codes"]
        lifted = self.lifter(two, seen, codes)
        poses = self.to_template(lifted)
        camera = self.camera(lifted)
        first, second = poses.chunk(2)
        real, B = batch["real"], len(joints)

        features, made = (
            self.features(real),
            self.features(TurnRound.apply(poses, config.adversarial, config.strongest)),
        )
        terms: dict[str, Tensor] = {
            "critic": -losses.mmd(features, made),
            "reprojection": losses.reprojection(poses, camera, two, seen).sum() / (2 * seen.sum()),
            "camera": losses.weak_perspective(camera).mean(),
        }
        if "features" in weights:
            terms["features"] = losses.feature_size(features)
        if "penalty" in weights:
            between = torch.lerp(real[:B], first.detach(), batch["between"]).requires_grad_()
            witness = losses.witness(self.features(between), features.detach(), made.detach())
            terms["penalty"] = losses.gradient_penalty(witness, between).mean()
        if "moved" in weights:
            terms["moved"] = losses.displacement(lifted, two, seen).mean()
        if "proportion" in weights:
            size = self.lifter.size(lifted)
            terms["proportion"] = losses.out_of_proportion(lifted, size, *self.examples.proportion).mean()
        if "diversity" in weights:
            terms["diversity"] = -losses.diversity(first, second, codes[:B], codes[B:], config.tau).mean()
        if "codes" in weights:
            terms["codes"] = losses.code_distance(codes, self.encoder(centred(lifted))).mean()
        if "consistency" in weights:
            terms["consistency"], terms["spread"] = self.consistency(lifted[:B].detach(), batch)
        kept = {name: weight for name, weight in weights.items() if name in terms}
        return {name: terms[name] for name in kept}, kept

    def features(self, poses: Tensor) -> Tensor:
        """The critic's features of [pose, KCS]."""
        return self.critic(poses, losses.bone_products(poses, self.bones.to(poses.device)))

    def to_template(self, lifted: Tensor) -> Tensor:
        """Poses (B, K, 3) as the real ones are: turned so that the trunk lies as the template's, of the same size.

        The rotation is that of Procrustes; no gradient flows through it.
        """
        poses = lifted - lifted[:, [self.skeleton.root]]
        poses = poses * (self.examples.size / self.lifter.size(poses))[:, None, None]
        with torch.no_grad():
            rotation = rotation_to(poses[:, self.trunk], self.template.to(poses.device))
        return poses @ rotation.transpose(1, 2)

    def consistency(self, lifted: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """A made pose, seen from elsewhere and lifted again, comes out as it was: of the zero code as near as can be,
        of random codes as often. Returns how far they are from it, and (less than zero) from each other.
        """
        turned, again, half = lifted @ batch["turns"].transpose(1, 2), batch["again"], len(lifted) // 2
        turned = turned - (turned.amax(1, keepdim=True) + turned.amin(1, keepdim=True)) / 2
        away = batch["away"] * 2 * turned.abs().amax((1, 2))[:, None, None]
        extent = 2 * turned[..., :2].abs().amax((1, 2))[:, None, None]
        flat = turned[..., :2] / (1 + turned[..., 2:] / away) + extent * batch["jitter"]
        joints, _, deviation = normalise(flat, again)
        expected = centred(turned) / deviation[:, None, None]
        two, codes = batch["codes again"], torch.zeros_like(batch["codes"][: len(lifted)])
        found = self.lifter(
            torch.cat([joints, joints[:half], joints[:half]]),
            torch.cat([again, again[:half], again[:half]]),
            torch.cat([codes, two]),
        )
        likely, one, other = centred(found).split([len(lifted), half, half])
        apart = (losses.pose_distance(one, expected[:half]) + losses.pose_distance(other, expected[:half])) / 2
        return losses.pose_distance(likely, expected).mean() + apart.mean(), -losses.pose_distance(
            one, other
        ).mean() / 2

    @torch.no_grad()
    def picture(self, batch: dict[str, Tensor], step: int) -> np.ndarray | None:
        """The 2D joints, and what is made of them, from the front and from the side."""
        joints, _, _ = normalise(batch["joints"][:6], batch["visibility"][:6])
        lifted = self.lifter(joints, batch["visibility"][:6], torch.zeros_like(batch["codes"][:6]))
        return draw_lifted(joints.cpu().numpy(), lifted.float().cpu().numpy(), self.skeleton)


def centred(poses: Tensor) -> Tensor:
    """Poses (B, K, 3) about the mean of their joints."""
    return poses - poses.mean(1, keepdim=True)


def rotation_to(points: Tensor, target: Tensor) -> Tensor:
    """The proper rotations R that bring points @ R.T closest to a target, both about their means.

    Args:
        points: (B, T, 3); target: (T, 3).

    Returns:
        (B, 3, 3); the identity where points have no extent.
    """
    p, q = points.float() - points.float().mean(1, keepdim=True), target - target.mean(0)
    U, _, Vt = torch.linalg.svd(q.T @ p)
    sign = torch.ones_like(U[:, 0])
    sign[:, 2] = torch.sign(torch.linalg.det(U @ Vt))
    return (U * sign[:, None]) @ Vt


class TurnRound(torch.autograd.Function):
    """The identity on poses (B, K, 3), whose gradient is turned round and weighed (Ganin & Lempitsky, ICML 2015).

    No pose's share of it, times B, is longer than `most`.
    """

    @staticmethod
    def forward(context, poses: Tensor, weight: float, most: float) -> Tensor:
        context.weight, context.most = weight, most
        return poses.view_as(poses)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None, None]:
        length = len(gradient) * gradient.flatten(1).norm(dim=1)
        held = (context.most / length.clamp_min(1e-12)).clamp_max(1.0)
        return -context.weight * held[:, None, None] * gradient, None, None
