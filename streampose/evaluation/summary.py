"""Metrics of every frame and joint as means, with intervals, by joint, by activity and by recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from streampose.evaluation.compared import Compared, measure, measure_ambiguity
from streampose.metrics.intervals import group_interval

Tables = dict[str, dict[str, float]]


def summarise(compared: Compared) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, list[float]]]:
    """The metrics of every frame and joint, (N, J) or (N,); their means; and their intervals over groups."""
    errors = measure(compared)
    ratio = measure_ambiguity(compared)
    if np.isfinite(ratio).any():
        errors["ambiguity_ratio"] = ratio
    metrics = {name: float(np.nanmean(values)) for name, values in errors.items()}
    intervals = {}
    for name, values in errors.items():
        if (interval := group_interval(values, compared.groups)) is not None:
            intervals[name] = list(interval)
    return errors, metrics, intervals


def by_joint(values: np.ndarray, joints: Sequence[str]) -> dict[str, float]:
    """The mean of each joint that is known at all: (N, J) -> {joint: mean}."""
    known = np.isfinite(values)
    means = np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return {name: float(mean) for name, mean, count in zip(joints, means, known.sum(0), strict=True) if count}


def by_name(errors: Mapping[str, np.ndarray], names: np.ndarray) -> Tables:
    """{metric: {name: mean}} over the frames of each name (an activity, a clip); empty names are left out."""
    tables: Tables = {}
    for name in np.unique(names[names != ""]).tolist():
        index = names == name
        for metric, values in errors.items():
            part = values[index]
            if np.isfinite(part).any():
                tables.setdefault(metric, {})[name] = float(np.nanmean(part))
    return tables
