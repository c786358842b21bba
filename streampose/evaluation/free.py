"""The measures that need no labels, of predictions on a store's clips, and the score that compares models by them.

`free/score` is the product of three numbers between 0 and 1, higher is better:

- `free/mask_iou`: how well the drawn skeleton covers the mask. Alone it is fooled: points without a body's structure
  reach 0.62 of it with 4 % of the joints right, a trained model 0.73 with 71 %.
- `free/bone_fit`: how well the longest tenth of each bone's projections agrees with the skeleton's lengths.
- exp(-3 d), where d is `free/mirror_distance`: how far the keypoints are, in sizes of the subject, from those of the
  mirrored picture with left and right exchanged. Points without a meaning move when the picture is mirrored.

Where calibrated cameras see a subject together (`evaluation/views.py`), a fourth factor is exp(-3 d) of
`free/view_distance`: how far the keypoints are from where those of all views together say they should be.

How it was chosen: see `tests/benchmarks/label_free_ranks.py`. No measure of single views sees that left and right are
exchanged, so without sessions it ranks models by their error with flips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampose.evaluation.predicted import Predicted
from streampose.evaluation.summary import by_joint
from streampose.metrics import label_free
from streampose.structures import Skeleton

DECAY = 3.0  # the score falls to 1/e where mirror images (or views) disagree by a third of the subject's size
FEWEST_FRAMES, MOST_FRAMES, BLOCKS = 3, 24, 12  # of a clip that are drawn together, neighbours being alike
DRAWS = 500


@dataclass(frozen=True)
class Evidence:
    """What `free/score` is made of, frame by frame.

    Attributes:
        iou: (N,) overlap with the mask, NaN where there is none.
        lengths: (N, B) projected bone lengths in sizes.
        mirror: (N,) mean distance to the mirror image's keypoints in sizes; NaN where it was not asked.
        views: (N,) mean distance to what all views say together in sizes; NaN where one camera was there.
        block: (N,) number of the stretch of frames that each belongs to.
    """

    skeleton: Skeleton
    iou: np.ndarray
    lengths: np.ndarray
    mirror: np.ndarray
    views: np.ndarray
    block: np.ndarray

    def score(self, index: np.ndarray | slice = slice(None)) -> float:
        """`free/score` of all frames or some of them; 0 where no frame has a mask."""
        iou = self.iou[index]
        if not np.isfinite(iou).any():
            return 0.0
        fit = label_free.bone_fit(self.lengths[index], self.skeleton)
        agreement = _agreement(self.mirror[index]) * _agreement(self.views[index])
        return float(np.nanmean(iou) * _geometric_mean(fit) * agreement)


def gather(found: Sequence[Predicted], skeleton: Skeleton) -> Evidence:
    """What predictions on clips with masks tell about a model."""
    iou, lengths, mirror, views, block, count = [], [], [], [], [], 0
    together = int(np.clip(sum(len(item.xy) for item in found) // BLOCKS, FEWEST_FRAMES, MOST_FRAMES))
    for item in found:
        if item.size is None or item.iou is None or item.mirror is None:
            continue
        iou.append(item.iou)
        lengths.append(label_free.bone_lengths(item.xy, item.size, skeleton))
        mirror.append(item.mirror.mean(1))
        views.append(np.full(len(item.iou), np.nan) if item.views is None else item.views)
        block.append(count + np.arange(len(item.iou)) // together)
        count += -(-len(item.iou) // together)
    if not iou:
        none = np.zeros(0)
        return Evidence(skeleton, none, np.zeros((0, len(skeleton.bones))), none, none, np.zeros(0, int))
    return Evidence(skeleton, *(np.concatenate(parts) for parts in (iou, lengths, mirror, views, block)))


def compare_scores(new: Evidence, old: Evidence, *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float, float]:
    """How much better a model scores than another on the same frames: (difference, low, high).

    The interval is of 95 %, by drawing stretches of frames with replacement, the same ones for both models. Of a
    single stretch nothing is known: the interval is infinite.
    """
    assert new.block.shape == old.block.shape and (new.block == old.block).all(), "other frames"
    difference = new.score() - old.score()
    blocks = np.unique(new.block)
    if len(blocks) < 2:
        return difference, -np.inf, np.inf
    members = [np.flatnonzero(new.block == number) for number in blocks]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        index = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        drawn.append(new.score(index) - old.score(index))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return difference, float(low), float(high)


def measure_label_free(
    found: Sequence[Predicted], skeleton: Skeleton
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The metrics that need no labels, and those of them that have a value for each joint."""
    inside, shake, swaps = [], [], []
    for item in found:
        if item.size is None or item.inside is None:
            continue
        inside.append(item.inside)
        shake.append(label_free.jitter(item.xy, item.pts_seconds, item.size))
        swaps.append(label_free.left_right_swaps(item.xy, item.pts_seconds, item.size, skeleton.flip_pairs))
    evidence = gather(found, skeleton)
    arrays = {
        "free/mask_iou": evidence.iou,
        "free/bone_fit": label_free.bone_fit(evidence.lengths, skeleton),
        "free/mirror_distance": evidence.mirror,
        "free/view_distance": evidence.views,
        "free/inside_mask": np.concatenate(inside) if inside else np.zeros((0, skeleton.num_joints)),
        "free/jitter": np.concatenate(shake) if shake else np.zeros((0, skeleton.num_joints)),
        "free/left_right_swaps": np.concatenate(swaps) if swaps else np.zeros(0),
    }
    metrics = {name: float(np.nanmean(values)) for name, values in arrays.items() if np.isfinite(values).any()}
    if "free/mask_iou" in metrics:
        metrics["free/bone_fit"] = _geometric_mean(arrays["free/bone_fit"])
        metrics["free/score"] = evidence.score()
    joints = list(skeleton.joints)
    names = [name for name in ("free/inside_mask", "free/jitter") if name in metrics]
    return metrics, {name: by_joint(arrays[name], joints) for name in names}


def _agreement(distances: np.ndarray) -> float:
    """1 where nothing disagrees, or where nothing was compared."""
    known = distances[np.isfinite(distances)]
    return float(np.exp(-DECAY * known.mean())) if len(known) else 1.0


def _geometric_mean(fit: np.ndarray) -> float:
    known = fit[np.isfinite(fit)]
    return float(np.exp(np.log(np.maximum(known, 1e-6)).mean())) if len(known) else 0.0
