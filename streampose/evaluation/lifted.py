"""How good a lifter is, on 3D poses as random cameras see them: exact truth, which no picture of anybody has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streampose.geometry.hypotheses import COVERED, REGION, covariance, farthest_points, mean_shift, squared_radius
from streampose.geometry.project_prior import random_views
from streampose.metrics.hypotheses import best_of, spread
from streampose.metrics.intervals import group_interval
from streampose.metrics.keypoints_3d import mpjpe, pa_mpjpe
from streampose.runtime.bundle import LifterPart
from streampose.runtime.lifter import BANDWIDTH, SAMPLES, Lifting
from streampose.store.priors import Prior
from streampose.structures import Skeleton

BEST_OF, DIVERSE, WIDE = 10, 5, 100  # hypotheses: of which the best counts; by farthest points, of so many
LEAST_METRES = 0.02  # standard deviation of what is taken for known exactly
HIDDEN = 2  # joints that are hidden to learn how far missing ones may be off
LIMBS = ("wrist", "elbow", "knee", "ankle")  # joints that the paper hides


@dataclass(frozen=True)
class Views:
    """Poses and their pictures.

    Attributes:
        truth: (N, K, 3) metres along the camera's axes, the root at the origin.
        joints: (N, K, 2) as the camera sees them.
        groups: (N,) what each pose was taken from.
    """

    truth: np.ndarray
    joints: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class LiftedMeasured:
    """Metrics, and what lifters are compared by: PA-MPJPE of each pose in millimetres, with the poses' groups."""

    metrics: dict[str, float]
    errors: np.ndarray
    groups: np.ndarray


def photograph(
    prior: Prior,
    skeleton: Skeleton,
    count: int,
    seed: int,
    *,
    elevation_degrees: float = 10.0,
    roll_degrees: float = 3.0,
    distance: tuple[float, float] = (2.5, 8.0),
    noise: float = 0.0,
) -> Views:
    """At most `count` poses of a prior, evenly picked, each seen by one random camera in perspective.

    Args:
        noise: how far the 2D joints are off, as a share of the subject's extent (standard deviation).
    """
    every = np.unique(np.linspace(0, len(prior) - 1, min(count, len(prior))).round().astype(int))
    some, rng = prior.pick(every), np.random.default_rng([seed, 2])
    seen = random_views(some.poses.astype(float), rng, elevation_degrees=elevation_degrees, roll_degrees=roll_degrees)
    seen -= seen[:, [skeleton.root]]
    extent = (seen.max(1) - seen.min(1)).max(-1)
    middle = (seen.max(1) + seen.min(1)) / 2
    away = rng.uniform(*distance, len(seen)) * extent
    centred = seen - middle[:, None]
    joints = centred[..., :2] / (centred[..., 2:] + away[:, None, None])
    wide = (joints.max(1) - joints.min(1)).max(-1)
    if noise > 0:
        joints = joints + noise * wide[:, None, None] * rng.standard_normal(joints.shape)
    return Views(seen, joints, some.groups)


def hide_limbs(count: int, skeleton: Skeleton, number: int, seed: int = 0) -> np.ndarray:
    """Visibility with `number` random limb joints hidden (any joints where a skeleton has no limbs): (count, K)."""
    limbs = [k for k, name in enumerate(skeleton.joints) if any(part in name for part in LIMBS)]
    choice = limbs if len(limbs) > number else [k for k in range(skeleton.num_joints) if k != skeleton.root]
    rng, visibility = np.random.default_rng([seed, 3]), np.ones((count, skeleton.num_joints))
    for row in visibility:
        row[rng.choice(choice, number, replace=False)] = 0
    return visibility


def measure_lifter(lifting: Lifting, views: Views, *, thorough: bool = True) -> LiftedMeasured:
    """Measure a lifter.

    Args:
        thorough: also the best of ten, the mode, how diverse and how well calibrated it is, and missing joints.
    """
    skeleton, truth = lifting.skeleton, 1000 * views.truth
    found = lifting.lift(views.joints, count=WIDE if thorough else 1)
    errors = pa_mpjpe(1000 * found.pose, truth).mean(1)
    metrics = {"pa_mpjpe_mm": errors.mean(), "mpjpe_mm": mpjpe(1000 * found.pose, truth, skeleton.root).mean()}
    if thorough:
        drawn = found.hypotheses[:, 1:]  # the first one is no draw
        ten = np.moveaxis(drawn[:, :BEST_OF], 1, 0)
        every = np.stack([pa_mpjpe(1000 * poses, truth) for poses in ten])
        mode = mean_shift(found.hypotheses, BANDWIDTH)
        far = np.take_along_axis(drawn, farthest_points(drawn, DIVERSE)[..., None, None], 1)
        metrics |= {
            "best10_pa_mpjpe_mm": best_of(every).mean(),
            "one_pa_mpjpe_mm": every[0].mean(),
            "mean_shift_pa_mpjpe_mm": pa_mpjpe(1000 * mode, truth).mean(),
            "spread_mm": 1000 * spread(ten).mean(),
            "spread_diverse_mm": 1000 * spread(np.moveaxis(far, 1, 0)).mean(),
            "coverage90": coverage(found.pose, found.covariance, views.truth, skeleton.root),
        }
        for number in (1, 2):
            hidden = lifting.lift(views.joints, hide_limbs(len(truth), skeleton, number), count=1)
            metrics[f"missing{number}_pa_mpjpe_mm"] = pa_mpjpe(1000 * hidden.pose, truth).mean()
    metrics["score"] = -metrics["pa_mpjpe_mm"]
    return LiftedMeasured({name: float(value) for name, value in metrics.items()}, errors, views.groups)


def coverage(pose: np.ndarray, covariances: np.ndarray, truth: np.ndarray, root: int) -> float:
    """Share of joints (but the root, which is never wrong) whose true place lies in the stated 90 % region."""
    inside = squared_radius(truth, pose, covariances) <= REGION
    return float(np.delete(inside, root, 1).mean())


def calibrate(lifting: Lifting, views: Views) -> LifterPart:
    """Factors on each joint's covariance after which 9 of 10 true joints of these poses lie in the region.

    By the quantile of their squared distances, where all joints are given, and for those that are hidden.

    Source: split conformal prediction; Lei et al., Distribution-free predictive inference for regression, JASA 2018.
    """
    skeleton, part = lifting.skeleton, lifting.part
    K, codes = skeleton.num_joints, lifting.codes(SAMPLES)
    seen = np.ones((len(views.joints), K))
    rng = np.random.default_rng(4)
    hidden = (rng.random(seen.shape).argsort(1) >= min(HIDDEN, K - 1)).astype(float)

    def radius(visibility: np.ndarray) -> np.ndarray:
        poses, _ = lifting.sample(views.joints * visibility[..., None], visibility, codes)
        spreads = covariance(poses.astype(float), poses[:, 0], part.least_metres)
        return squared_radius(views.truth, poses[:, 0], spreads) / REGION

    of_seen, of_hidden = radius(seen), np.where(hidden > 0, np.nan, radius(hidden))
    factors = np.quantile(of_seen, COVERED, axis=0), np.nanquantile(of_hidden, COVERED, axis=0)
    known = [np.where(np.isfinite(values) & (values > 1e-4), values, 1e-4) for values in factors]
    return part.model_copy(update={"seen": known[0].tolist(), "missing": np.maximum(*known).tolist()})


def compare_lifted(new: LiftedMeasured, old: LiftedMeasured) -> tuple[float, float, float]:
    """By how many millimetres a lifter is better than another on the same views: (difference, low, high) of 95 %."""
    better = old.errors - new.errors
    between = group_interval(better, new.groups)
    return (float(better.mean()), *(between or (-np.inf, np.inf)))
