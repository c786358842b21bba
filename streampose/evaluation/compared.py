"""Predictions beside the truth, joints matched by name, and every metric of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streampose.errors import ConfigError
from streampose.metrics import flips, keypoints_2d, keypoints_3d
from streampose.metrics.post_processing import apply_linear, fit_linear
from streampose.structures import Skeleton

HIGHER_IS_BETTER = {
    "pck@0.1": True, "pck@0.2": True, "pckh@0.5": True, "mse_percent": False, "mpjpe_mm": False, "n_mpjpe_mm": False,
    "pa_mpjpe_mm": False, "pck3d@150mm": True, "auc3d": True,
}  # fmt: skip
SAME_JOINT = (("head", "head_top"), ("neck", "upper_neck"))  # two names of one place


@dataclass(frozen=True)
class Compared:
    """N predictions and their truth over the J joints that both know.

    Attributes:
        joints: J names, the skeleton's.
        columns: (J,) their places in the skeleton.
        skeleton: of the model.
        xy, true_xy: (N, J, 2) source pixels.
        counts: (N, J) whether the truth of a joint counts.
        boxes: (N, 4) what the crops show, edges in source pixels.
        features: (N, F) the whole prediction in units of the crop, for supervised post-processing.
        groups: (N,) what is alike: a clip, a recording, a photo.
        activities, moments: (N,) names, empty where there is none; a moment is shared by the views of a session.
        pose_mm, true_mm: (N, J, 3) the prediction relative to the root, and the truth in the camera's frame; or None.
        head_px: (N,) head sizes, or None to read them from the truth's joints.
        left_out: metric name -> joints that do not count in it.
    """

    joints: tuple[str, ...]
    columns: np.ndarray
    skeleton: Skeleton
    xy: np.ndarray
    true_xy: np.ndarray
    counts: np.ndarray
    boxes: np.ndarray
    features: np.ndarray
    groups: np.ndarray
    activities: np.ndarray
    moments: np.ndarray
    pose_mm: np.ndarray | None = None
    true_mm: np.ndarray | None = None
    head_px: np.ndarray | None = None
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def flip_index(self) -> list[int]:
        """Permutation of the J joints that swaps left and right; a joint whose twin is unknown stays."""
        place = {int(column): number for number, column in enumerate(self.columns)}
        return [place.get(self.skeleton.flip_index[int(c)], place[int(c)]) for c in self.columns]

    def place(self, joint: int) -> int | None:
        """Where a joint of the skeleton is among the J, if it is."""
        found = np.flatnonzero(self.columns == joint)
        return int(found[0]) if len(found) else None

    def pick(self, index: np.ndarray) -> Compared:
        """Some of the N."""
        names = (
            "xy", "true_xy", "counts", "boxes", "features", "groups", "activities", "moments", "pose_mm", "true_mm",
            "head_px",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in names}
        return replace(self, **{name: value[index] for name, value in values.items() if value is not None})


def match_joints(skeleton: Skeleton, known: Sequence[str], what: str) -> tuple[tuple[str, ...], np.ndarray, list[int]]:
    """The skeleton's joints that others know, by name: names, their columns in the skeleton, and in the other's order.

    Raises:
        ConfigError: none is known.
    """
    order = {name: number for number, name in enumerate(known)}
    for one, other in SAME_JOINT:
        if one in order:
            order.setdefault(other, order[one])
        elif other in order:
            order[one] = order[other]
    joints = tuple(name for name in skeleton.joints if name in order)
    if not joints:
        raise ConfigError(f"{what} has none of the joints of {skeleton.name}")
    return joints, np.array([skeleton.joints.index(name) for name in joints]), [order[name] for name in joints]


def crop_features(xy: np.ndarray, z: np.ndarray | None, boxes: np.ndarray) -> np.ndarray:
    """A prediction in units of its crop, the middle at 0: (N, K, 2), (N, K) | None, (N, 4) -> (N, F)."""
    side = (boxes[:, 2] - boxes[:, 0])[:, None, None]
    parts = [(xy + 0.5 - boxes[:, None, :2]) / side - 0.5]
    if z is not None:
        parts.append(z[..., None] / side)
    return np.concatenate(parts, -1).reshape(len(xy), -1)


def measure(compared: Compared) -> dict[str, np.ndarray]:
    """All metrics, with and without `/flips`: {name: (N, J)}, NaN where a joint does not count."""
    plain = _metrics(compared, list(range(len(compared.joints))))
    swapped = _metrics(compared, compared.flip_index)
    errors = dict(plain)
    for name, values in plain.items():
        better = HIGHER_IS_BETTER[name]
        errors[f"{name}/flips"] = flips.better_of(values, swapped[name], higher_is_better=better)
    return {name: errors[name] for name in sorted(errors) if np.isfinite(errors[name]).any()}


def measure_ambiguity(compared: Compared) -> np.ndarray:
    """(N,) the ambiguity ratio (Eq. 11) of the moment that each frame is of, NaN where only one view saw it.

    Views are judged in 3D where there is 3D truth, else in the image. The mean over N is the ratio.
    """
    name = "mpjpe_mm" if compared.true_mm is not None else "mse_percent"
    order = list(range(len(compared.joints)))
    plain, swapped = (flips.row_means(_metrics(compared, o)[name]) for o in (order, compared.flip_index))
    ratio = np.full(len(plain), np.nan)
    for moment in np.unique(compared.moments[compared.moments != ""]):
        index = np.flatnonzero((compared.moments == moment) & np.isfinite(plain))
        if len(index) > 1:
            ratio[index] = flips.ambiguity_ratio(plain[None, index], swapped[None, index])
    return ratio


def post_process(compared: Compared, share: float, seed: int = 0) -> Compared:
    """Supervised post-processing (`mask`, Sec. 3.3): a linear map to the truth's joints, measured on the rest.

    The map is fitted on a share of the groups and answers for the others, so that nobody's truth is seen.

    Args:
        share: of the groups, between 0 and 1.

    Returns:
        The groups that are left, with mapped predictions.

    Raises:
        ConfigError: a share outside (0, 1), or fewer than two groups.
    """
    names = np.unique(compared.groups)
    if not 0 < share < 1:
        raise ConfigError(f"--spp {share:g}: a share between 0 and 1 is fitted on, the rest is measured")
    if len(names) < 2:
        raise ConfigError(f"--spp {share:g}: there is one recording only; a map needs another to be measured on")
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    fitted = np.isin(compared.groups, np.random.default_rng(seed).permutation(names)[:count])
    one, other = compared.pick(np.flatnonzero(fitted)), compared.pick(np.flatnonzero(~fitted))
    side = (one.boxes[:, 2] - one.boxes[:, 0])[:, None, None]
    true_xy = np.where(one.counts[..., None], (one.true_xy + 0.5 - one.boxes[:, None, :2]) / side, np.nan)
    map_2d = fit_linear(one.features, true_xy.reshape(len(true_xy), -1))
    found = apply_linear(map_2d, other.features).reshape(*other.xy.shape)
    side = (other.boxes[:, 2] - other.boxes[:, 0])[:, None, None]
    changed = replace(other, xy=found * side + other.boxes[:, None, :2] - 0.5)
    root = one.place(one.skeleton.root)
    if one.true_mm is None or other.pose_mm is None or root is None:
        return changed
    target = keypoints_3d.relative_to(one.true_mm, root)
    map_3d = fit_linear(one.features, target.reshape(len(target), -1))
    return replace(changed, pose_mm=apply_linear(map_3d, other.features).reshape(*other.pose_mm.shape))


def _metrics(compared: Compared, order: list[int]) -> dict[str, np.ndarray]:
    """Every metric of the predictions with their joints in this order: {name: (N, J)}."""
    xy, true_xy, counts = compared.xy[:, order], compared.true_xy, compared.counts
    side = compared.boxes[:, 2] - compared.boxes[:, 0]
    values = {"mse_percent": keypoints_2d.mse_percent(xy, true_xy, side, counts)}
    for name, threshold, pair, given in (
        ("pck@0.1", 0.1, compared.skeleton.torso, None),
        ("pck@0.2", 0.2, compared.skeleton.torso, None),
        ("pckh@0.5", 0.5, compared.skeleton.head, compared.head_px),
    ):
        size = _segment(compared, pair) if given is None else given
        if size is not None:
            values[name] = keypoints_2d.pck(xy, true_xy, size, threshold, counts)
    root = compared.place(compared.skeleton.root)
    if compared.pose_mm is not None and compared.true_mm is not None and root is not None:
        pose, true = compared.pose_mm[:, order], compared.true_mm
        values["mpjpe_mm"] = keypoints_3d.mpjpe(pose, true, root)
        values["n_mpjpe_mm"] = keypoints_3d.n_mpjpe(pose, true, root)
        values["pa_mpjpe_mm"] = keypoints_3d.pa_mpjpe(pose, true)
        values["pck3d@150mm"] = keypoints_3d.pck3d(pose, true, root)
        values["auc3d"] = keypoints_3d.auc3d(pose, true, root)
    for name, joints in compared.left_out.items():
        if name in values:
            values[name] = np.where(np.isin(compared.joints, joints)[None], np.nan, values[name])
    return values


def _segment(compared: Compared, pair: tuple[int, int] | None) -> np.ndarray | None:
    """Length of a segment of the truth in pixels, (N,); None where an end is unknown."""
    if pair is None:
        return None
    ends = compared.place(pair[0]), compared.place(pair[1])
    if ends[0] is None or ends[1] is None:
        return None
    return keypoints_2d.segment_size(compared.true_xy, (ends[0], ends[1]))
