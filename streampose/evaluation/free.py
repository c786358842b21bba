"""The measures that need no labels, of predictions on a store's clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampose.evaluation.predicted import Predicted
from streampose.evaluation.summary import by_joint
from streampose.metrics import label_free
from streampose.structures import Skeleton


def measure_label_free(
    found: Sequence[Predicted], skeleton: Skeleton
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The metrics that need no labels, and those of them that have a value for each joint.

    `free/score` sums them up for comparing models on the same frames, higher is better: the overlap with the mask,
    times the share of joints inside it, times the share of steps in which left and right keep their sides.
    """
    iou, inside, shake, swaps = [], [], [], []
    for item in found:
        if item.size is None or item.iou is None or item.inside is None:
            continue
        iou.append(item.iou)
        inside.append(item.inside)
        shake.append(label_free.jitter(item.xy, item.pts_seconds, item.size))
        swaps.append(label_free.left_right_swaps(item.xy, item.pts_seconds, item.size, skeleton.flip_pairs))
    arrays = {
        "free/mask_iou": np.concatenate(iou),
        "free/inside_mask": np.concatenate(inside),
        "free/jitter": np.concatenate(shake),
        "free/left_right_swaps": np.concatenate(swaps),
    }
    metrics = {name: float(np.nanmean(values)) for name, values in arrays.items() if np.isfinite(values).any()}
    if "free/mask_iou" in metrics and "free/inside_mask" in metrics:
        kept_sides = 1 - metrics.get("free/left_right_swaps", 0.0)
        metrics["free/score"] = metrics["free/mask_iou"] * metrics["free/inside_mask"] * kept_sides
    joints = list(skeleton.joints)
    names = [name for name in ("free/inside_mask", "free/jitter") if name in metrics]
    return metrics, {name: by_joint(arrays[name], joints) for name in names}
