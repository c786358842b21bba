"""What `methods/hypotheses.py` learns from: 3D poses of a prior, and 2D joints that belong to none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError, TrainingError
from streampose.geometry.project_prior import project_randomly, random_views
from streampose.geometry.template import align_to_template, bone_lengths
from streampose.store.priors import Prior, list_priors, read_prior
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.synthetic.built_in_prior import NAME as BUILT_IN
from streampose.synthetic.built_in_prior import built_in_prior

BUILT_IN_POSES = 16384
HELD_OUT = 0.15  # of the prior's poses, by groups: what a lifter is measured on
FEWEST_POSES, FEWEST_SEEN = 32, 5
CONFIDENT = 0.3  # detections below it count as missing
TILE = 96


class Settings(Protocol):
    """The part of `HypothesesConfig` that is about data."""

    prior: str
    poses: int | None
    views: int
    detections: float
    detector_bundle: str | None
    elevation_degrees: float
    roll_degrees: float
    distance: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Examples:
    """What is trained on, in memory.

    Attributes:
        poses: (N, K, 3) in the template's frame and the network's unit, mirrored ones among them.
        size, metres: length of all bones together in that unit, and in metres.
        proportion: that length over the deviation of the joints in a picture, of all but the oddest views: low, high.
        projected: (P, K, 2) 2D joints of poses that random cameras see.
        detected: (Q, K, 2) 2D joints that a model found, and which of them are to be believed (Q, K); Q may be 0.
        share: part of a batch that is drawn from these.
        train, test: the prior's poses in metres, as they came.
    """

    poses: np.ndarray
    size: float
    metres: float
    proportion: tuple[float, float]
    projected: np.ndarray
    detected: np.ndarray
    believed: np.ndarray
    share: float
    train: Prior
    test: Prior

    def draw_poses(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, K, 3)."""
        return self.poses[rng.integers(0, len(self.poses), count)]

    def draw_joints(self, count: int, rng: np.random.Generator, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """2D joints (count, K, 2), and what is seen of them (count, K).

        Args:
            noise: of projected joints, as a share of the subject's extent; a model's own are noisy as they come.
        """
        joints = add_noise(self.projected[rng.integers(0, len(self.projected), count)], noise, rng)
        seen = np.ones(joints.shape[:2], np.float32)
        real = np.flatnonzero(rng.random(count) < self.share)
        if len(real) and len(self.detected):
            index = rng.integers(0, len(self.detected), len(real))
            joints[real], seen[real] = self.detected[index], self.believed[index]
        return joints, seen


def find_prior(reader: StoreReader, skeleton: Skeleton, config: Settings) -> Prior:
    """The 3D poses to learn from, in metres, in the order of the skeleton's joints, all of them known.

    Raises:
        ConfigError: several priors and none named; 2D poses; a joint that no pose has. StoreError: no such prior.
        TrainingError: too few poses.
    """
    name = config.prior
    if name == "auto":
        known = [entry["name"] for entry in list_priors(reader.path) if entry["dimensions"] == 3]
        if len(known) > 1:
            raise ConfigError(
                f"{reader.name}: holds the 3D priors {', '.join(known)}; choose one with --set prior=NAME"
            )
        name = known[0] if known else BUILT_IN
        logger.info("3D poses: prior %s", name)
    if name == BUILT_IN:
        prior = built_in_prior(skeleton, config.poses or BUILT_IN_POSES, config.seed)
    else:
        prior = read_prior(reader.path, name).for_skeleton(skeleton)
    if prior.dimensions != 3:
        raise ConfigError(f"prior {name}: holds 2D poses; hypotheses learns from 3D ones; import some")
    known_joints = np.isfinite(prior.poses).all(-1)  # (N, K)
    never = [joint for joint, ever in zip(skeleton.joints, known_joints.any(0), strict=True) if not ever]
    if never:
        raise ConfigError(
            f"prior {name}: has no joint {', '.join(never)} of skeleton {skeleton.name}; "
            "import it again with --map theirs=ours, or name another with --set prior="
        )
    prior = prior.pick(known_joints.all(1))
    if config.poses is not None and config.poses < len(prior):
        prior = prior.pick(np.sort(np.random.default_rng(config.seed).permutation(len(prior))[: config.poses]))
    if len(prior) < FEWEST_POSES:
        raise TrainingError(f"prior {name}: {len(prior)} poses of all joints, at least {FEWEST_POSES} are needed")
    return prior


def split_prior(prior: Prior) -> tuple[Prior, Prior]:
    """(train, test) by groups; of a single group the same twice, which is said."""
    if len(np.unique(prior.groups)) < 2:
        logger.warning("prior %s: it is one group; measured on poses that it is trained on", prior.name)
        return prior, prior
    return prior.split(HELD_OUT)


def find_examples(reader: StoreReader, skeleton: Skeleton, config: Settings) -> Examples:
    """Read the prior and the 2D joints.

    Raises:
        as `find_prior`; BundleError: the 2D model has other joints.
    """
    train, test = split_prior(find_prior(reader, skeleton, config))
    detected, believed = np.zeros((0, skeleton.num_joints, 2)), np.zeros((0, skeleton.num_joints))
    if config.detections > 0:
        detected, believed = detect_joints(reader, skeleton, config.detector_bundle)
        logger.info("2D joints: %d of clips, besides projected ones", len(detected))
    return make_examples(train, test, skeleton, config, detected, believed)


def make_examples(
    train: Prior,
    test: Prior,
    skeleton: Skeleton,
    config: Settings,
    detected: np.ndarray,
    believed: np.ndarray,
) -> Examples:
    """Align the poses to the template, and project them by random cameras: which pose a 2D set is from is forgotten."""
    poses, size = align_to_template(train.poses.astype(float), skeleton)
    mirrored = poses[:, skeleton.flip_index] * (-1, 1, 1)
    both = np.concatenate([poses, mirrored])
    unit = float(np.sqrt((both**2).mean()))  # coordinates of about 1
    height = sum(bone.length for bone in skeleton.bones)
    rng = np.random.default_rng([config.seed, 1])
    cameras: dict[str, Any] = {
        name: getattr(config, name) for name in ("elevation_degrees", "roll_degrees", "distance")
    }
    views = [project_randomly(train.poses, rng, **cameras) for _ in range(config.views)]
    flat = np.concatenate(views)
    flat = np.concatenate([flat, flat[:, skeleton.flip_index] * (-1, 1)])
    return Examples(
        (both / unit).astype(np.float32), height / unit, height * float(np.median(size)),
        usual_proportion(train.poses, skeleton, config), flat.astype(np.float32),
        detected.astype(np.float32), believed.astype(np.float32), config.detections if len(detected) else 0.0,
        train, test,
    )  # fmt: skip


def usual_proportion(poses: np.ndarray, skeleton: Skeleton, config: Settings) -> tuple[float, float]:
    """Length of all bones over the deviation of the joints in a picture: 1st and 99th percentile of random views."""
    angles = {"elevation_degrees": config.elevation_degrees, "roll_degrees": config.roll_degrees}
    flat = random_views(poses.astype(float), np.random.default_rng([config.seed, 3]), **angles)[..., :2]
    deviation = np.sqrt(((flat - flat.mean(1, keepdims=True)) ** 2).mean((1, 2)))
    low, high = np.quantile(bone_lengths(poses, skeleton).sum(-1) / np.maximum(deviation, 1e-9), [0.01, 0.99])
    return float(low), float(high)


def detect_joints(reader: StoreReader, skeleton: Skeleton, bundle: str | None) -> tuple[np.ndarray, np.ndarray]:
    """What a 2D model finds in the store's crops: (Q, K, 2) crop pixels, (Q, K) 1 where it is to be believed.

    Raises:
        ConfigError: the model has other joints than the skeleton.
    """
    from streampose.runtime.bundle import default_bundle
    from streampose.runtime.predictor import load_predictor

    predictor = load_predictor(bundle or default_bundle())
    if predictor.skeleton.joints != skeleton.joints:
        raise ConfigError(
            f"{predictor.bundle.path}: finds the joints of skeleton {predictor.skeleton.name}, not of {skeleton.name}; "
            "name another model with --set detector_bundle=, or leave out --set detections="
        )
    from streampose.geometry.crop import shrink

    size, found = predictor.input_size, [np.zeros((0, skeleton.num_joints, 4))]
    for clip in reader.clips():
        for start in range(0, clip.num_frames, 64):
            part = reader.read_many([(clip.id, n) for n in range(start, min(start + 64, clip.num_frames))], masks=False)
            crops = np.stack([shrink(crop, (size, size)) for crop in part.frames])
            keypoints, confidence = predictor.predict_crops(crops)
            found.append(np.concatenate([keypoints, confidence[..., None]], -1))
    every = np.concatenate(found)
    believed = every[..., 3] >= CONFIDENT
    kept = believed.sum(1) >= FEWEST_SEEN
    return every[kept, :, :2], believed[kept].astype(float)


def add_noise(joints: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """2D joints (B, K, 2) that are off by a share of each subject's extent."""
    if noise <= 0:
        return joints
    extent = (joints.max(1) - joints.min(1)).max(-1)
    return joints + noise * extent[:, None, None] * rng.standard_normal(joints.shape)


def hide_joints(visibility: np.ndarray, share: float, most: int, rng: np.random.Generator) -> np.ndarray:
    """Hide up to `most` joints in a share of the sets, but leave enough to be seen: (B, K) -> (B, K)."""
    B, K = visibility.shape
    most = min(most, max(0, K - FEWEST_SEEN))
    number = np.where(rng.random(B) < share, rng.integers(1, max(most, 1) + 1, B), 0) if most else np.zeros(B, int)
    order = rng.random((B, K)).argsort(1).argsort(1)
    hidden = (order < number[:, None]) & (visibility.sum(1) - number >= FEWEST_SEEN)[:, None]
    return np.where(hidden, 0.0, visibility)


def random_turns(count: int, skeleton: Skeleton, rng: np.random.Generator) -> np.ndarray:
    """Rotations to look at subjects from elsewhere, as far as they turn before cameras: (count, 3, 3)."""
    from scipy.spatial.transform import Rotation

    angles = rng.uniform(-1, 1, (count, 3)) * np.asarray(skeleton.turn_degrees)
    return Rotation.from_euler("xyz", angles, degrees=True).as_matrix()


def draw_lifted(joints: np.ndarray, poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """A column for each set: 2D joints (B, K, 2), and poses (B, K, 3) from the front and from the side: RGB."""
    scale = TILE / 6
    columns = []
    for flat, pose in zip(joints, poses, strict=True):
        centred = pose - pose.mean(0)
        size = max(np.abs(centred).max(), 1e-6)
        tiles = [flat * scale * 1.1, centred[:, :2] / size * TILE * 0.45, centred[:, [2, 1]] / size * TILE * 0.45]
        columns.append(np.concatenate([_sticks(points + TILE / 2, skeleton) for points in tiles]))
    return np.concatenate(columns, 1)


def _sticks(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """One figure of lines: left orange, right blue, middle white."""
    tile = np.full((TILE, TILE, 3), 24, np.uint8)
    left, right = ({pair[side] for pair in skeleton.flip_pairs} for side in (0, 1))
    for bone in skeleton.bones:
        colour = (255, 160, 60) if bone.child in left else (80, 160, 255) if bone.child in right else (235, 235, 235)
        ends = [tuple(int(v) for v in points[k].round()) for k in (bone.parent, bone.child)]
        cv2.line(tile, ends[0], ends[1], colour, 1, cv2.LINE_AA)
    return tile
